"""Remedies of small networks in memory and of their files: each is reached and followed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import stl_deploy as stl
from stl_deploy import verbs
from stl_deploy.energy.chips.time import parse_step_times
from stl_deploy.exporters.program.file import write_program
from stl_deploy.graph.program import Neuron, Operand
from stl_deploy.pipeline.network_input import drawn
from stl_deploy.runs.configure import configure
from tests.exporters.netx.programs import conv_net
from tests.graph import cells
from tests.pipeline.test_time_axis import Images, Loop, Step, X, second
from tests.remedies.room import Remedy, Room, model
from tests.tracing.test_delays import InterpolatedSpikes
from tests.tracing.test_silently_wrong import Passed, ones_and_zeros

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 6, 4)).astype(np.uint8)
LABELS = np.arange(6) % 3


def _found(net: stl.SpikingGraph, *targets: str, **options: Any) -> str:
    return str(net.check(*targets, **options))


def _without(net: stl.SpikingGraph, slug: str, *targets: str, **options: Any) -> None:
    assert slug not in {found.slug for found in net.check(*targets, **options).findings}


def cell_net(room: Room) -> stl.SpikingGraph:
    """A network with a Cell."""
    path = room.new("cell.program")
    write_program(cells.feed_forward(), path)
    return stl.read(path)


def _two_layers() -> stl.SpikingGraph:
    """A layer of weights behind another, which integers do not hold."""
    layers = cells.weights("first", "input", 4, 5, 1), cells.weights("second", "first", 3, 4, 2)
    half = np.float32(0.5)
    neuron = Neuron(name="lif", shape=(3,), operands=(Operand("second"),), decay=half, threshold=half)
    return stl.SpikingGraph(cells.program(*layers, neuron, last="lif"))


def _edited(room: Room) -> Path:
    path = room.new("edited")
    room.net.export(path, to="c")
    (path / "net.c").write_text("int main(void) { return 0; }\n")
    return path


def _beyond(room: Room, factor: int) -> Path:
    np.savez(room.folder / f"beyond{factor}.npz", x=room.spikes.numpy() * factor)
    return room.folder / f"beyond{factor}.npz"


def _in_c(room: Room, factor: int) -> Path:
    return room.net.export(room.new("c_beyond"), to="c", x=room.spikes * factor).path


def _silent(room: Room, *, allow_silent: bool = False) -> Any:
    net = stl.read(room.foreign, dialect="spec")
    file = net.export(room.new("net.onnx"), x=np.ones((4, 2, 3), np.float32), allow_silent=True).path
    return net.verify(file, np.zeros((4, 2, 3), np.float32), allow_silent=allow_silent)


def _folded(room: Room) -> stl.SpikingGraph:
    return room.analog.fold(input_grid=8)


def _module_file(room: Room) -> str:
    (room.folder / "model.py").write_text("from tests.remedies.room import model as net\n")
    return f"{room.folder / 'model.py'}:net"


def _converted(room: Room) -> Any:
    (room.folder / "ann.py").write_text(
        "from torch import nn\nnet = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))\n"
    )
    np.savez(room.folder / "unlabelled.npz", x=np.random.default_rng(0).random((20, 4)).astype(np.float32))
    data = str(room.folder / "unlabelled.npz")
    return verbs.convert(f"{room.folder / 'ann.py'}:net", data, room.new("net").with_suffix(".program"), levels=2)


def _labelled(room: Room, time: Any) -> Any:
    path = room.folder / "labelled.npz"
    np.savez(path, x=(IMAGES > 127).astype(np.float32), y=LABELS)
    return verbs.capture(_module_file(room), path, room.new("labelled").with_suffix(".nir"), time=time)


def _between_steps() -> stl.SpikingGraph:
    return stl.capture(InterpolatedSpikes(), torch.bernoulli(torch.full((10, 3, 5), 0.5)))


class _ScaledSum(nn.Module):
    """A skip connection under a decay for each channel: (1 - beta) * (W @ s + s)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.beta = nn.Linear(6, 5), nn.Linear(5, 5), torch.linspace(0.4, 0.8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        v, u, out = torch.zeros(()), torch.zeros(()), []
        for step in x:
            v = 0.5 * v + self.first(step)
            s = (v >= 0.2).float()
            v = v * (1 - s)
            u = self.beta * u + (1 - self.beta) * (self.second(s) + s)
            out.append((u >= 0.3).float())
            u = u * (1 - out[-1])
        return torch.stack(out)


class _TwoInputs(nn.Module):
    """A sum of two layers, whose grids of 24 bits make one of 25."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.skip = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        v, u, out = torch.zeros(()), torch.zeros(()), []
        for step in x:
            v = 0.5 * v + self.first(step)
            s = (v >= 0.2).float()
            v = v * (1 - s)
            u = 0.8 * u + self.second(s) + self.skip(step)
            out.append((u >= 0.3).float())
            u = u * (1 - out[-1])
        return torch.stack(out)


def _two_inputs() -> stl.SpikingGraph:
    return stl.capture(_TwoInputs(), torch.bernoulli(torch.full((10, 3, 6), 0.5))).fold(input_grid=0)


def _in_float64(room: Room) -> None:
    net = _two_inputs()
    net.verify(net.export(room.new("float64.onnx"), precision="exact").path).require()


def _scaled_sum() -> stl.SpikingGraph:
    return stl.capture(_ScaledSum(), torch.bernoulli(torch.full((10, 3, 6), 0.5)))


def _of_pixels() -> stl.SpikingGraph:
    return stl.SpikingGraph(conv_net(np.random.default_rng(0), "pixel"))


def _projected(room: Room) -> Any:
    net = _of_pixels()
    x = np.ones((4, 2, *net.program.inputs[0].shape), np.float32)
    return net.export(room.new("net.net"), thresholds="projected", x=x)


def _names(room: Room, name: str) -> Any:
    return room.net.export(room.new("c"), to="c", name=name)


def _least(room: Room) -> int:
    """Bytes of RAM that potentials of 16 bits take, with a stack."""
    folder = room.new("c")
    room.net.export(folder, to="c", potentials=16)
    return int((folder / "net.h").read_text().partition("NET_STATE_BYTES = ")[2].partition(",")[0]) + 1024


REMEDIES = (
    Remedy(
        "graph/check.py:on_a_grid",
        lambda room: _found(room.analog, "onnx"),
        "net.fold(input_grid=0) for spikes and counts, net.fold(input_grid=BITS)",
        "stl-deploy fold FILE --exact-grid -o OUT, named as FILE ends, with --input-grid 0",
        lambda room: _without(_folded(room), "sums-not-exact", "onnx"),
    ),
    Remedy(
        "graph/check.py:_in_float64",
        lambda room: _found(_two_inputs(), "onnx"),
        "sum in float64 (net.export(FILE, precision='exact'))",
        "sum in float64 (stl-deploy export FILE --to onnx --exact)",
        _in_float64,
    ),
    Remedy(
        "pipeline/network_input.py:_another_grid",
        lambda room: _folded(room).simulate(room.reals * 4),
        "input_grid=BITS declares another",
        "--input-grid BITS declares another",
        lambda room: _folded(room).simulate(room.reals * 4, input_grid=8),
    ),
    Remedy(
        "graph/compare.py:require_spikes",
        lambda room: _silent(room).require(),
        "or allow_silent=True",
        "or --allow-silent",
        lambda room: _silent(room, allow_silent=True).require(),
    ),
    Remedy(
        "graph/exact.py:require_no_image",
        lambda room: _folded(room).energy(IMAGES),
        "give x / 255 with input_grid=8",
        "give x / 255 with --input-grid 8",
        lambda room: _folded(room).energy(IMAGES / 255, input_grid=8),
    ),
    Remedy(
        "integers/real_weights.py:_off_grid",
        lambda room: room.analog.export(room.new("net.net")),
        "give input_grid=BITS",
        "give --input-grid BITS",
        lambda room: room.analog.export(room.new("net.net"), input_grid=8),
    ),
    Remedy(
        "integers/rounding.py:_trained",
        lambda room: _found(room.net, "netx"),
        "net.quantised()",
        "stl-deploy quantise RUN",
        lambda room: room.net.fold(thresholds="weights", input_grid=0).quantised(),
    ),
    Remedy(
        "integers/rounding.py:_input",
        lambda room: _found(room.analog, "netx"),
        "give input_grid=BITS here and to export",
        "give --input-grid BITS here and to export",
        lambda room: _without(room.analog, "analog-input", "netx", input_grid=8),
    ),
    Remedy(
        "integers/simulate.py:_check_range",
        lambda room: verbs.simulate(room.c, _beyond(room, 3), "loihi", room.new("y.npz")),
        "export again with such input (x=)",
        "export again with such input (--input X.npz)",
        lambda room: verbs.simulate(_in_c(room, 3), _beyond(room, 3), "loihi", room.new("y.npz")),
    ),
    Remedy(
        "pipeline/check.py:_with_options",
        lambda room: room.net.check("onnx", device="imu"),
        "expected targets verilog or xylo",
        "expected --target verilog or xylo",
        lambda room: room.net.check("xylo", device="imu"),
    ),
    Remedy(
        "pipeline/energy.py:require_labels",
        lambda room: room.net.energy(room.spikes, margin=1.0),
        "leave it out, or give labels=",
        "leave it out, or give 'y' in the input file",
        lambda room: room.net.energy(room.spikes, LABELS, margin=1.0),
    ),
    Remedy(
        "pipeline/export.py:target_of",
        lambda room: room.net.export(room.new("folder")),
        "name the target, as to='c'",
        "name the target, as --to c",
        lambda room: room.net.export(room.new("folder"), to="c"),
    ),
    Remedy(
        "pipeline/network_input.py:drawn",
        lambda room: drawn(room.net.program).what,
        "give real ones with x=",
        "give real ones with --input X.npz",
        lambda room: room.net.export(room.new("net.onnx"), x=room.spikes),
    ),
    Remedy(
        "pipeline/network_input.py:on_declared_grid",
        lambda room: room.net.simulate(room.spikes / 1024, input_grid=2),
        "input_grid=2: every value of the input rounds to 0; use more bits",
        "--input-grid 2: every value of the input rounds to 0; use more bits",
        lambda room: room.net.simulate(room.spikes / 1024, input_grid=12),
    ),
    Remedy(
        "pipeline/network_input.py:checked_bits",
        lambda room: room.net.simulate(room.spikes, input_grid=25),
        "input_grid=25: expected 0 to 24",
        "--input-grid 25: expected 0 to 24",
        lambda room: room.net.simulate(room.spikes, input_grid=24),
    ),
    Remedy(
        "pipeline/network_input.py:on_grid_of",
        lambda room: stl.capture(model(), torch.from_numpy(IMAGES)).fold(input_grid=8),
        "give input_grid=0",
        "give --input-grid 0",
        lambda room: stl.capture(model(), torch.from_numpy(IMAGES)).fold(input_grid=0),
    ),
    Remedy(
        "tracing/time_axis.py:as_asked tracing/time_axis.py:_other_readings tracing/unrolling/addresses.py:_moves",
        lambda room: stl.capture(Loop(second), X),
        "give time='second', with which",
        "give --time second, with which",
        lambda room: stl.capture(Loop(second), X, time="second"),
    ),
    Remedy(
        "tracing/time_axis.py:_other_readings",
        lambda room: stl.capture(Images(), torch.rand(7, 1, 6, 6)),
        "loops over time itself, give time='inside', with which",
        "loops over time itself, give --time inside, with which",
        lambda room: stl.capture(Images(), torch.rand(7, 1, 6, 6), time="inside"),
    ),
    Remedy(
        "tracing/time_axis.py:_as_step",
        lambda room: stl.capture(Step(), torch.ones(6, 1, 6, 6)),
        "give x as [T, B, ...] and time='step', with which",
        "give x as [T, B, ...] and --time step, with which",
        lambda room: stl.capture(Step(), torch.ones(4, 6, 1, 6, 6), time="step"),
    ),
    Remedy(
        "tracing/time_axis.py:require_memory",
        lambda room: stl.capture(Passed(), ones_and_zeros()),
        "If a call takes one step, give time='step'",
        "If a call takes one step, give --time step",
        lambda room: stl.capture(Passed(), ones_and_zeros(), time="step"),
    ),
    Remedy(
        "exporters/netx/target.py:_of_pixels",
        lambda room: _found(_of_pixels(), "netx"),
        "give thresholds='unrolled' (dense layers, exact) or thresholds='projected'",
        "give --thresholds unrolled (dense layers, exact) or --thresholds projected",
        _projected,
    ),
    Remedy(
        "exporters/netx/target.py:check_chip",
        lambda room: _found(_of_pixels(), "loihi1"),
        "export with thresholds='projected', one per channel",
        "export with --thresholds projected, one per channel",
        _projected,
    ),
    Remedy(
        "report/graph_report.py:report_graph",
        lambda room: verbs.report_graph(room.file, None),
        "give input_file='X.npz'",
        "give --input X.npz",
        lambda room: verbs.report_graph(room.file, room.input),
    ),
    Remedy(
        "runs/source.py:input_of",
        lambda room: verbs.energy(room.file, None),
        "give the input with input_file='X.npz'",
        "give the input with --input X.npz",
        lambda room: verbs.energy(room.file, room.input),
    ),
    Remedy(
        "pipeline/export.py:require_unedited",
        lambda room: room.net.export(_edited(room), to="c"),
        "give overwrite=True",
        "give --overwrite",
        lambda room: room.net.export(_edited(room), to="c", overwrite=True),
    ),
    Remedy(
        "integers/store.py:other_text",
        lambda room: verbs.simulate(_edited(room), room.input, "c", room.new("y.npz")),
        "export it again, or, if you know it, take simulate(..., trust=True)",
        "export it again, or, if you know it, take simulate --trust",
        lambda room: room.net.export(_edited(room), to="c", overwrite=True),
    ),
    Remedy(
        "verbs/artifacts.py:simulate",
        lambda room: verbs.simulate(room.c, room.input, "loihi", room.new("y.npz"), input_grid=3),
        "input_grid applies to graphs only",
        "--input-grid applies to graphs only",
        lambda room: verbs.simulate(room.c, room.input, "loihi", room.new("y.npz")),
    ),
    Remedy(
        "verbs/folding.py:fold",
        lambda room: verbs.fold(room.file),
        "expected output='NET.nir', the file to write",
        "expected -o NET.nir, the file to write",
        lambda room: verbs.fold(room.file, room.new("net.nir")),
    ),
    Remedy(
        "verbs/capturing.py:untrained_graph",
        lambda room: verbs.check(_module_file(room)),
        "expected input_file='X.npz'",
        "expected --input X.npz",
        lambda room: verbs.check(_module_file(room), input_file=room.input),
    ),
    Remedy(
        "runs/user_module.py:_require_samples",
        lambda room: _labelled(room, "second"),
        "if forward takes [T, B, ...], give time='first'",
        "if forward takes [T, B, ...], give --time first",
        lambda room: _labelled(room, "first"),
    ),
    Remedy(
        "verbs/checking.py:check",
        lambda room: verbs.check(room.c, targets=["onnx"]),
        "leave targets and its options out",
        "leave --target and its options out",
        lambda room: verbs.check(room.c),
    ),
    Remedy(
        "verbs/conformance.py:_write_only verbs/conformance.py:nir_conformance",
        lambda room: verbs.nir_conformance(),
        "output=DIR to write",
        "-o DIR to write",
        lambda room: verbs.nir_conformance(output=room.new("kit"), levels=("neurons",)),
    ),
    Remedy(
        "exporters/targets.py:require_free_prefix",
        lambda room: _names(room, "1a"),
        "choose another name, as name='kws'",
        "choose another name, as --name kws",
        lambda room: _names(room, "kws"),
    ),
    Remedy(
        "exporters/targets.py:require_free_prefix",
        lambda room: _names(room, "int"),
        "choose another name, as name='int_net'",
        "choose another name, as --name int_net",
        lambda room: _names(room, "int_net"),
    ),
    Remedy(
        "exporters/onnx/target.py:__post_init__",
        lambda room: room.net.export(room.new("n.onnx"), runtime="openvin"),
        "runtime: expected one of openvino, tract",
        "--runtime: expected one of openvino, tract",
        lambda room: room.net.export(room.new("n.onnx"), runtime="openvino"),
    ),
    Remedy(
        "exporters/onnx/target.py:_asked_for",
        lambda room: room.net.export(room.new("n.onnx"), runtime="tract"),
        "export with form='unrolled' steps=T batch=B",
        "export with --form unrolled --steps T --batch B",
        lambda room: room.net.export(room.new("n.onnx"), runtime="tract", form="unrolled", steps=8, batch=2),
    ),
    Remedy(
        "graph/check.py:refused",
        lambda room: cell_net(room).export(room.new("c"), to="c"),
        "or to C with numbers='float32'",
        "or to C with --numbers float32",
        lambda room: cell_net(room).export(room.new("c"), to="c", numbers="float32"),
    ),
    Remedy(
        "exporters/c/options.py:__post_init__",
        lambda room: room.net.export(room.new("c"), to="c", package="arduin"),
        "package: expected one of cmake, arduino",
        "--package: expected one of cmake, arduino",
        lambda room: room.net.export(room.new("c"), to="c", package="arduino"),
    ),
    Remedy(
        "exporters/c/options.py:__post_init__",
        lambda room: room.net.export(room.new("c"), to="c", potentials=8),
        "potentials: expected 16 or 32 bits",
        "--potentials: expected 16 or 32 bits",
        lambda room: room.net.export(room.new("c"), to="c", potentials=16),
    ),
    Remedy(
        "exporters/c/room.py:_excess",
        lambda room: room.net.export(room.new("c"), to="c", ram=_least(room)),
        "use potentials=16: the network then takes",
        "use --potentials 16: the network then takes",
        lambda room: room.net.export(room.new("c"), to="c", ram=_least(room), potentials=16),
    ),
    Remedy(
        "_util/units.py:bytes_of",
        lambda room: room.net.check("c", ram="4G"),
        "ram: expected bytes, as 262144, 256K or 1M",
        "--ram: expected bytes, as 262144, 256K or 1M",
        lambda room: room.net.check("c", ram="256K"),
    ),
    Remedy(
        "config/options.py:_deadline",
        lambda room: room.net.export(room.new("net.onnx"), deadline=0),
        "deadline: expected seconds above 0",
        "--deadline: expected seconds above 0",
        lambda room: room.net.export(room.new("net.onnx"), deadline=60),
    ),
    Remedy(
        "config/load.py:_changes",
        lambda room: configure("digits", ["epochs"]),
        "changes: expected key=value, as train.epochs=3",
        "--set: expected key=value, as train.epochs=3",
        lambda room: configure("digits", ["train.epochs=3"]),
    ),
    Remedy(
        "integers/fan_in.py:_require_whole_delays",
        lambda room: _found(_between_steps(), "c"),
        "net.fold(delays='steps')",
        "stl-deploy fold SOURCE --delays steps -o FOLDED.nir",
        lambda room: _without(_between_steps().fold(delays="steps"), "fractional-delay", "c"),
    ),
    Remedy(
        "integers/fields.py:in_floats",
        lambda room: _found(_two_layers(), "c"),
        "or export to onnx, or to c with numbers='float32'",
        "or export to onnx, or to c with --numbers float32",
        lambda room: _two_layers().export(room.new("c"), to="c", numbers="float32"),
    ),
    Remedy(
        "integers/by_fold.py:_folds",
        lambda room: _found(_scaled_sum(), "c"),
        "fold the network: net.fold()",
        "fold the network: stl-deploy fold SOURCE -o FOLDED.nir",
        lambda room: _scaled_sum().fold(thresholds="weights").export(room.new("c"), to="c"),
    ),
    Remedy(
        "exporters/netx/chain.py:_merge_pools",
        lambda room: _found(room.pooled, "netx"),
        "net.fold(merge_pools=True)",
        "stl-deploy fold NET.nir --merge-pools -o MERGED.nir",
        lambda room: room.pooled.fold(merge_pools=True).export(room.new("net.net")),
    ),
    Remedy(
        "exporters/nir/readers/reading_rules.py:_into_weights",
        lambda room: _found(room.net, "snntorch"),
        "net.fold(thresholds='weights')",
        "stl-deploy fold SOURCE --thresholds weights -o FOLDED.nir",
        lambda room: _without(room.net.fold(thresholds="weights"), "threshold-nonuniform", "snntorch"),
    ),
    Remedy(
        "exporters/nir/detect_writer.py:resolve_dialect",
        lambda room: stl.read(room.foreign),
        "name the framework (dialect=NAME): spec (NIR's own equations",
        "name the framework (--dialect NAME): spec (NIR's own equations",
        lambda room: stl.read(room.foreign, dialect="spec"),
    ),
    Remedy(
        "exporters/verilog/devices.py:device_of",
        lambda room: room.net.check("verilog", device="up9k"),
        "device: expected one of up5k",
        "--device: expected one of up5k",
        lambda room: room.net.check("verilog", device="up5k"),
    ),
    Remedy(
        "exporters/verilog/lower.py:check_lanes",
        lambda room: room.net.export(room.new("v"), to="verilog", lanes=3, verified=False),
        "lanes: expected a power of two",
        "--lanes: expected a power of two",
        lambda room: room.net.export(room.new("v"), to="verilog", lanes=2, verified=False),
    ),
    Remedy(
        "energy/chips/time.py:parse_step_times energy/chips/time.py:_seconds",
        lambda room: parse_step_times(["loihi1=66xs"]),
        "step_time: expected seconds after 'loihi1=', or a time with its unit (66us)",
        "--step-time: expected seconds after 'loihi1=', or a time with its unit (66us)",
        lambda room: parse_step_times(["loihi1=66us"]),
    ),
    Remedy(
        "energy/prices/load.py:load_prices",
        lambda room: room.net.energy(room.spikes, prices=("odinx",)),
        "(stl_deploy.verbs.prices)",
        "('stl-deploy prices')",
        lambda room: room.net.energy(room.spikes, prices=(verbs.prices()[0]["name"],)),
    ),
    Remedy(
        "exporters/onnx/foreign.py:read_model",
        lambda room: verbs.check(Path(shutil.copy(room.input, room.new("net.onnx")))),
        "write one with net.export",
        "write one with 'stl-deploy export --to onnx'",
        lambda room: verbs.check(room.net.export(room.new("net.onnx")).path),
    ),
    Remedy(
        "exporters/onnx/export.py:_check_sizes",
        lambda room: room.net.export(room.new("net.onnx"), form="unrolled"),
        "steps: expected 1 to",
        "--steps: expected 1 to",
        lambda room: room.net.export(room.new("net.onnx"), form="unrolled", steps=3),
    ),
    Remedy(
        "exporters/onnx/export.py:_opset",
        lambda room: room.net.export(room.new("net.onnx"), opset=3),
        "opset: expected 1",
        "--opset: expected 1",
        lambda room: room.net.export(room.new("net.onnx"), opset=18),
    ),
    Remedy(
        "pipeline/verify.py:_flags",
        lambda room: room.net.verify(room.net.export(room.new("net.onnx")).path, cflags="-O1"),
        "cflags: expected a C folder",
        "--cflags: expected a C folder",
        lambda room: room.net.verify(room.net.export(room.new("c"), to="c").path, cflags="-O1"),
    ),
    Remedy(
        "verbs/converting.py:convert",
        lambda room: verbs.convert("model.py:net", "digits", room.new("net.nir")),
        "give output=",
        "give -o ",
        lambda room: _converted(room),
    ),
    Remedy(
        "exporters/onnx/export.py:export_onnx",
        lambda room: room.analog.export(room.new("net.onnx"), precision="integer"),
        "export it without precision='integer'",
        "export it without --integer",
        lambda room: room.analog.export(room.new("net.onnx")),
    ),
)
"""Remedies of networks in memory and of their files."""
