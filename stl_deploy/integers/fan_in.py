"""Find the Programs that integers can hold: at most one layer of weights before each population.

A node's values are *whole* (spikes, input, and sums of these: an integer times a unit), *weighted* (behind a layer
of weights: whole once their rows have a scale), or *potentials* (of neurons without threshold; only outputs read them).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from stl_deploy._util.arrays import row_values
from stl_deploy._util.remedies import remedy
from stl_deploy.errors import UnsupportedError
from stl_deploy.graph import program as ir
from stl_deploy.graph.program import Doubles
from stl_deploy.integers.by_fold import with_fold
from stl_deploy.integers.fields import SEVERAL_ENDS, describe_field, in_floats, refusal, refuse, unread
from stl_deploy.integers.graph import MOST_DELAY
from stl_deploy.integers.net import DECAY_ONE, MOST_SPIKES, RESETS
from stl_deploy.integers.real_population import require_rows, total_gain
from stl_deploy.integers.rows import RowAxis, mixes_rows, row_axis, rows_first, with_rows_first
from stl_deploy.integers.scales import twelve_bits

READ = (
    *("decay", "threshold", "gain", "offset", "compare", "reset", "v_reset", "v_start", "i_start", "synapse"),
    *("multi_spike", "cap", "rounding", "adaptation"),
)
"""Fields of a Program's neuron that integers hold; any other must be as if it were not there."""

SEVERAL, _SEVERAL = describe_field("multi_spike")
"""The slug of a refusal of several spikes a step, and its words."""

_REMEDIES = {
    "v_min": "train without a bound (a ReLU before a neuron: leave it out), or export to onnx",
}

_FOLDED = ("no-neuron", "mixed-scales")
"""Refusals that a fold may take away."""
ELSEWHERE = ", or export to c or onnx"
"""The end of remedies; a network that no integers hold is sent to onnx alone, see `sent_elsewhere`."""
_APART = "scale each term by itself, s * a + s * b instead of s * (a + b)"

Value = float | str
"""A whole value's unit, or ``weighted`` or ``potential``."""


@dataclass(frozen=True, eq=False)
class WeightedPath:
    """A layer of weights that reaches a population.

    The node (None: spikes themselves), the edge by which it enters the population if nothing lies between, and the
    factor on its values on the way.
    """

    node: ir.Linear | ir.Conv | ir.Scale | None
    source: ir.Operand | None
    factor: Doubles
    unit: float


@dataclass(frozen=True, eq=False)
class FanIn:
    """Inputs of a consumer: the leaves, the memoryless nodes between (in order), and where the rows of weights lie."""

    leaves: tuple[WeightedPath, ...]
    between: tuple[ir.Pool | ir.MaxPool | ir.Delay | ir.Reshape | ir.Scale, ...]
    axis: RowAxis = "first"


def values(program: ir.Program, input_scale: float) -> dict[str, Value]:
    """Classify each node's values; raise UnsupportedError, the first of `refusals`, if integers cannot hold one."""
    for error in refusals(program, input_scale):
        raise error
    return classify(program, input_scale, [])


def classify(program: ir.Program, input_scale: float, errors: list[UnsupportedError]) -> dict[str, Value]:
    """Classify each node's real or intended values; append refusals of nodes to ``errors``.

    Raises UnsupportedError where the graph has no order or no spikes.
    """
    if len(program.inputs) != 1 or len(program.outputs) != 1:
        refuse((*program.inputs, *program.outputs)[-1], *SEVERAL_ENDS)
    if not program.spiking:
        reason = "there is no spiking neuron behind it"
        refuse(program.inputs[0], "no-neurons", reason, "put one there, or capture an output behind one")
    known: dict[str, Value] = {node.name: 1.0 for node in program.spiking}
    known |= {node.name: "potential" for node in program.of(ir.Neuron) if not node.spiking}
    known[program.inputs[0].name] = 1 / input_scale
    waiting = [node for node in program.nodes if node.name not in known]
    while waiting:
        ready = [node for node in waiting if all(source.node in known for source in node.operands)]
        if not ready:
            refuse(waiting[0], "loop", "it lies in a loop without neurons", "put a spiking neuron into the loop")
        for node in ready:
            arriving = [known[source.node] for source in node.operands]
            known[node.name] = _instead(node, arriving)
            with kept(errors):
                _require_whole_delays(program, node)
                known[node.name] = _value(program, node, arriving)
        waiting = [node for node in waiting if node.name not in known]
    return known


def refusals(program: ir.Program, input_scale: float = 1.0) -> list[UnsupportedError]:
    """Return everything that keeps a Program from integers, node by node; empty if it can be quantised."""
    return with_fold(program, all_refusals(program, input_scale), all_refusals, _FOLDED)


def all_refusals(program: ir.Program, input_scale: float = 1.0) -> list[UnsupportedError]:
    """Return `refusals`, without a fold as their remedy."""
    errors: list[UnsupportedError] = []
    known: dict[str, Value] = {}
    with kept(errors):
        known = classify(program, input_scale, errors)
    for neuron in program.of(ir.Neuron):
        errors += _neuron_refusals(neuron)
        with kept(errors):
            require_rows(neuron, pixels=neuron.spiking)
    for node in program.nodes if known else ():
        with kept(errors):
            _check(node, known)
        if isinstance(node, ir.Neuron):
            errors += [error] if (error := weightless(program, node)) is not None else []
        if isinstance(node, ir.Neuron) or (isinstance(node, ir.Output) and known[node.name] == "weighted"):
            with kept(errors), suppress(AssertionError):  # of a layer that is refused already
                fan_in(program, node, known)
    return list({(refusal.node, refusal.slug): refusal for refusal in reversed(errors)}.values())[::-1]


@contextmanager
def kept(errors: list[UnsupportedError]) -> Iterator[None]:
    """Inside, an UnsupportedError is added to ``errors``, and ends the block."""
    try:
        yield
    except UnsupportedError as error:
        errors.append(error)


def _instead(node: ir.Node, arriving: list[Value]) -> Value:
    """Return a refused node's intended values."""
    if isinstance(node, ir.Linear | ir.Conv) or "weighted" in arriving:
        return "weighted"
    return next((value for value in arriving if isinstance(value, float)), 1.0)


def weightless(program: ir.Program, neuron: ir.Neuron) -> UnsupportedError | None:
    """Return the refusal of a neuron that reads nothing but weights of 0, for which there are no integers."""
    for source in neuron.operands:
        before = program.by_name[source.node]
        while isinstance(before, ir.Pool | ir.MaxPool | ir.Delay | ir.Reshape):
            before = program.by_name[before.operands[0].node]
        if not isinstance(before, ir.Linear | ir.Conv) or before.weight.any():
            return None
    return refusal(neuron, "all-zero-layer", "every weight before it is 0", "it passes nothing on; leave it out")


def _require_whole_delays(program: ir.Program, node: ir.Node) -> None:
    """Refuse a node that adds one signal of two steps, scaled by channel: delays learned between steps."""
    read, used = set[str](), np.zeros((), np.int64)
    for source in node.operands:
        before, scale = program.by_name[source.node], np.ones(())
        while isinstance(before, ir.Delay | ir.Scale):
            scale = scale * before.scale if isinstance(before, ir.Scale) else scale
            before = program.by_name[before.operands[0].node]
        read.add(before.name)
        used = used + (scale != 0)
    if len(node.operands) > 1 and len(read) == 1 and used.ndim and used.max() <= 2:
        how = remedy(cli="stl-deploy fold SOURCE --delays steps -o FOLDED.nir", python="net.fold(delays='steps')")
        reason = "it reads one signal at several steps, scaled, as delays learned between two steps do"
        refuse(node, "fractional-delay", reason, f"round them to steps: {how}")


def _value(program: ir.Program, node: ir.Node, arriving: list[Value]) -> Value:
    first = arriving[0]
    if "potential" in arriving:
        if len(arriving) > 1:  # each population of potentials has a scale of its own
            refuse(node, "potential", "it adds potentials to other values", "return one of them, or export to onnx")
        if isinstance(node, ir.Output | ir.Reshape):
            return "potential"
        refuse(node, "potential", "it reads potentials", "give the neurons a threshold, or export to onnx")
    if isinstance(node, ir.Output):
        return first
    if isinstance(node, ir.Product):
        return _product(node, *arriving)
    if isinstance(node, ir.Gather) and "weighted" in arriving:
        refuse(node, "reshape-before-neuron", "it rearranges weighted sums", "put the neuron before it")
    if isinstance(node, ir.Linear | ir.Conv) or (isinstance(node, ir.Scale) and node.scale.ndim):
        if "weighted" in arriving and not isinstance(node, ir.Scale):
            first = any(reads_input(program, program.by_name[source.node]) for source in node.operands)
            prepared = "apply the layer before it to x before capture, " if first else ""
            instead = f"{prepared}merge the two layers, put a neuron between them, or export to onnx"
            refuse(node, "no-neuron", "it reads weighted sums", instead)
        if len(set(arriving)) > 1:
            apart = _APART if isinstance(node, ir.Scale) else "put a neuron before it"
            refuse(node, "mixed-scales", "it adds values of different scales", apart)
        return "weighted"
    if len(set(arriving)) > 1:
        pooled = any(isinstance(program.by_name[source.node], ir.Pool) for source in node.operands)
        apart = (
            "pool by sums before it (divisor_override=1), so that both count spikes"
            if pooled
            else "add them in a neuron"
        )
        apart = _APART if isinstance(node, ir.Scale) else apart
        refuse(node, "mixed-scales", "it adds values of different scales", apart)
    if isinstance(first, float):
        if isinstance(node, ir.Pool):
            return first / node.divisor
        if isinstance(node, ir.Scale):
            return first * float(node.scale)
    return first


def reads_input(program: ir.Program, node: ir.Node) -> bool:
    """Whether a node prepares the input: it reads that alone."""
    return bool(node.operands) and all(isinstance(program.by_name[source.node], ir.Input) for source in node.operands)


def _product(node: ir.Product, one: Value, other: Value) -> float:
    """Return the unit of a product of integers."""
    if isinstance(one, str) or isinstance(other, str):
        refuse(node, "no-neuron", "it multiplies weighted sums", "put a neuron before it, or export to onnx")
    return one * other


def _check(node: ir.Node, known: dict[str, Value]) -> None:
    for source in node.operands:
        if source.delay > 1:
            refuse(node, "long-edge", f"it reads '{source.node}' {source.delay} steps late", "use a delay node")
    if len(node.shape) > 3:
        refuse(node, "many-axes", f"its shape is {list(node.shape)}", "use at most 3 axes for a sample")
    if isinstance(node, ir.Delay) and (most := int(node.steps.max())) > MOST_DELAY:
        reason = f"it delays by {most:,} steps; integers hold at most {MOST_DELAY:,}"
        refuse(node, "long-delay", reason, "shorten the delay")
    for unit in (known[source.node] for source in node.operands):
        if isinstance(node, ir.MaxPool) and isinstance(unit, float) and unit < 0:
            reason = f"it reads values times {unit:g}, and the largest of these is the least in integers"
            refuse(node, "max-pool-sign", reason, "use a scale above 0 before it, or export to onnx")
        if isinstance(node, ir.Output) and isinstance(unit, float) and unit <= 0:
            reason = f"it puts out values times {unit:g}, and integers are scaled by numbers above 0 there"
            refuse(
                node, "output-sign", reason, "return spikes, or sums of weights, without that factor, or export to onnx"
            )
    if isinstance(node, ir.Neuron):
        _check_potentials(node, known)


def _check_potentials(neuron: ir.Neuron, known: dict[str, Value]) -> None:
    """Refuse a neuron that reads a potential, which has no scale of its own."""
    for source in neuron.operands:
        if known[source.node] == "potential":
            refuse(
                neuron,
                "potential",
                f"it reads the potential of '{source.node}'",
                "make that filter the neuron's synapse (NIR's CubaLIF), or give it a threshold",
            )


def _neuron_refusals(neuron: ir.Neuron) -> Iterator[UnsupportedError]:
    """Everything of a neuron that integers do not hold."""
    for name in unread(neuron, READ):
        yield refusal(neuron, *describe_field(name), _REMEDIES.get(name, "use a neuron without it"))
    if neuron.threshold is not None and neuron.decay is not None and neuron.reset not in RESETS:
        reason = f"its reset is '{neuron.reset}', which integers do not hold"
        instead = "reset it to a value, v = v * (1 - s), or by subtraction, v = v - s * theta, or export to onnx"
        yield refusal(neuron, "reset", reason, instead)
    if neuron.multi_spike:
        yield from _several(neuron)
    if neuron.adaptation is not None:
        yield from _adapting(neuron, neuron.adaptation)
    theta = neuron.threshold
    if theta is not None and (theta <= 0).any():
        reason = "its threshold is not above 0"
        yield refusal(neuron, "threshold-not-positive", reason, "train with positive thresholds, or export to onnx")
    decays: list[tuple[str, Any]] = [("decay", neuron.decay)]
    if neuron.synapse is not None:
        decays.append(("synaptic decay", neuron.synapse.decay))
    for what, decay in decays:
        if decay is not None and not ((decay >= 0) & (decay <= 1)).all():
            yield refusal(neuron, "decay", f"its {what} is outside 0 to 1", "use decays from 0 to 1, or export to onnx")


def _several(neuron: ir.Neuron) -> Iterator[UnsupportedError]:
    """Refuse several spikes a step that are not counted in 8 bits, or do not each take a threshold off v."""
    if neuron.cap is None or neuron.cap > MOST_SPIKES:
        most = "any number" if neuron.cap is None else f"up to {neuron.cap:,}"
        remedy = f"state a cap: spikes_per_step: {MOST_SPIKES} in the dialect, or multi_spike of stl.LIF"
        yield refusal(neuron, SEVERAL, f"{_SEVERAL}, {most} of them; integers count up to {MOST_SPIKES}", remedy)
    # Without memory there is nothing to reset, but in the step after, which a late reset takes something off.
    if neuron.reset != "subtract" and (neuron.decay is not None or neuron.delayed_reset):
        yield refusal(
            neuron,
            SEVERAL,
            f"{_SEVERAL} and its reset is '{neuron.reset}'",
            "use reset subtract, or one spike per step",
        )


def _adapting(neuron: ir.Neuron, adaptation: ir.Adaptation) -> Iterator[UnsupportedError]:
    """Refuse an adaptation that 12 bits cannot let fall back, or that lowers the threshold."""
    slug, adapts = describe_field("adaptation")
    if not np.min(twelve_bits(adaptation.decay)):
        reason = f"{adapts} and its decay, {float(np.max(adaptation.decay)):g}, is 1 in the 12 bits of integers"
        yield refusal(neuron, slug, reason, f"use a decay up to {1 - 1 / DECAY_ONE:.4f}, or export to onnx")
    if (adaptation.jump < 0).any():
        yield refusal(neuron, slug, "a spike lowers its threshold", "let spikes raise it, or export to onnx")


def fixed_thresholds_only(program: ir.Program, target: str) -> list[UnsupportedError]:
    """Refuse each neuron whose threshold adapts, for targets that hold fixed ones."""
    slug, adapts = describe_field("adaptation")
    return [
        refusal(node, slug, f"{adapts}; {target} holds fixed ones", "use a fixed threshold" + elsewhere(program))
        for node in program.spiking
        if node.adaptation is not None
    ]


def elsewhere(program: ir.Program) -> str:
    """Return the end of a remedy: the formats that hold what a target of integers does not."""
    return f", or export to onnx{in_floats()}" if all_refusals(program) else ELSEWHERE


def sent_elsewhere(program: ir.Program, errors: list[UnsupportedError]) -> list[UnsupportedError]:
    """Return refusals that send a network which no integers hold to ONNX, and to C without them."""
    end = elsewhere(program) if errors else ELSEWHERE
    return [each.with_remedy(each.remedy.replace(ELSEWHERE, end)) for each in errors]


def zero_starts_only(program: ir.Program, target: str) -> list[UnsupportedError]:
    """Refuse potentials and currents that start at other values than 0, for targets that hold no starts."""
    refused = []
    for node in program.of(ir.Neuron):
        for field in unread(node, set(READ) - {"v_start", "i_start"}):
            if field in ("v_start", "i_start"):
                slug, starts = describe_field(field)
                remedy = "use neurons that start at 0" + elsewhere(program)
                refused.append(refusal(node, slug, f"{starts}; {target} starts at 0", remedy))
    return refused


def fan_in(program: ir.Program, consumer: ir.Node, known: dict[str, Value]) -> FanIn:
    """Return the inputs of ``consumer``; raise UnsupportedError if two paths from one layer differ in scale."""
    axis = row_axis(program, consumer)
    seen = with_rows_first(consumer, axis)
    rows = seen.shape[0]
    gain = total_gain(seen).min() if isinstance(seen, ir.Neuron) else 1.0
    factors: dict[str, Doubles] = {}
    leaves: list[WeightedPath] = []

    def follow(reader: ir.Node, source: ir.Operand, factor: Doubles) -> None:
        node = program.by_name[source.node]
        value = known[node.name]
        if isinstance(value, float):
            leaves.append(WeightedPath(None, source, factor, value))
            return
        direct = source if reader is consumer else None
        if node.name in factors:
            if direct is None and np.array_equal(factors[node.name], factor):
                return
            refuse(node, "several-ways", f"it reaches '{consumer.name}' in several ways", "use one way")
        factors[node.name] = factor
        unit = known[node.operands[0].node]
        if isinstance(node, ir.Linear | ir.Conv) or (isinstance(node, ir.Scale) and isinstance(unit, float)):
            assert isinstance(unit, float)
            _require_rows(node, axis)
            leaves.append(WeightedPath(node, direct, factor, unit))
            return
        _require_rows(node, axis)
        if isinstance(node, ir.Pool):
            factor = factor / node.divisor
        if isinstance(node, ir.Scale):
            scale = _by_row(node, axis)
            factor = factor * (np.abs(scale) if keeps_sign(program, node) else scale)
        if isinstance(node, ir.MaxPool) and gain < 0:
            reason = f"the gain of '{consumer.name}' behind it is below 0, which turns its largest into its least"
            refuse(node, "max-pool-sign", reason, "use a gain above 0, or export to onnx")
        if isinstance(node, ir.MaxPool) and (factor < 0).any():
            reason = "what lies behind it turns the sign of some channels, so that their largest becomes their least"
            refuse(node, "max-pool-sign", reason, "put what scales its channels right behind it")
        for inner in node.operands:
            follow(node, inner, factor)

    for source in consumer.operands:
        follow(consumer, source, np.ones(rows))
    between = tuple(
        node
        for node in program.nodes
        if node.name in factors
        and isinstance(node, ir.Pool | ir.MaxPool | ir.Delay | ir.Reshape | ir.Scale)
        and all(leaf.node is not node for leaf in leaves)
    )
    return FanIn(tuple(leaves), between, axis)


def _require_rows(node: ir.Node, axis: RowAxis) -> None:
    """Refuse a node on the way to neurons whose rows are not where those of other weights are."""
    if axis == "last" and (isinstance(node, ir.Conv | ir.Pool | ir.MaxPool) or _is_vectors(node)):
        refuse(node, "linear-over-axes", "a Linear over axes reaches the same neurons", "flatten before a Linear")
    moves = isinstance(node, ir.Reshape) and mixes_rows(node)
    if (axis == "first" and moves) or (axis == "last" and isinstance(node, ir.Reshape)):
        refuse(node, "reshape-before-neuron", "it mixes rows of weighted sums", "put the neuron before it")
    if axis == "flat" and not (isinstance(node, ir.Reshape | ir.Scale) or _is_vectors(node)):
        reason = "its weighted sums are reshaped before the neurons"
        refuse(node, "reshape-before-neuron", reason, "put the neuron before what reshapes them")


def _is_vectors(node: ir.Node) -> bool:
    return isinstance(node, ir.Linear) and len(node.input_shape) == 1


def keeps_sign(program: ir.Program, node: ir.Scale) -> bool:
    """Return whether a scale's signs stay in place, since a max pool precedes it; its magnitude goes into weights."""
    return any(isinstance(program.by_name[source.node], ir.MaxPool) for source in node.operands)


def _by_row(node: ir.Scale, axis: RowAxis) -> Doubles:
    scale = rows_first(np.broadcast_to(node.scale, node.shape).astype(np.float64), axis, node.shape)
    rows = row_values(scale)
    if rows is None:
        refuse(node, "scale-per-pixel", "it scales the pixels of a channel differently", "use one value per channel")
    return rows
