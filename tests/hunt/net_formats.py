"""Networks and their input: NIR, Programs, ONNX, netx, C folders, npz, weights of a user's own module."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from stl_deploy.graph.program import Program
from tests.hunt.damage import damage_bytes, damage_json
from tests.hunt.mutant import Format, npy
from tests.hunt.structures import damage_onnx, damage_tensors, damage_zip, member


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
    from stl_deploy.exporters.nir.check import check_file
    from stl_deploy.exporters.nir.file import read_nir
    from stl_deploy.exporters.nir.lower import lower
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
def _programs() -> list[bytes]:
    """Networks of every kind of node, drawn; always the same ones."""
    from hypothesis import HealthCheck, given, settings

    from stl_deploy.exporters.program.file import write_program
    from tests.strategies import programs

    found: list[bytes] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.program"

        @settings(max_examples=60, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
        @given(program=programs(more="all"))
        def draw(program: Program) -> None:
            write_program(program, path)
            found.append(path.read_bytes())

        draw()
    return found


def _try_program(path: Path) -> str:
    """What can be read runs, and each target takes it or refuses it."""
    import stl_deploy as stl
    from stl_deploy.exporters.program.file import read_program
    from stl_deploy.graph.run import run

    program = read_program(path)
    run(program, {node.name: np.ones((2, 1, *node.shape), np.float32) for node in program.inputs})
    network = stl.read(path)
    for target in ("nir", "onnx", "netx", "c", "verilog", "xylo"):
        network.check(target)
    return "read"


def _damage_header(content: bytes, rng: np.random.Generator) -> bytes:
    """Change the JSON of a Program file, whose arrays stay."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    text = np.lib.format.read_array(io.BytesIO(members["program.npy"])).tobytes()
    members["program.npy"] = npy(np.frombuffer(damage_json(text, rng), np.uint8))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(member(name), data)
    return stream.getvalue()


@cache
def _digits(suffix: str, **options: Any) -> bytes:
    from stl_deploy.exporters.onnx.export import export_onnx
    from tests.exporters.onnx.nets import digits

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"net{suffix}"
        export_onnx(digits(), path, **options)
        return path.read_bytes()


def _onnx() -> list[bytes]:
    forms = ("sequence", "step")
    return [_digits(".onnx", form=form, precision=p) for form in forms for p in ("float32", "integer")]


def _try_onnx(path: Path) -> str:
    from stl_deploy.exporters.onnx.model import OnnxModel

    model = OnnxModel.load(path, threads=1)
    x = {n: np.ones((2, 1, *model.shapes[tensor]), np.float32) for n, tensor in model.interface.inputs.items()}
    model.run(x, record=tuple(model.interface.spikes))
    return "read"


@cache
def _net() -> list[bytes]:
    from stl_deploy.exporters.netx.file import write_netx
    from tests.exporters.netx.nets import special_cases

    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.net"
        for net, *_ in special_cases().values():
            write_netx(net, path)
            found.append(path.read_bytes())
    return found


def _try_net(path: Path) -> str:
    from stl_deploy.exporters.netx.convert import run_file
    from stl_deploy.exporters.netx.file import read_netx

    net = read_netx(path)
    if np.prod(net.input_shape) < 2**16:
        run_file(net, np.ones((2, 1, *net.input_shape), np.int32), record=True)
    return "read"


def _npz() -> list[bytes]:
    found = []
    rng = np.random.default_rng(0)
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", method) as archive:
            archive.writestr(member("x.npy", method), npy(rng.random((3, 4, 5)).astype(np.float32)))
            archive.writestr(member("y.npy", method), npy(np.arange(4)))
            archive.writestr(member("other.npy", method), npy(np.arange(4)))
        found.append(stream.getvalue())
    return found


def _try_npz(path: Path) -> str:
    from stl_deploy._util.files import read_inputs, read_npz

    read_inputs(path)
    read_npz(path)
    return "read"


@cache
def _c_folder() -> Mapping[str, bytes]:
    from stl_deploy.exporters.c.target import write_folder
    from stl_deploy.integers.store import About
    from tests.exporters.c.test_by_hand import digits_like

    with tempfile.TemporaryDirectory() as folder:
        write_folder(digits_like(), About("digits", "by hand", {}, "tests"), Path(folder) / "c", flash=None, ram=None)
        return {path.name: path.read_bytes() for path in (Path(folder) / "c").iterdir()}


def _try_c(path: Path) -> str:
    """Integers that can be read are simulated whether or not the C beside them is theirs."""
    from stl_deploy.errors import InputError
    from stl_deploy.exporters.c.target import read_folder
    from stl_deploy.integers.simulate import simulate

    for name, content in _c_folder().items():
        if name != path.name:
            (path.parent / name).write_bytes(content)
    try:
        read_folder(path.parent)
    except InputError as error:
        if "other text" not in str(error):
            raise
    graph, _ = read_folder(path.parent, trust=True)
    if np.prod(graph.input.shape) < 2**16:
        simulate(graph, np.zeros((2, 1, *graph.input.shape), np.int32))
    return "read"


def _try_weights(path: Path) -> str:
    from stl_deploy.runs.user_module import load_module

    file = path.parent / "own.py"
    file.write_text("from tests.hunt.net_formats import small_module\n")
    load_module(f"{file}:small_module", path)
    return "read"


def small_module() -> Any:
    """The weights of this are damaged."""
    from torch import nn

    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


@cache
def _weights(suffix: str) -> list[bytes]:
    import torch
    from safetensors.torch import save

    state = small_module().state_dict()
    if suffix == ".safetensors":
        return [save(state)]
    found = []
    for value in (state, {"state_dict": state, "epoch": 3}):
        for old in (False, True):
            stream = io.BytesIO()
            torch.save(value, stream, _use_new_zipfile_serialization=not old)
            found.append(stream.getvalue())
    return found


def _damage_weights(content: bytes, rng: np.random.Generator) -> bytes:
    return damage_zip(content, rng) if content[:2] == b"PK" else damage_bytes(content, rng)


@cache
def _beside() -> Mapping[str, bytes]:
    from stl_deploy.exporters.onnx.export import export_onnx
    from tests.exporters.onnx.nets import chain, conv, flatten, linear, neuron

    rng = np.random.default_rng(0)
    net = chain(
        (1, 6, 6), conv(rng.integers(-2, 3, (64, 1, 3, 3)) / 2), neuron("lif1", decay=0.7), flatten(),
        linear(rng.integers(-2, 3, (3, 64 * 36)) / 4), neuron("lif2", decay=0.9),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        files = export_onnx(net, Path(folder) / "mutant.onnx", external_above=0)
        return {path.name: path.read_bytes() for path in files}


def _try_beside(path: Path) -> str:
    for name, content in _beside().items():
        if name != path.name:
            (path.parent / name).write_bytes(content)
    return _try_onnx(path.parent / "mutant.onnx")


def _external(content: bytes, rng: np.random.Generator) -> bytes:
    """Change what a model says of the file beside it."""
    import onnx

    model = onnx.load_model_from_string(content)
    tensors = [tensor for tensor in model.graph.initializer if tensor.external_data]
    entry = tensors[int(rng.integers(len(tensors)))].external_data[int(rng.integers(3))]
    numbers = ["-1", "0", "1", "4096", str(2**63), "99999999999999999999", "1e3", "", "٣", "0x10", " 4"]
    places = ["", ".", "..", "../x", "/etc/passwd", "mutant.onnx", "x\0", "é", "config.json", "n" * 300]
    if entry.key == "location":
        entry.value = str(rng.choice([entry.value, *places]))
    else:
        entry.value = str(rng.choice(numbers))
    return bytes(model.SerializeToString())


FORMATS: Mapping[str, Format] = {
    "nir": Format(".nir", golden_nir, _try_nir, hdf5=True),
    "program": Format(".program", _programs, _try_program, (_damage_header, damage_zip, damage_bytes)),
    "net": Format(".net", _net, _try_net, hdf5=True),
    "onnx": Format(".onnx", _onnx, _try_onnx, (damage_onnx, damage_bytes)),
    "onnx_external": Format(".onnx", lambda: [_beside()["mutant.onnx"]], _try_beside, (_external, damage_onnx)),
    "npz": Format(".npz", _npz, _try_npz, (damage_zip, damage_bytes)),
    "c_integers": Format(".npz", lambda: [_c_folder()["integers.npz"]], _try_c, (damage_zip,), file_name="integers"),
    "c_text": Format(".c", lambda: [_c_folder()["net.c"]], _try_c, file_name="net"),
    "weights_pt": Format(".pt", lambda: _weights(".pt"), _try_weights, (_damage_weights, damage_bytes)),
    "weights": Format(".safetensors", lambda: _weights(".safetensors"), _try_weights, (damage_tensors, damage_bytes)),
}
