// Drawing, and what the network was trained on: 32 x 32 bitmaps whose 4 x 4 blocks are counted (0 to 16).
const SIDE = 8;
const BLOCK = 4;
const FINE = SIDE * BLOCK;
const WIDEST = 24;
const STROKE = 28;

export class Pad {
  #canvas;
  #ink;
  #last = null;

  // changed() is called while a stroke grows.
  constructor(canvas, changed) {
    this.#canvas = canvas;
    this.#ink = canvas.getContext("2d", { willReadFrequently: true });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.#last = this.#at(event);
      this.#line(this.#last);
      changed();
    });
    canvas.addEventListener("pointermove", (event) => {
      if (this.#last !== null) {
        this.#line(this.#at(event));
        changed();
      }
    });
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, () => {
        this.#last = null;
      });
    }
  }

  clear() {
    this.#ink.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
  }

  // The drawing as 64 values in [0, 1]: its bounding box scaled to 32 high (or 24 wide), centred; null if empty.
  pixels() {
    const { width, height } = this.#canvas;
    const box = bounds(this.#ink.getImageData(0, 0, width, height));
    if (box === null) {
      return null;
    }
    const scale = Math.min(FINE / box.height, WIDEST / box.width);
    const [w, h] = [box.width * scale, box.height * scale];
    const fine = new OffscreenCanvas(FINE, FINE).getContext("2d");
    fine.imageSmoothingQuality = "high";
    fine.drawImage(this.#canvas, box.x, box.y, box.width, box.height, (FINE - w) / 2, (FINE - h) / 2, w, h);
    const found = new Float32Array(SIDE * SIDE);
    fine.getImageData(0, 0, FINE, FINE).data.forEach((value, i) => {
      if (i % 4 === 3 && value > 127) {
        const [row, column] = [Math.floor(i / 4 / FINE), (i >> 2) % FINE];
        found[Math.floor(row / BLOCK) * SIDE + Math.floor(column / BLOCK)] += 1 / BLOCK ** 2;
      }
    });
    return found;
  }

  #at(event) {
    const scale = this.#canvas.width / this.#canvas.clientWidth;
    return [event.offsetX * scale, event.offsetY * scale];
  }

  #line(to) {
    const ink = this.#ink;
    ink.lineWidth = STROKE;
    ink.lineCap = "round";
    ink.strokeStyle = getComputedStyle(this.#canvas).color;
    ink.beginPath();
    ink.moveTo(...this.#last);
    ink.lineTo(...to);
    ink.stroke();
    this.#last = to;
  }
}

function bounds(image) {
  let [left, right, top, bottom] = [image.width, -1, image.height, -1];
  for (let i = 3; i < image.data.length; i += 4) {
    if (image.data[i] > 127) {
      const [x, y] = [(i >> 2) % image.width, Math.floor(i / 4 / image.width)];
      [left, right, top, bottom] = [Math.min(left, x), Math.max(right, x), Math.min(top, y), Math.max(bottom, y)];
    }
  }
  return right < 0 ? null : { x: left, y: top, width: right - left + 1, height: bottom - top + 1 };
}
