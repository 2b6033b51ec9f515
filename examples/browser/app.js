import { SpikingNet } from "./net.js";
import { Pad } from "./pad.js";
import { maps, picture } from "./pictures.js";

const PLAY_MS = 400;
const by = (id) => document.getElementById(id);
const net = await SpikingNet.load().catch((error) => {
  by("status").textContent = `The network did not load: ${error.message}`;
  throw error;
});
const { facts } = net;

let steps = [];
let shown = 0; // a step, or facts.steps for the sum over all of them
let playing;
let waiting = null; // pixels that came in while the net was busy
let busy = false;

const pad = new Pad(by("pad"), () => show(pad.pixels(), false));
by("clear").addEventListener("click", () => {
  pad.clear();
  clearInterval(playing);
  steps = [];
  by("answer").textContent = "–";
  by("seen").getContext("2d").clearRect(0, 0, 8, 8);
  draw();
});
by("pad").addEventListener("pointerup", play);

const stepButtons = [...Array(facts.steps + 1).keys()].map((t) => {
  const button = document.createElement("button");
  button.textContent = t < facts.steps ? `step ${t + 1}` : "all steps";
  button.addEventListener("click", () => {
    clearInterval(playing);
    select(t);
  });
  by("steps").append(button);
  return button;
});

const layers = facts.layers.map((layer) => {
  const [row, text, canvas] = ["div", "p", "canvas"].map((tag) => document.createElement(tag));
  row.className = "layer";
  canvas.setAttribute("aria-label", `Spikes of ${layer.name}`);
  row.append(text, canvas);
  by("layers").append(row);
  return { ...layer, text, canvas, size: layer.shape.reduce((a, b) => a * b) };
});

const scores = [...Array(facts.output.shape[0]).keys()].map((label) => {
  const row = document.createElement("div");
  row.className = "score";
  row.innerHTML = `<span>${label}</span><span><i></i></span><span></span>`;
  by("scores").append(row);
  return { row, bar: row.querySelector("i"), value: row.lastElementChild };
});

facts.samples.forEach((sample, i) => {
  const [button, canvas] = ["button", "canvas"].map((tag) => document.createElement(tag));
  picture(canvas, sample.pixels, 8);
  button.setAttribute("aria-label", `Test image ${i + 1}, a ${sample.label}`);
  button.append(canvas);
  button.addEventListener("click", () => {
    pad.clear();
    show(Float32Array.from(sample.pixels), true);
  });
  by("samples").append(button);
});

select(facts.steps);
by("status").textContent = `${facts.name}: ${facts.layers.length} spiking layers, ${facts.steps} time steps, run by ONNX Runtime Web.`;

// Run the newest image; those that a running one has overtaken are left out.
async function show(pixels, andPlay) {
  if (pixels === null) {
    return;
  }
  waiting = pixels;
  if (busy) {
    return;
  }
  busy = true;
  while (waiting !== null) {
    const now = waiting;
    waiting = null;
    picture(by("seen"), now, 8);
    steps = await net.watch(now);
    draw();
  }
  busy = false;
  if (andPlay) {
    play();
  }
}

function play() {
  clearInterval(playing);
  select(0);
  playing = setInterval(() => {
    select(shown + 1);
    if (shown === facts.steps) {
      clearInterval(playing);
    }
  }, PLAY_MS);
}

function select(t) {
  shown = t;
  stepButtons.forEach((button, i) => button.setAttribute("aria-pressed", i === t));
  draw();
}

function draw() {
  const all = shown === facts.steps;
  const part = all ? steps : steps.slice(shown, shown + 1);
  for (const layer of layers) {
    const counts = sum(part.map((step) => step.spikes[layer.name]), layer.size);
    const spikes = counts.reduce((a, b) => a + b, 0);
    const possible = layer.size * (all ? facts.steps : 1);
    layer.text.innerHTML = `<b>${layer.name}</b> ${layer.shape.join(" × ")} · ${spikes.toLocaleString("en")} of ${possible.toLocaleString("en")} spikes`;
    maps(layer.canvas, counts, layer.shape, all ? facts.steps : 1);
  }
  const votes = sum(steps.slice(0, all ? facts.steps : shown + 1).map((step) => step.scores), scores.length);
  const best = votes.indexOf(Math.max(...votes));
  scores.forEach(({ row, bar, value }, label) => {
    row.classList.toggle("best", steps.length > 0 && label === best);
    bar.style.width = `${(100 * Math.max(votes[label], 0)) / Math.max(...votes, 1e-9)}%`;
    value.textContent = steps.length ? votes[label].toFixed(1) : "";
  });
  if (steps.length) {
    by("answer").textContent = Math.max(...votes) > 0 ? best : "–";
  }
}

function sum(arrays, size) {
  const total = new Float32Array(size);
  arrays.forEach((array) => array.forEach((value, i) => {
    total[i] += value;
  }));
  return total;
}

window.example = { net }; // for the console and the tests
