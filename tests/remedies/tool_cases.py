"""Remedies of targets and outside tools: each is reached, with a stand-in where a tool is needed, and followed."""

from __future__ import annotations

import os
import pty
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import nir
import numpy as np
import onnx
import pytest
import torch
from torch import nn

import stl_deploy as stl
from stl_deploy import verbs
from stl_deploy.errors import ToolError
from stl_deploy.exporters.integer_runner import calibration
from stl_deploy.exporters.lava import environment
from stl_deploy.exporters.lava.environment import find_python
from stl_deploy.exporters.lava.target import run_lava
from stl_deploy.exporters.netx.file import write_netx
from stl_deploy.exporters.netx.layers import NetxFile
from stl_deploy.exporters.nir.file import write_nir
from stl_deploy.exporters.onnx import OnnxModel
from stl_deploy.exporters.targets import Options, find_runner
from stl_deploy.exporters.verilog.board import _open
from stl_deploy.exporters.verilog.target import VerilogFormat, VerilogOptions
from stl_deploy.exporters.witnesses.equations import equations
from stl_deploy.graph.program import Neuron
from stl_deploy.verbs.whole_way import _others_run
from tests.conformance.golden import GOLDEN
from tests.exporters.netx.nets import chain, dense, neuron
from tests.exporters.netx.programs import Builder
from tests.graph import nets
from tests.remedies.room import Remedy, Room, said

READER = f"{sys.executable} -c pass"
"""A command that starts, and answers nothing."""


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _no_lava(room: Room) -> str:
    with _environment(STL_DEPLOY_LAVA=str(room.folder / "no-lava")):
        return str(environment.status().reason)


def _conformance(room: Room, **options: Any) -> Any:
    return verbs.nir_conformance(READER, levels=("neurons",), **options)


def _own_file(room: Room, name: str, net: NetxFile) -> Path:
    path = room.new(name)
    write_netx(net, path)
    return path


def _input_on_neurons(room: Room) -> Path:
    """A file whose input layer has neurons, of which x is the bias."""
    path = _own_file(room, "own.net", chain((1,), dense([[2]], neuron=neuron(0, 1))))
    with h5py.File(path, "r+") as file:
        file["layer/0/weight"], file["layer/0/bias"] = 1.0, [0.0]
        for key, value in (("type", b"LOIHI"), ("iDecay", 4096), ("vDecay", 1024), ("vThMant", 30)):
            file[f"layer/0/neuron/{key}"] = value
    return path


def _ones(room: Room) -> Path:
    np.savez(room.folder / "ones.npz", x=np.ones((2, 1, 1), np.int32))
    return room.folder / "ones.npz"


def _on_integers(room: Room, path: Path) -> None:
    verbs.simulate(path, _ones(room), "loihi", room.new("y.npz"))


def _rounding(room: Room) -> stl.SpikingGraph:
    """A network that rounds its counts to the nearest, halves to even."""
    torch.manual_seed(0)
    net = stl.capture(nn.Sequential(nn.Linear(4, 3), stl.LIF((3,), threshold=0.2)), room.spikes)
    counts = {"multi_spike": True, "cap": 3, "rounding": "half_even", "reset": "subtract"}
    nodes = tuple(replace(n, **counts) if isinstance(n, Neuron) else n for n in net.program.nodes)
    return stl.SpikingGraph(replace(net.program, nodes=nodes))


def _without_weights(room: Room) -> stl.SpikingGraph:
    return stl.capture(nn.Sequential(stl.LIF((4,), threshold=0.3)), room.spikes)


def _foreign_onnx(room: Room) -> Path:
    path = room.new("foreign.onnx")
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], [])), path)
    return path


def _wide() -> Any:
    generator = np.random.default_rng(0)
    weights = generator.normal(0, 1, (100, 2000))
    return Builder((2000,)).linear("fc", weights).lif("a", 1.0).program()


def _wide_verilog(room: Room, **options: Any) -> None:
    x = (np.random.default_rng(1).random((1, 1, 2000)) < 0.5).astype(np.float32)
    VerilogFormat().write(_wide(), room.new("v"), VerilogOptions(x=x, **options))


def _verilog(room: Room, **options: Any) -> Path:
    path = room.new("v")
    room.net.export(path, to="verilog", verified=False, **options)
    return path


def _synthesise(room: Room, chosen: str, grade: int | None = None, **options: Any) -> Any:
    """Up to the tools, which are not here or were not called."""
    with _environment(PATH=str(room.folder)):
        return verbs.synthesise(_verilog(room, **options), chosen, grade=grade)


def _reaches_tools(room: Room, chosen: str, grade: int | None = None, **options: Any) -> None:
    with pytest.raises(ToolError):
        _synthesise(room, chosen, grade, **options)


def _slow_decays(room: Room) -> stl.SpikingGraph:
    torch.manual_seed(0)
    common: dict[str, Any] = {"decay": 0.77, "synapse_decay": 0.6, "reset": "subtract"}
    hidden = stl.LIF((6,), threshold=0.3, multi_spike=31, **common)
    layers = nn.Linear(4, 6, bias=False), hidden, nn.Linear(6, 3, bias=False), stl.LIF((3,), threshold=0.3, **common)
    return stl.capture(nn.Sequential(*layers), room.spikes)


def _unsaid(room: Room) -> Path:
    """A file of Sinabs's, which leaves open whether its input is scaled."""
    write_nir(nets.chain([1], nets.lif((1,), tau=20)), room.folder / "sinabs.nir")
    np.savez(room.folder / "one.npz", x=np.ones((4, 2, 1), np.float32))
    return room.folder / "sinabs.nir"


def _two_inputs(room: Room, **options: Any) -> Any:
    nodes = {
        "a": nir.Input(np.array([2])),
        "b": nir.Input(np.array([1])),
        "wa": nir.Linear(nets.a([1, 1])),
        "wb": nir.Linear(nets.a([1])),
        "sum": nets.iff((1,), theta=1.5),
        "y": nir.Output(np.array([1])),
    }
    edges = [("a", "wa"), ("b", "wb"), ("wa", "sum"), ("wb", "sum"), ("sum", "y")]
    write_nir(nets.graph(nodes, edges, {"stl_deploy": {"dialect": {"dt": 1e-4}}}), room.folder / "two.nir")
    np.savez(room.folder / "two.npz", x__a=np.ones((3, 1, 2)), x__b=np.ones((3, 1, 1)))
    return verbs.energy(room.folder / "two.nir", room.folder / "two.npz", **options)


def _again_with_grid(room: Room) -> None:
    path = room.new("c")
    room.analog.export(path, to="c", input_grid=8)
    room.analog.verify(path, room.reals, input_grid=8)


def _python(room: Room, version: tuple[int, int]) -> Path:
    with _environment(PATH=str(room.folder), HOME=str(room.folder)):
        return find_python(version, "Lava")


def _no_witness(room: Room) -> str:
    with _environment(STL_DEPLOY_WITNESSES=str(room.folder / "none")):
        return str(find_runner("brian2").available())


def _terminal(baud: int) -> None:
    """A serial line's other end is opened and closed."""
    board, host = pty.openpty()
    try:
        os.close(_open(Path(os.ttyname(host)), baud))
    finally:
        os.close(board)
        os.close(host)


def _recognised(room: Room) -> Path:
    """A file whose writer shows in its form."""
    with np.load(GOLDEN / "spikingjelly-read-spikingjelly-mlp.npz") as kept:
        (room.folder / "jelly.nir").write_bytes(kept["nir"].tobytes())
    return room.folder / "jelly.nir"


def _found(net: stl.SpikingGraph, target: str) -> str:
    return str(net.check(target))


TOOLS = (
    Remedy(
        "exporters/nir/target.py:_for_reader",
        lambda room: room.net.export(room.new("net"), to="norse"),
        "export with to='nir' and reader='norse'",
        "export with --to nir and --for norse",
        lambda room: room.net.fold(thresholds="weights", input_grid=0).export(
            room.new("net.nir"), to="nir", reader="norse"
        ),
    ),
    Remedy(
        "exporters/netx/target.py:",
        lambda room: room.net.export(room.new("net"), to="loihi1"),
        "export with to='netx'",
        "export with --to netx",
        lambda room: room.net.export(room.new("net.net"), to="netx"),
    ),
    Remedy(
        "pipeline/verify.py:_require_whole",
        lambda room: room.analog.verify(room.c, room.reals),
        "export it again with input_grid=BITS",
        "export it again with --input-grid BITS",
        lambda room: _again_with_grid(room),
    ),
    Remedy(
        "verbs/whole_way.py:_others_run",
        lambda room: said(lambda say: _others_run(SimpleNamespace(connections=10**9), say)),  # type: ignore[arg-type]
        "simulators besides Lava are left to stl_deploy.verbs.verify",
        "simulators besides Lava are left to 'stl-deploy verify'",
        lambda room: verbs.verify(room.file, [str(room.net.export(room.new("net.onnx")).path)], input_file=room.input),
    ),
    Remedy(
        "verbs/conformance.py:_command",
        lambda room: verbs.nir_conformance("'unclosed"),
        "reader: expected a command as a shell splits it",
        "--reader: expected a command as a shell splits it",
        lambda room: _conformance(room),
    ),
    Remedy(
        "verbs/conformance.py:_require_known",
        lambda room: _conformance(room, dialect="snntroch"),
        "dialect: expected one of ",
        "--dialect: expected one of ",
        lambda room: _conformance(room, dialect="snntorch"),
    ),
    Remedy(
        "exporters/nir/conformance/kit.py:run_case",
        lambda room: verbs.nir_conformance(str(room.folder / "no-reader"), levels=("neurons",)),
        "reader ",
        "--reader ",
        lambda room: _conformance(room),
    ),
    Remedy(
        "verbs/energy_of.py:_twin",
        lambda room: _two_inputs(room, ann=room.folder),
        "leave ann out",
        "leave --ann out",
        lambda room: _two_inputs(room),
    ),
    Remedy(
        "exporters/integer_runner.py:calibration",
        lambda room: calibration(room.net.program, Options(), None),
        "give x=",
        "give --input X.npz",
        lambda room: calibration(room.net.program, Options(), room.spikes.numpy()),
    ),
    Remedy(
        "exporters/lava/environment.py:_install",
        _no_lava,
        "run: stl_deploy.verbs.lava_install()",
        "run: stl-deploy lava install",
        lambda room: verbs.lava_install,  # a download of 5.8 GB, which the lane of Lava makes
    ),
    Remedy(
        "exporters/lava/environment.py:find_python",
        lambda room: _python(room, (3, 99)),
        "name it with python or STL_DEPLOY_PYTHON399",
        "name it with --python or STL_DEPLOY_PYTHON399",
        lambda room: find_python((sys.version_info[0], sys.version_info[1]), "Lava", Path(sys.executable)),
    ),
    Remedy(
        "exporters/lava/target.py:run_lava",
        lambda room: run_lava(_input_on_neurons(room), np.ones((2, 1, 1), np.int32)),
        "use our integer model (backend='loihi')",
        "use our integer model (--backend loihi)",
        lambda room: _on_integers(room, _input_on_neurons(room)),
    ),
    Remedy(
        "exporters/witnesses/environment.py:reason",
        lambda room: _no_witness(room),
        "run: stl_deploy.verbs.witness_install('brian2')",
        "run: stl-deploy witness install brian2",
        lambda room: verbs.witness_install,  # a download, which the lane of the simulators makes
    ),
    Remedy(
        "exporters/witnesses/equations.py:_not_here",
        lambda room: equations(_rounding(room).program),
        "use the reference (backend='reference')",
        "use the reference (--backend reference)",
        lambda room: _rounding(room).simulate(room.spikes, backend="reference"),
    ),
    Remedy(
        "exporters/nir/check.py:_check_graph",
        lambda room: verbs.check(_recognised(room)),
        "name another with dialect=NAME if that is wrong",
        "name another with --dialect NAME if that is wrong",
        lambda room: verbs.check(_recognised(room), dialect="norse"),
    ),
    Remedy(
        "exporters/nir/check.py:_unsaid",
        lambda room: verbs.check(_unsaid(room), dialect="sinabs"),
        "measure with stl_deploy.verbs.measure",
        "measure with --input X.npz",
        lambda room: verbs.measure(_unsaid(room), room.folder / "one.npz", dialect="sinabs"),
    ),
    Remedy(
        "exporters/onnx/interface.py:read",
        lambda room: OnnxModel.load(_foreign_onnx(room)),
        "expected what net.export wrote",
        "expected what 'stl-deploy export --to onnx' wrote",
        lambda room: OnnxModel.load(room.net.export(room.new("net.onnx")).path),
    ),
    Remedy(
        "exporters/verilog/board.py:_open",
        lambda room: _open(Path(os.devnull), 115201),
        "baud: expected a rate of serial lines, as 115200",
        "--baud: expected a rate of serial lines, as 115200",
        lambda room: _terminal(115200),
    ),
    Remedy(
        "exporters/targets.py:require_free_prefix",
        lambda room: _verilog(room, name="module"),
        "choose another name, as name='module_net'",
        "choose another name, as --name module_net",
        lambda room: _verilog(room, name="module_net"),
    ),
    Remedy(
        "exporters/verilog/fits.py:require_fits",
        lambda room: _wide_verilog(room, device="hx8k"),
        "use device='",
        "use --device ",
        lambda room: _wide_verilog(room, device="ecp5-85f"),
    ),
    Remedy(
        "exporters/verilog/synthesis.py:synthesise",
        lambda room: _synthesise(room, "generic"),
        "device: expected one of ",
        "--device: expected one of ",
        lambda room: _reaches_tools(room, "hx8k"),
    ),
    Remedy(
        "exporters/verilog/synthesis.py:synthesise",
        lambda room: _synthesise(room, "hx8k", device="up5k"),
        "export it with device='hx8k'",
        "export it with --device hx8k",
        lambda room: _reaches_tools(room, "hx8k", device="hx8k"),
    ),
    Remedy(
        "exporters/verilog/synthesis.py:synthesise",
        lambda room: _synthesise(room, "up5k"),
        "export it with device='up5k'",
        "export it with --device up5k",
        lambda room: _reaches_tools(room, "up5k", device="up5k"),
    ),
    Remedy(
        "exporters/verilog/synthesis.py:_of_grade",
        lambda room: _synthesise(room, "ecp5-25f", 9),
        "grade: expected one of 6, 7, 8 ",
        "--grade: expected one of 6, 7, 8 ",
        lambda room: _reaches_tools(room, "ecp5-25f", 8),
    ),
    Remedy(
        "exporters/verilog/synthesis.py:_of_grade",
        lambda room: _synthesise(room, "hx8k", 6),
        "grade: hx8k has no speed grades; leave it out",
        "--grade: hx8k has no speed grades; leave it out",
        lambda room: _reaches_tools(room, "hx8k"),
    ),
    Remedy(
        "exporters/xylo/structure.py:_neuron_refusals",
        lambda room: _found(room.net, "xylo"),
        "train neurons with a synaptic current (stl.LIF(synapse_decay=...), NIR CubaLIF)",
        "train neurons with a synaptic current (--set neuron.synapse_decay=0.5, NIR CubaLIF)",
        lambda room: verbs.configure("digits", ("neuron.synapse_decay=0.5",)),
    ),
    Remedy(
        "exporters/xylo/structure.py:_neuron_refusals",
        lambda room: _found(room.net, "xylo"),
        "train hidden layers with multi_spike 31",
        "train hidden layers with multi_spike 31 (--set network.LAYER.multi_spike=31, LAYER counted from 0)",
        lambda room: verbs.configure("shd", ("neuron.reset=subtract", "network.1.multi_spike=31")),
    ),
    Remedy(
        "exporters/xylo/quantise.py:decay_findings",
        lambda room: _found(_slow_decays(room), "xylo"),
        "export with the nearest, round_decays=True",
        "export with the nearest, --round-decays",
        lambda room: _slow_decays(room).export(room.new("xylo"), to="xylo", round_decays=True),
    ),
)
"""Remedies of targets, other programs' files and outside tools."""
