// Small images of arrays.
const GAP = 1;
const WIDTH = 132;
const ZOOM = 4;

// Grey values in [0, 1], `width` to a row, in the text's colour.
export function picture(canvas, values, width) {
  [canvas.width, canvas.height] = [width, values.length / width];
  const ink = canvas.getContext("2d");
  ink.fillStyle = getComputedStyle(document.body).color;
  values.forEach((value, i) => {
    ink.globalAlpha = value;
    ink.fillRect(i % width, Math.floor(i / width), 1, 1);
  });
}

// One tile for each channel of [C, H, W], or one dot for each neuron of [N]; `most` spikes are the full colour
// (the canvas's text colour in the style sheet; its border colour is silence).
export function maps(canvas, counts, shape, most) {
  const [channels, height, width] = shape.length === 3 ? shape : [counts.length, 1, 1];
  const columns = Math.max(1, Math.min(channels, Math.floor(WIDTH / (width + GAP))));
  const rows = Math.ceil(channels / columns);
  canvas.width = columns * (width + GAP) - GAP;
  canvas.height = rows * (height + GAP) - GAP;
  canvas.style.width = `${canvas.width * ZOOM}px`;
  const style = getComputedStyle(canvas);
  const ink = canvas.getContext("2d");
  ink.fillStyle = style.borderTopColor;
  const place = (i) => {
    const [channel, row, column] = [Math.floor(i / (height * width)), Math.floor(i / width) % height, i % width];
    return [(channel % columns) * (width + GAP) + column, Math.floor(channel / columns) * (height + GAP) + row, 1, 1];
  };
  ink.globalAlpha = 0.5;
  counts.forEach((_, i) => ink.fillRect(...place(i)));
  ink.fillStyle = style.color;
  counts.forEach((count, i) => {
    ink.globalAlpha = Math.min(1, count / most);
    ink.fillRect(...place(i));
  });
}
