// The network: the step form of an exported net.onnx, one call per time step. Every state is an input and an output
// of the model, and is kept here.
import * as ort from "./ort/ort.wasm.min.mjs";

ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
ort.env.wasm.numThreads = 1;

export class SpikingNet {
  #session;
  #states;

  constructor(session, facts) {
    this.#session = session;
    this.facts = facts;
    this.reset();
  }

  // Open net.onnx and net.json, which build.py wrote.
  static async load() {
    const facts = await (await fetch("net.json")).json();
    const session = await ort.InferenceSession.create("net.onnx", { executionProviders: ["wasm"] });
    return new SpikingNet(session, facts);
  }

  // Back to rest.
  reset() {
    this.#states = Object.fromEntries(
      this.facts.states.map((state) => [state.tensor, tensor(Float32Array.from(state.rest), state.shape)]),
    );
  }

  // Advance one time step; returns {scores, spikes: {layer: 0 or 1 for each neuron}}.
  async step(pixels) {
    const { input, output, layers, states } = this.facts;
    const found = await this.#session.run({ ...this.#states, [input.tensor]: tensor(pixels, input.shape) });
    this.#states = Object.fromEntries(states.map((state) => [state.tensor, found[state.next]]));
    return {
      scores: found[output.tensor].data,
      spikes: Object.fromEntries(layers.map((layer) => [layer.name, found[layer.tensor].data])),
    };
  }

  // Show an image at every time step, from rest; returns the steps.
  async watch(pixels) {
    this.reset();
    const steps = [];
    for (let t = 0; t < this.facts.steps; t++) {
      steps.push(await this.step(pixels));
    }
    return steps;
  }
}

function tensor(values, shape) {
  return new ort.Tensor("float32", values, [1, ...shape]);
}
