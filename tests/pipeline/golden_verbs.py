"""Calls of the command line on one hand-made network, and what each leaves: exit code, JSON, text and files.

    python -m tests.pipeline.golden_verbs          # records tests/pipeline/golden_verbs.json anew

Weights are eighths and thresholds halves, so that every sum is exact on every machine. Paths, hashes, versions, times
and sizes are masked.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from stl_deploy import __version__
from stl_deploy.cli import main
from stl_deploy.exporters.nir.file import write_nir
from stl_deploy.exporters.nir.patch import to_graph
from stl_deploy.graph.program import DT, Input, Linear, Neuron, Node, Operand, Output, Program

FILE = Path(__file__).with_suffix(".json")
CALLS = (
    "show DIR/net.nir --json",
    "check DIR/net.nir --target nir --target onnx --target netx --target c --json",
    "simulate DIR/net.nir --input DIR/x.npz --backend reference -o DIR/y.npz --record --json",
    "simulate DIR/net.nir --input DIR/x.npz --backend loihi -o DIR/y8.npz --json",
    "fold DIR/net.nir --thresholds weights -o DIR/folded.nir --json",
    "export DIR/net.nir --to onnx -o DIR/net.onnx --input DIR/x.npz --json",
    "export DIR/net.nir --to nir -o DIR/again.nir --input DIR/x.npz --json",
    "export DIR/net.nir --to netx -o DIR/net.net --input DIR/x.npz --json",
    "export DIR/net.nir --to c -o DIR/c --input DIR/x.npz --no-verify --json",
    "show DIR/net.net --json",
    "check DIR/net.onnx --json",
    "verify DIR/net.nir --against DIR/net.onnx --against DIR/again.nir --input DIR/x.npz --json",
    "energy DIR/net.nir --input DIR/x.npz --json",
    "show DIR/none.nir --json",
    "simulate DIR/net.nir --input DIR/x.npz --backend nobody -o DIR/n.npz",
    "export DIR/net.nir --to onx -o DIR/n.onnx",
    "exprot DIR/net.nir",
    "capture DIR/module.py:Net --input DIR/x.npz --time first -o DIR/captured.nir --json",
    "capture DIR/module.py:Nobody --input DIR/x.npz -o DIR/n.nir --json",
    "capture DIR/module.py:Net --input DIR/wide.npz -o DIR/n.nir --json",
    "train DIR/tiny.yaml -o DIR/trained --json",
    "train DIR/tiny.yaml -o DIR/trained --json",
    "train DIR/tiny.yaml --set train.epoch=2 -o DIR/n --json",
    "run DIR/tiny.yaml -o DIR/whole --no-lava --no-twin --no-frontier --json",
    "run nobody -o DIR/n --json",
    "eval DIR/whole --json",
    "quantise DIR/whole -o DIR/q --epochs 1 --json",
    "quantise DIR/whole -o DIR/n --weight-bits 9 --json",
    "quantise DIR/net.nir -o DIR/n --json",
    "report DIR/whole --json",
    "report DIR/net.nir --input DIR/x.npz -o DIR/page --json",
    "report DIR/trained --latex --json",
    "optimise DIR/whole --minutes 0 --processes 1 --json",
    "optimise DIR/net.nir --json",
    "join DIR/trained DIR/whole -o DIR/joint --json",
    "join DIR/trained -o DIR/n --json",
    "synthesise DIR/c --device up5k --json",
    "synthesise DIR/c --device up5 --json",
    "fpga-run DIR/c --port DIR/none --input DIR/x.npz --json",
    "nir-conformance -o DIR/graphs --level time --json",
    "nir-conformance --reader false --level time --json",
    "nir-conformance --reader DIR/none --json",
    "nir-conformance --json",
    "prices --json",
    "convert DIR/module.py:Ann --data DIR/labelled.npz --levels 4 -o DIR/converted.program --json",
    "convert DIR/module.py:Ann --data DIR/labelled.npz -o DIR/n.nir --json",
)
TRAINED = ("convert", "train", "run", "eval", "quantise", "report", "join")
"""Verbs whose numbers come from training: only the keys of their JSON, and their text without numbers, are recorded."""
KEYS_ONLY = ("energy", "optimise", "prices", *TRAINED)
"""Besides, verbs whose numbers follow price lists: only the keys of their JSON are recorded."""
_WAITING = re.compile(r"capturing \S+: |compiling the fast path")
"""Lines that a slow machine prints, or one without compiled kernels in its cache."""
_TINY = """
dataset: {name: digits, T: 4, test_fraction: 0.2}
network:
  - {kind: flatten}
  - {kind: linear, features: 24}
  - {kind: lif}
  - {kind: linear, features: 20}
  - {kind: lif}
  - {kind: vote, population: 2}
train: {epochs: 2, lr: 0.01, device: cpu}
"""
_MODULE = """
import numpy as np
import stl_deploy as stl
import torch
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        first, last = stl.LIF((6,), decay=0.5, threshold=0.75), stl.LIF((3,), threshold=0.5)
        super().__init__(nn.Linear(8, 6), first, nn.Linear(6, 3), last)
        drawn = np.random.default_rng(7)
        with torch.no_grad():
            for layer in (self[0], self[2]):
                for value in layer.parameters():
                    value.copy_(torch.from_numpy(drawn.integers(-8, 16, value.shape) / 8))

class Ann(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
        self.load_state_dict({name: value for name, value in Net().state_dict().items() if name in self.state_dict()})
"""


def network() -> Program:
    """Two layers of neurons, 8 inputs and 3 outputs."""
    rng = np.random.default_rng(5)

    def weight(rows: int, columns: int) -> Any:
        return (rng.integers(-8, 16, (rows, columns)) / 8).astype(np.float32)

    half = np.float32(0.5)
    nodes: tuple[Node, ...] = (
        Input(name="input", shape=(8,), operands=()),
        Linear(name="fc1", shape=(6,), operands=(Operand("input"),), weight=weight(6, 8), bias=None, input_shape=(8,)),
        Neuron(name="lif1", shape=(6,), operands=(Operand("fc1"),), decay=half, threshold=np.float32(1.5)),
        Linear(name="fc2", shape=(3,), operands=(Operand("lif1"),), weight=weight(3, 6), bias=None, input_shape=(6,)),
        Neuron(name="lif2", shape=(3,), operands=(Operand("fc2"),), decay=half, threshold=np.float32(1)),
        Output(name="output", shape=(3,), operands=(Operand("lif2"),)),
    )
    return Program(nodes, DT, {"input": {"coding": "spikes", "fraction_bits": 0, "max": 1.0}})


def outcomes(folder: Path) -> dict[str, Any]:
    """Make every call in ``folder``, in order; return what each left, by the call."""
    write_nir(to_graph(network()).graph, folder / "net.nir")
    rng = np.random.default_rng(6)
    np.savez(folder / "x.npz", x=rng.integers(0, 2, (12, 5, 8)).astype(np.float32), y=np.arange(5) % 3)
    drawn = np.random.default_rng(8)
    labelled = {"x": drawn.random((60, 8)).astype(np.float32), "y": drawn.integers(0, 3, 60)}
    np.savez(folder / "labelled.npz", **labelled)
    np.savez(folder / "wide.npz", x=np.zeros((12, 5, 9), np.float32))
    (folder / "tiny.yaml").write_text(_TINY)
    (folder / "module.py").write_text(_MODULE)
    found = {}
    for number, call in enumerate(CALLS):
        before = set(folder.rglob("*"))
        out, err, code = io.StringIO(), io.StringIO(), 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main(call.replace("DIR", str(folder)).split())
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 1
        verb = call.split()[0]
        contents = json.loads(out.getvalue()) if out.getvalue() else None
        lines = [_masked(line.rstrip(), folder) for line in err.getvalue().splitlines() if not _WAITING.match(line)]
        if verb in KEYS_ONLY:
            lines = _numberless(lines) if verb in TRAINED or code else []
        found[f"{number}: {call}"] = {
            "code": code,
            "json": _keys(contents) if verb in KEYS_ONLY else _masked(contents, folder),
            "text": lines,
            "files": sorted(str(path.relative_to(folder)) for path in set(folder.rglob("*")) - before),
        }
    return found


def _masked(value: Any, folder: Path) -> Any:
    if isinstance(value, Mapping):
        masked = {_masked(key, folder): _masked(item, folder) for key, item in value.items()}
        return {
            key: "MASKED" if key in ("versions", "threads", "bytes", "seconds") else item
            for key, item in masked.items()
        }
    if isinstance(value, list):
        return [_masked(item, folder) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, str):
        text = value.replace(str(folder), "DIR").replace(__version__, "VERSION")
        text = re.sub(r"\b[0-9a-f]{64}\b", "HASH", text)
        return re.sub(r"\b\d[\d.,]* (s|ms|kB|KiB|MB|MiB|B|bytes)\b", r"# \1", text)
    return value


def _numberless(lines: list[str]) -> list[str]:
    """Return each paragraph on one line, since wraps follow the lengths of its numbers; of the energy, its name."""
    text = re.sub(r"\nenergy .*", "\nenergy", "\n".join(lines).replace("\n          ", " ")).replace("+cpu", "")
    return [re.sub(r"  +", " ", re.sub(r"\d+([.,]\d+)*", "#", line)) for line in text.splitlines()]


def _keys(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _keys(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_keys(value[0])] if value else []
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


if __name__ == "__main__":
    with TemporaryDirectory() as temporary:
        FILE.write_text(json.dumps(outcomes(Path(temporary)), indent=1, ensure_ascii=False) + "\n")
    print(f"written: {FILE}")
