"""Stream a spiking network one time step at a time: python examples/streaming.py runs/digits

The step form of an ONNX export is a pure function: (input, states) -> (scores, spikes, next states). Whoever calls it
keeps the states, so one session serves any number of streams, and a stream can be stored, moved or rewound. Only
numpy and onnxruntime touch the network here; the tensors' names come from the file's own metadata. With --margin a
sample stops at the first step at which its leading class is ahead of the next by so much (early exit).
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from stl_deploy._util.files import read_input
from stl_deploy.errors import StlDeployError
from stl_deploy.exporters.onnx import export_onnx
from stl_deploy.exporters.onnx.runtime import onnxruntime
from stl_deploy.graph.readout import readout_of, sureness
from stl_deploy.runs.source import TEST_INPUT, open_program, open_source


class Stream:
    """One stream: the states of one network for a batch of samples, kept here between the calls."""

    def __init__(self, session, batch=1):
        kept = session.get_modelmeta().custom_metadata_map
        self.session = session
        self.inputs, self.outputs, self.layers, states = (
            json.loads(kept[f"stl_deploy.{key}"]) for key in ("inputs", "outputs", "spikes", "states")
        )
        shapes = {value.name: (batch, *value.shape[1:]) for value in session.get_inputs()}
        self.next = {state["tensor"]: state["next_tensor"] for state in states}
        self.states = {
            state["tensor"]: np.broadcast_to(np.float32(state["start"]), shapes[state["tensor"]]) for state in states
        }

    def step(self, x):
        """Advance one step with ``x`` [B, *shape]; returns the scores [B, classes] and each layer's spikes."""
        (entry,), (scores,) = self.inputs.values(), self.outputs.values()
        wanted = [scores, *self.layers.values(), *self.next.values()]
        results = dict(zip(wanted, self.session.run(wanted, {entry: x, **self.states}), strict=True))
        self.states = {before: results[after] for before, after in self.next.items()}
        return results[scores], {name: results[tensor] for name, tensor in self.layers.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--margin", type=float, help="stop a sample once its decision is so sure")
    parser.add_argument("--samples", type=int, default=2, help="how many test samples to stream")
    arguments = parser.parse_args()
    try:
        program = open_program(open_source(arguments.run))
        x, labels = read_input(arguments.run / TEST_INPUT)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "net.onnx"
            export_onnx(program, path, form="step")
            session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    except StlDeployError as error:
        raise SystemExit(str(error)) from None
    readout = readout_of(program.metadata)
    for sample in range(min(arguments.samples, x.shape[1])):
        stream, outputs = Stream(session), []
        for t, now in enumerate(x[:, sample : sample + 1]):
            scores, spikes = stream.step(now)
            outputs.append(scores)
            decided = readout.decide(np.stack(outputs))[0]
            counts = "  ".join(f"{name} {int(fired.sum())}" for name, fired in spikes.items())
            print(f"sample {sample}, step {t}: spikes {counts}; class so far: {decided}")
            if arguments.margin is not None and sureness(program, np.stack(outputs))[-1, 0] >= arguments.margin:
                break
        print(f"sample {sample}: class {decided}" + ("" if labels is None else f", label {labels[sample]}"))


if __name__ == "__main__":
    main()
