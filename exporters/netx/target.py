"""Netx as a Format, Loihi's integers as a Runner, and the chips as check targets.

nengo-loihi's emulator wraps the synaptic accumulator (64 times the weighted sum) at 2^21; Lava's models and ours do
not. The chip's own behaviour is not established, so sums that reach the limit give a warning.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.remedies import option
from stl_deploy.config.options import ThresholdForm
from stl_deploy.errors import InputError, UnsupportedError
from stl_deploy.exporters.integer_runner import (
    CALIBRATION,
    IntegerRunner,
    calibration,
    on_grid,
    one_input,
    overflows,
)
from stl_deploy.exporters.netx.chain import SynapseStage, read_chain, refusals, with_fold
from stl_deploy.exporters.netx.convert import run_file, to_graph
from stl_deploy.exporters.netx.file import read_netx
from stl_deploy.exporters.netx.forms import Models, compare_forms, quantise_forms, show_forms
from stl_deploy.exporters.netx.layers import ConvLayer, FlattenLayer, InputLayer, Layer, NetxFile
from stl_deploy.exporters.netx.model import NetxModel, NetxRun, by_node, checked_model, layer_facts, save_netx
from stl_deploy.exporters.netx.placement import Chip, Placed, load_chips, place
from stl_deploy.exporters.targets import Check, Format, Network, Options, Runner
from stl_deploy.graph.exact import input_grid, input_scale
from stl_deploy.graph.findings import Finding, from_error
from stl_deploy.graph.program import Program
from stl_deploy.graph.readout import Readout
from stl_deploy.graph.run import NetworkInput, Result
from stl_deploy.graph.show import Row, taps
from stl_deploy.integers.bounds import bounds, relative_sum
from stl_deploy.integers.fan_in import kept
from stl_deploy.integers.net import STATE_SHIFT, STATE_TOP
from stl_deploy.integers.per_pixel import per_pixel
from stl_deploy.integers.ranges import LayerRange
from stl_deploy.integers.real_population import require_rows
from stl_deploy.integers.real_weights import to_integers
from stl_deploy.integers.rounding import rounded
from stl_deploy.integers.scales import WEIGHT_TOP
from stl_deploy.integers.simulate import IntegerRun, entered_by

WIDE = 2**21 >> STATE_SHIFT


SLUG = "wide-sums"


_WHY = (
    f"nengo-loihi wraps the accumulator at 2^21/64 = {WIDE:,}, Lava does not, and which of them the chip follows was "
    "not established"
)


_REMEDY = "fewer inputs a neuron, smaller weights or fewer input levels avoid it"


@dataclass(frozen=True, kw_only=True, eq=False)
class NetxOptions(Options):
    """thresholds: threshold form on the chip."""

    thresholds: ThresholdForm = "folded"


class Loihi(Runner):
    """Run the integers of a Program, of a netx file or of a C folder in our model of Lava's fixed point.

    A netx file alone takes integers and names spikes by layer; `of` its Program it takes real input on the graph's
    grid and names nodes. notes: further contents of a file, in sentences; warnings: differences
    between models of the chip. input_bits: see `stl_deploy.exporters.targets.DeclaresInputGrid`; readout:
    `HasReadout`, none for a bare netx file.
    """

    name = "loihi"
    description = "our integer model of Lava's fixed point (simulated; not Lava itself, not the chip)"
    reads: tuple[str, ...] = ("netx", "c", "verilog")
    options = NetxOptions

    def __init__(self, network: Network, options: NetxOptions) -> None:
        self._options = options
        self._graph: IntegerRunner | None = None
        self.notes: tuple[str, ...] = ()
        self.warnings: tuple[Finding, ...] = ()
        self.input_bits: int | None = None
        self.readout: Readout | None = None
        if isinstance(network, Path) and network.is_dir():
            self._graph = IntegerRunner(network, options)
            self.input_bits, self.readout = self._graph.input_bits, self._graph.readout
            return
        self._path = network if isinstance(network, Path) else None
        self._program = network if isinstance(network, Program) else None
        if self._path is not None:
            net = read_netx(self._path)
            self.notes, self.input_bits = net.notes, net.fraction_bits
            self.warnings = tuple(wide_layers(net))

    def of(self, program: Program) -> Self:
        """Return the file as the form of ``program``; the run raises InputError if it was not made from it."""
        made = copy.copy(self)
        if self._graph is not None:
            made._graph = self._graph.of(program)
            return made
        made._program = program
        return made

    def run(self, x: NetworkInput, record: bool = False) -> Result:
        """See `stl_deploy.exporters.targets.Runner`; raises InputError for several inputs."""
        if self._graph is not None:
            return self._graph.run(x, record)
        x = one_input(x, self.name)
        if self._program is None:
            assert self._path is not None
            self._require_multiplied(self._path, x)
            return _result(self.integers(read_netx(self._path), x, record), record)
        model = self._model(self._program, x)
        result = self.integers(model.file, to_integers(x, model.input_scale), record)
        return _result(by_node(model, result), record)

    def _require_multiplied(self, path: Path, x: NDArray[Any]) -> None:
        """Raise InputError for fractions in a bare file's input; warn of apparently real input."""
        factor = 2 ** (self.input_bits or 0)
        if x.dtype.kind == "f" and not np.array_equal(x, np.trunc(x)):
            how = "give integers" if factor == 1 else f"this one says: real input times {factor}, rounded"
            raise InputError(f"{path}: expected integers, as a .net file takes them; found others; {how}")
        if factor > 1 and x.any() and x.min() >= -1 and x.max() <= 1:
            warnings.warn(
                f"{path} takes real input times {factor}; x, no larger than 1, is taken as multiplied already",
                stacklevel=3,
            )

    def integers(self, file: NetxFile, x: NDArray[Any], record: bool) -> IntegerRun:
        """Run the layers of a netx file on integers ``x``."""
        return run_file(file, x, record=record)

    def _model(self, program: Program, x: NDArray[Any]) -> NetxModel:
        if self._path is not None:
            return model_of_file(self._path, program)
        samples, form = calibration(program, self._options, x), self._options.thresholds
        try:
            return checked_model(program, samples, input_scale=input_scale(program), thresholds=form)
        except UnsupportedError as error:
            raise with_fold(program, [error])[0] from None


class Netx(Format):
    """8-bit weights and thresholds in integers, as lava-dl's netx loads them."""

    name = "netx"
    description = "Loihi's integers for lava-dl: 8-bit weights, one threshold per population"
    suffix = ".net"
    options = NetxOptions

    def check(self, program: Program) -> Iterable[Finding]:
        """Return everything that keeps Loihi's integers from holding the network, node by node, and their rounding."""
        return self.check_for(program, NetxOptions())

    def check_for(self, program: Program, options: NetxOptions) -> Iterable[Finding]:
        """Check as `check`, for this form of thresholds; with x, also whether its integers overflow."""
        refused = [from_error(error) for error in with_fold(program, refusals(program))]
        pixels = [*_of_pixels(program, options.thresholds)]
        if refused:
            return [*refused, *pixels, *rounded_if_held(program)]
        host = [node.name for node in read_chain(program).readout]
        scale, form = input_scale(program), options.thresholds
        held = [*pixels, *rounded(program, host), *wide_findings(program)]
        return held + overflows(
            program,
            options,
            held,
            STATE_TOP >> STATE_SHIFT,
            lambda x: checked_model(program, x, input_scale=scale, thresholds=form),
        )

    def write(self, program: Program, path: Path, options: NetxOptions) -> Mapping[str, Any]:
        """Report the cost of each threshold form on ``options.x`` (if given), then write the chosen one.

        Convolutions are unrolled into dense layers, which takes many times as long, only where that form is chosen.
        calibration: default: the first of x. Raises as `export_netx` does.
        """
        for error in with_fold(program, refusals(program)):
            raise error
        x = None if options.x is None else one_input(options.x, self.name)
        given = calibration(program, options, x)
        scale, form = input_scale(program), options.thresholds
        forms: dict[str, Any] = {}
        models: Models = {}
        if x is not None:
            first = on_grid(program, x[:, :CALIBRATION])
            labels = None if options.labels is None else options.labels[:CALIBRATION]
            compared = [each for each in get_args(ThresholdForm) if each != "unrolled" or form == "unrolled"]
            models = quantise_forms(program, given, compared)
            rows = compare_forms(program, models, first, labels)
            show_forms(rows, options.say, first.shape[1], x.shape[1], drawn=options.is_random)
            forms = {"forms": [asdict(row) for row in rows], "forms_samples": first.shape[1]}
        model = models.get(form) or checked_model(program, given, input_scale=scale, thresholds=form)
        if isinstance(model, UnsupportedError):
            raise model
        assert isinstance(model, NetxModel)
        save_netx(model, path)
        options.say.say(f"chosen: {options.thresholds}")
        for sentence in range_warnings(model.ranges):
            options.say.warn(sentence)
        for layer in model.ranges:
            if not layer.holds:
                options.say.warn(
                    f"'{layer.node}': no overflow on calibration data (u {layer.u_seen}, v {layer.v_seen}), but some "
                    f"input could (u {layer.u_worst}, v {layer.v_worst}; 24 bits hold 8388607)"
                )
        return {"target": self.name, **netx_facts(model, program), **forms}

    def rows(self, path: Path) -> list[Row]:
        """Return its layers, as `stl_deploy.graph.show` counts those of a graph."""
        return [_row(f"layer{index}", layer) for index, layer in enumerate(read_netx(path).layers)]

    def load(self, path: Path) -> Loihi:
        """Return our integer model of the file."""
        return Loihi(path, NetxOptions())


def _row(name: str, layer: Layer) -> Row:
    kind = type(layer).__name__.removesuffix("Layer")
    if isinstance(layer, FlattenLayer | InputLayer):
        return Row(name, kind, () if isinstance(layer, FlattenLayer) else layer.shape, (), 0, 0, "")
    low, high = int(layer.neuron.threshold.min()), int(layer.neuron.threshold.max())
    neuron = f"threshold {low} to {high}, u decay {layer.neuron.i_decay}, v decay {layer.neuron.v_decay} of 4096"
    parameters = layer.weight.size + (0 if layer.bias is None else layer.bias.size)
    synapses = layer.weight.size
    if isinstance(layer, ConvLayer):
        padding = tuple((pad, pad) for pad in layer.padding)
        size = layer.input_shape[1:], layer.shape[1:], layer.weight.shape[2:]
        synapses = math.prod(layer.weight.shape[:2]) * taps(*size, layer.stride, padding, layer.dilation)
    return Row(layer.node or name, kind, layer.shape, (), parameters, synapses, neuron)


def netx_facts(model: NetxModel, program: Program) -> dict[str, Any]:
    """Return a manifest's facts of a netx file: scales, each layer's result, ranges of u and v (JSON-ready)."""
    return {
        "thresholds": model.thresholds,
        "input_scale": model.input_scale,
        "layers": layer_facts(model, program),
        "ranges": [
            {"key": model.keys[layer.node], **asdict(layer), "holds_whatever_the_input": layer.holds}
            for layer in model.ranges
        ],
        "host": [node.name for node in model.host],
    }


def model_of_file(path: Path, program: Program) -> NetxModel:
    """Return a .net file as the Loihi form of ``program``: its layers matched to spiking nodes by name.

    Raises InputError if the file is not made from this graph, UnsupportedError if the graph has no Loihi form.
    """
    file = read_netx(path)
    scale = input_scale(program) if file.fraction_bits is None else 2.0**file.fraction_bits
    shapes = {node.name: node.shape for node in program.spiking}
    model = NetxModel(file, read_chain(program).readout, scale, "folded", shapes)
    if tuple(model.keys) != tuple(shapes):
        keys = ", ".join(model.keys) or "none with names"
        raise InputError(
            f"{path}: expected layers {', '.join(shapes)}; found {keys}; name the graph that it was made from"
        )
    return model


def _result(run_of_file: IntegerRun | NetxRun, record: bool) -> Result:
    spikes = {name: np.asarray(array, np.float32) for name, array in run_of_file.spikes.items()}
    return Result({"output": np.asarray(run_of_file.y, np.float32)}, spikes if record else {})


def _of_pixels(program: Program, form: ThresholdForm) -> Iterator[Finding]:
    """Return what `export` refuses unless it is given another form of thresholds."""
    errors: list[UnsupportedError] = []
    for neuron in program.spiking if form in ("folded", "projected") else ():
        with kept(errors):
            require_rows(neuron, pixels=False)
    yield from map(from_error, errors)
    for name in per_pixel(program) if form == "folded" else ():
        yield Finding(
            "per-pixel-threshold",
            "error",
            name,
            "its thresholds differ between the pixels of a channel, which shared kernels cannot absorb",
            f"give {option('thresholds', 'unrolled')} (dense layers, exact) or "
            f"{option('thresholds', 'projected')} (one threshold per channel) here and to export",
        )


def check_chip(program: Program, chip: Chip) -> Iterator[Finding]:
    """Return whether a chip has room.

    Findings: netx's refusals; else each layer's resources, each excess over a limit, and the rounding of its integers.
    """
    refused = with_fold(program, refusals(program))
    yield from (from_error(error) for error in refused)
    if refused:
        yield from _too_many(program, chip)
        yield from rounded_if_held(program)
        return
    simple, balanced = place(program, chip, "simple"), place(program, chip, "balanced")
    for node in dict.fromkeys(core.node for core in simple.placement.cores):
        yield Finding("cores", "info", node, f"{_taken(simple, node)}; {_taken(balanced, node)}")
    yield Finding(
        "placement",
        "info",
        None,
        f"cores in all: {len(simple.placement.cores)}; synapse memory counts weights alone, a lower bound; limits: "
        + ", ".join(f"{name} {limit}" for name, limit in chip.limits.items()),
    )
    for where, excess in simple.excess:
        folded = excess.kind == "thresholds"
        remedy = "export with folded thresholds: one per population" if folded else "use fewer neurons or inputs there"
        if folded and where in per_pixel(program):
            remedy = (
                f"export with {option('thresholds', 'projected')}, one per channel, which become one per population"
            )
        yield Finding("does-not-fit", "warning" if folded else "error", where, str(excess), remedy)
    yield from rounded(program, [node.name for node in read_chain(program).readout])
    yield from wide_findings(program)


def rounded_if_held(program: Program) -> Iterator[Finding]:
    """Yield what integers would round in a network that netx refuses, up to the last spiking node."""
    last = max((i for i, node in enumerate(program.nodes) if node in program.spiking), default=0)
    yield from rounded(program, {node.name for node in program.nodes[last + 1 :]})


def _too_many(program: Program, chip: Chip) -> Iterator[Finding]:
    """An error for more neurons than the whole chip has, whatever the network's structure."""
    of_cores = [chip.value("cores"), chip.value("neurons_per_core")]
    most = math.prod(limit for limit in of_cores if limit is not None) if None not in of_cores else None
    most = min((limit for limit in (most, chip.value("neurons_per_chip")) if limit is not None), default=None)
    neurons = sum(math.prod(node.shape) for node in program.spiking)
    if most is not None and neurons > most:
        reason = f"{neurons:,} neurons; {chip.name} has {most:,}"
        yield Finding("does-not-fit", "error", None, reason, "use fewer neurons, or several chips")


def _taken(placed: Placed, node: str) -> str:
    cores = [core for core in placed.placement.cores if core.node == node]
    most = max(cores, key=lambda core: core.neurons)

    def most_of(resource: str) -> int:
        return max(core.used[resource] for core in cores)

    return (
        f"{placed.placement.name} placement: cores {len(cores)}; at most, in a core: neurons {most.neurons:,}, "
        f"input axons {most_of('in_axons'):,}, output axons {most_of('out_axons'):,}, "
        f"bytes of synapses {most_of('synapse_bytes'):,}, "
        f"thresholds {max(core.thresholds for core in cores)} (folded: 1)"
    )


def range_warnings(ranges: Iterable[LayerRange]) -> Iterator[str]:
    """Yield a sentence for each layer whose sums could reach 2^15 for some input."""
    for layer in ranges:
        reach = max(-layer.u_worst[0], layer.u_worst[1]) >> STATE_SHIFT
        if reach >= WIDE:
            yield f"'{layer.node}': some input brings a weighted sum to {reach:,}; {_WHY}; {_REMEDY}"


def wide_layers(net: NetxFile) -> Iterator[Finding]:
    """Yield findings for a file's integers and every input up to its scale (1 if it has none)."""
    graph = to_graph(net)
    known = bounds(entered_by(graph, np.array([0, 2 ** (net.fraction_bits or 0)])))
    for key, layer in net.spiking:
        low, high = known[key].sums
        if (reach := max(-low, high)) >= WIDE:
            reason = f"some input brings a weighted sum to {reach:,}; {_WHY}"
            yield Finding(SLUG, "warning", layer.node or key, reason, _REMEDY)


def wide_findings(program: Program) -> Iterator[Finding]:
    """Yield findings before integers are chosen: every row's largest weight is 127. Needs a readable chain."""
    grid = input_grid(program.metadata)
    bound = 1.0 if grid is None else grid.bound * 2.0**grid.fraction_bits
    for stage in read_chain(program).layers:
        if not isinstance(stage, SynapseStage):
            continue
        reach = int(relative_sum(stage.synapse.weight) * WEIGHT_TOP * bound)
        bound = 1.0
        if reach >= WIDE:
            reason = f"in 8-bit weights some input brings a weighted sum to about {reach:,}; {_WHY}"
            yield Finding(SLUG, "warning", stage.neuron.name, reason, _REMEDY)


CHIPS = tuple(
    Check(
        key,
        f"whether {chip.name} has room",
        partial(check_chip, chip=chip),
        lambda: f"export with {option('to', 'netx')}, the files for Loihi",
    )
    for key, chip in load_chips().items()
)


TARGETS = (Netx(), Loihi, *CHIPS)
