"""Every format that the product reads from strangers: whole files, ways to damage them, and what is done with a mutant.

A mutant is answered well if it is read or refused by an error of ours; anything else is a failure.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.hunt.damage import damage_bytes, damage_hdf5, damage_json, damage_text

Damage = Callable[[bytes, np.random.Generator], bytes]


@dataclass(frozen=True)
class Format:
    """suffix and file_name: of a mutant. originals: whole files. attempt: reads a mutant; ``read`` or ``refused``.

    damages: of the content, tried in turn; ``hdf5``: also through h5py.
    """

    suffix: str
    originals: Callable[[], list[bytes]]
    attempt: Callable[[Path], str]
    damages: tuple[Damage, ...] = (damage_bytes,)
    hdf5: bool = False
    file_name: str = "mutant"


def write_mutant(of: Format, number: int, seed: int, folder: Path) -> Path:
    """The same number and seed give the same file."""
    rng = np.random.default_rng((seed, number))
    contents = of.originals()
    content = contents[int(rng.integers(len(contents)))]
    path = folder / (of.file_name + of.suffix)
    kinds = len(of.damages) + of.hdf5
    kind = number % kinds
    path.write_bytes(content if kind == len(of.damages) else of.damages[kind](content, rng))
    if kind == len(of.damages):
        damage_hdf5(path, rng)
    return path


def _npy(array: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=False)
    return stream.getvalue()


@cache
def golden_nir() -> list[bytes]:
    """The golden files, the smallest of each framework and direction."""
    from tests.conformance.golden import GOLDEN

    found: dict[str, bytes] = {}
    for path in sorted(GOLDEN.glob("*.npz"), key=lambda path: path.stat().st_size):
        with np.load(path) as kept:
            found.setdefault("-".join(path.stem.split("-")[:3]), kept["nir"].tobytes())
    return list(found.values())


def _try_nir(path: Path) -> str:
    from stl_deploy.graph.check import check_file
    from stl_deploy.graph.io.nir_file import read_nir
    from stl_deploy.graph.lower import lower
    from stl_deploy.graph.run import run

    report = check_file(path)
    wrong = [finding.reason for finding in report.findings if finding.slug == "unexpected"]
    assert not wrong, wrong[0]
    if not report.ok:
        return "refused"
    program = lower(read_nir(path))
    if sum(np.prod(node.shape) for node in program.nodes) < 2**20:
        run(program, {node.name: np.ones((2, 1, *node.shape), np.float32) for node in program.inputs})
    return "read"


@cache
def _digits(suffix: str, **options: Any) -> bytes:
    import tempfile

    from stl_deploy.exporters.onnx.export import export_onnx
    from tests.exporters.onnx.nets import digits

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"net{suffix}"
        export_onnx(digits(), path, **options)
        return path.read_bytes()


def _onnx() -> list[bytes]:
    forms = ("sequence", "step")
    return [_digits(".onnx", form=form, precision=p) for form in forms for p in ("float32", "int8", "integer")]


def _try_onnx(path: Path) -> str:
    from stl_deploy.exporters.onnx.model import OnnxModel

    model = OnnxModel.load(path, threads=1)
    x = {n: np.ones((2, 1, *model.shapes[tensor]), np.float32) for n, tensor in model.interface.inputs.items()}
    model.run(x, record=tuple(model.interface.spikes))
    return "read"


@cache
def _net() -> list[bytes]:
    import tempfile

    from stl_deploy.exporters.loihi.netx import write_netx
    from tests.exporters.loihi.nets import special_cases

    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.net"
        for net, *_ in special_cases().values():
            write_netx(net, path)
            found.append(path.read_bytes())
    return found


def _try_net(path: Path) -> str:
    from stl_deploy.exporters.loihi.netx import read_netx
    from stl_deploy.exporters.loihi.simulate import simulate

    net = read_netx(path)
    if np.prod(net.input_shape) < 2**16:
        simulate(net, np.ones((2, 1, *net.input_shape), np.int32), record=True)
    return "read"


def _member(name: str, method: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)  # of 1980, not of now
    info.compress_type = method
    return info


def _npz() -> list[bytes]:
    found = []
    rng = np.random.default_rng(0)
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", method) as archive:
            archive.writestr(_member("x.npy", method), _npy(rng.random((3, 4, 5)).astype(np.float32)))
            archive.writestr(_member("y.npy", method), _npy(np.arange(4)))
            archive.writestr(_member("other.npy", method), _npy(np.arange(4)))
        found.append(stream.getvalue())
    return found


def _try_npz(path: Path) -> str:
    from stl_deploy._util.files import read_inputs, read_npz

    read_inputs(path)
    read_npz(path)
    return "read"


TINY = {
    "dataset": {"name": "digits", "T": 2},
    "network": [
        {"kind": "conv", "channels": 2, "padding": 1},
        {"kind": "norm"},
        {"kind": "lif"},
        {"kind": "pool"},
        {"kind": "flatten"},
        {"kind": "linear", "features": 10},
        {"kind": "lif"},
        {"kind": "vote", "population": 1},
    ],
    "train": {"epochs": 1, "batch_size": 512, "device": "cpu", "matmul": "highest"},
}


@cache
def _run() -> Mapping[str, bytes]:
    """The files of a small finished run."""
    import tempfile

    from stl_deploy.config.schema import RunConfig
    from stl_deploy.pipeline.run import run

    with tempfile.TemporaryDirectory() as folder:
        run(RunConfig.model_validate(TINY), Path(folder) / "run", lava=False)
        return {path.name: path.read_bytes() for path in (Path(folder) / "run").iterdir() if path.is_file()}


def _of_run(name: str) -> Callable[[], list[bytes]]:
    return lambda: [_run()[name]]


def _beside(path: Path, *, without: str) -> Path:
    for name, content in _run().items():
        if name != without and not (path.parent / name).is_file():
            (path.parent / name).write_bytes(content)
    return path.parent


def _try_checkpoint(path: Path) -> str:
    """Resumed, with one epoch more, as far as the first epoch."""
    from stl_deploy.config.schema import RunConfig
    from stl_deploy.nn.network import Network
    from stl_deploy.training.checkpoint import State, read_checkpoint
    from stl_deploy.training.curves import write_curves
    from stl_deploy.training.loop import make_optimiser

    config = RunConfig.model_validate(TINY)
    network = Network(config, (1, 8, 8), 10)
    state = State(network, make_optimiser(network, config), 0, [], {}, 0)
    read_checkpoint(path.parent, state, config)
    sum(record["seconds"] for record in state.records)
    assert state.records[state.best_epoch - 1]["validation_loss"] < float("inf")
    write_curves(path.parent / "curves.svg", state.records, network)
    return "read"


def _try_model(path: Path) -> str:
    from stl_deploy.training.model_file import load_network, model_facts

    load_network(_beside(path, without="model.safetensors"))
    model_facts(path.parent)
    return "read"


def _try_report(path: Path) -> str:
    """The manifest forgets its hashes, so that the damage is met behind them."""
    from stl_deploy.pipeline.report import report

    folder = _beside(path, without=path.name)
    manifest = json.loads(_run()["manifest.json"])
    if path.name != "manifest.json":
        (folder / "manifest.json").write_text(json.dumps(manifest | {"files": {}}))
    report(folder)
    return "read"


def _presets() -> list[bytes]:
    from importlib import resources

    folder = resources.files("stl_deploy.config") / "presets"
    return [entry.read_bytes() for entry in folder.iterdir() if entry.name.endswith(".yaml")]


def _try_yaml(path: Path) -> str:
    from stl_deploy.pipeline.configure import configure

    configure(str(path))
    return "read"


def _dialects() -> list[bytes]:
    from stl_deploy.graph.dialect import PRESETS

    return [json.dumps(dialect.as_dict()).encode() for dialect in PRESETS.values()]


def _try_dialect(path: Path) -> str:
    from stl_deploy.graph.dialect import load_dialect

    load_dialect(str(path))
    return "read"


def _price_lists() -> list[bytes]:
    from importlib import resources

    folder = resources.files("stl_deploy.energy.prices") / "lists"
    return [entry.read_bytes() for entry in folder.iterdir() if entry.name.endswith(".toml")]


def _try_prices(path: Path) -> str:
    from stl_deploy.energy.prices.load import load_prices

    load_prices(path)
    return "read"


def _gesture() -> list[bytes]:
    rng = np.random.default_rng(0)
    events = np.stack([rng.integers(0, 128, 50), rng.integers(0, 128, 50), rng.integers(0, 2, 50), np.arange(50)], 1)
    return [_npy(events.astype(kind)) for kind in (np.float64, np.uint32, np.int16)]


def _try_gesture(path: Path) -> str:
    from stl_deploy.data.event_files import gesture_npy
    from stl_deploy.data.events import gather

    gather(gesture_npy(path, (2, 128, 128)), 4, (2, 128, 128), "time")
    return "read"


def _nmnist_zip() -> list[bytes]:
    stream = io.BytesIO()
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for label in range(3):
            events = rng.integers(0, 34, (40, 5)).astype(np.uint8)
            archive.writestr(_member(f"Train/{label}/0000{label}.bin", zipfile.ZIP_DEFLATED), events.tobytes())
    return [stream.getvalue()]


def _try_nmnist(path: Path) -> str:
    from stl_deploy.data.event_sources import EVENT_SOURCES
    from stl_deploy.data.events import gather

    source = EVENT_SOURCES["n_mnist"]
    for events, _ in source.recordings([path], source.shape):
        gather(events, 3, source.shape, "count")
    return "read"


def _shd() -> list[bytes]:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["labels"] = np.arange(3, dtype=np.uint16)
        times = file.create_dataset("spikes/times", (3,), h5py.vlen_dtype(np.float16))
        units = file.create_dataset("spikes/units", (3,), h5py.vlen_dtype(np.uint16))
        for i in range(3):
            times[i], units[i] = np.linspace(0, 1, 50), np.arange(50)
        file["extra/keys"] = np.array([b"zero", b"one"])
    return [stream.getvalue()]


def _try_shd(path: Path) -> str:
    from stl_deploy.data.event_files import heidelberg
    from stl_deploy.data.events import gather

    labels, recordings = heidelberg(path, (700,))
    for events, _ in zip(recordings, labels, strict=True):
        gather(events, 4, (700,), "time")
    return "read"


def _idx() -> list[bytes]:
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28)).astype(np.uint8)
    return [gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, 3, 28, 28) + images.tobytes(), mtime=0)]


def _try_idx(path: Path) -> str:
    from stl_deploy.data.idx import read_idx

    read_idx(path, shape=(None, 28, 28))
    return "read"


FORMATS: Mapping[str, Format] = {
    "nir": Format(".nir", golden_nir, _try_nir, hdf5=True),
    "net": Format(".net", _net, _try_net, hdf5=True),
    "onnx": Format(".onnx", _onnx, _try_onnx),
    "npz": Format(".npz", _npz, _try_npz),
    "checkpoint": Format(".safetensors", _of_run("checkpoint.safetensors"), _try_checkpoint, file_name="checkpoint"),
    "model": Format(".safetensors", _of_run("model.safetensors"), _try_model, file_name="model"),
    "yaml": Format(".yaml", _presets, _try_yaml, (damage_text, damage_bytes)),
    "dialect": Format(".json", _dialects, _try_dialect, (damage_json, damage_bytes)),
    "prices": Format(".toml", _price_lists, _try_prices, (damage_text, damage_bytes)),
    "verify": Format(".json", _of_run("verify.json"), _try_report, (damage_json, damage_bytes), file_name="verify"),
    "energy": Format(".json", _of_run("energy.json"), _try_report, (damage_json, damage_bytes), file_name="energy"),
    "manifest": Format(".json", _of_run("manifest.json"), _try_report, (damage_json,), file_name="manifest"),
    "metrics": Format(".jsonl", _of_run("metrics.jsonl"), _try_report, (damage_json,), file_name="metrics"),
    "gesture": Format(".npy", _gesture, _try_gesture),
    "n_mnist": Format(".zip", _nmnist_zip, _try_nmnist),
    "shd": Format(".h5", _shd, _try_shd, hdf5=True),
    "idx": Format(".gz", _idx, _try_idx),
}
SLOW = {"verify", "energy", "manifest", "metrics"}
"""A mutant takes a second or two: the whole report is made of each."""
