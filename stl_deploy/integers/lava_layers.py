"""Check layers and neurons against Lava's fixed-point model: for netx, and for training in integers.

Quantisation-aware training also refuses loops, and layers of weights that several populations read (`untrainable`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress

from stl_deploy._util.remedies import remedy
from stl_deploy.errors import UnsupportedError
from stl_deploy.graph.check import NIR_NODES, refused
from stl_deploy.graph.program import Conv, Delay, Input, Linear, Neuron, Node, Pool, Program, Scale, is_spike_max_pool
from stl_deploy.integers.by_fold import with_fold
from stl_deploy.integers.fan_in import (
    ELSEWHERE,
    FanIn,
    Value,
    WeightedPath,
    all_refusals,
    classify,
    fan_in,
    kept,
    sent_elsewhere,
)
from stl_deploy.integers.fields import describe_field, in_order, refusal, refuse, together, unread
from stl_deploy.passes import merge_pools

READ = ("decay", "threshold", "gain", "offset", "compare")
_REMEDIES = {
    "multi_spike": "use one spike per step, as convert has with levels 1" + ELSEWHERE,
    "v_reset": "Loihi resets to 0; train with that" + ELSEWHERE,
    "v_start": "Loihi starts at 0; train with that" + ELSEWHERE,
    "i_start": "Loihi starts at 0; train with that" + ELSEWHERE,
    "adaptation": "train with fixed thresholds" + ELSEWHERE,
    "v_min": "train without v_min",
    "synapse": "use a LIF without synaptic current",
}

_FOLDED = ("scale", "before-neuron", "no-neuron", "mixed-scales", "pool-size")
"""Refusals of training that a fold may take away."""


def check_kind(node: Node) -> None:
    """Raise UnsupportedError for a node that is no netx layer."""
    if isinstance(node, Scale):
        instead = "in the module put it into the weights before or behind it"
        refuse(node, "scale", "Loihi's layers have no scale of their own", instead)
    if isinstance(node, Delay):
        refuse(node, "delay", "a delay node has no layer in netx", "train without delays" + ELSEWHERE)
    if isinstance(node, Conv):
        if len(node.input_shape) != 3:
            refuse(node, "conv1d", "netx's convolution is over two axes", "give the input a height of 1")
        if any(before != after for before, after in node.padding):
            refuse(node, "asymmetric-padding", f"padding {node.padding}", "netx pads both sides alike; pad the input")
    elif isinstance(node, Linear) and len(node.input_shape) != 1:
        refuse(node, "linear-over-axes", f"its input is {list(node.input_shape)}", "flatten before a Linear")


def neuron_refusals(neuron: Neuron) -> Iterator[UnsupportedError]:
    """Everything that netx's neurons do not do."""
    theta = neuron.threshold
    if theta is None:
        remedy = "Loihi passes spikes on; give it a threshold"
        yield refusal(neuron, "no-threshold", "it puts out its potential", remedy)
    elif (theta <= 0).any():
        reason = "its threshold is not above 0"
        yield refusal(neuron, "threshold-not-positive", reason, "train with positive thresholds")
    yield from field_refusals(neuron, READ)
    decay = neuron.decay
    if decay is None:
        return
    if (decay < 0).any() or (decay > 1).any():
        yield refusal(neuron, "decay", "its decay is outside 0 to 1", "use decays from 0 to 1, or export to onnx")
    elif (decay != decay.flat[0]).any():
        yield refusal(neuron, "decay", "its decay differs between neurons", "use one decay per layer" + ELSEWHERE)


def check_fields(neuron: Neuron, read: Collection[str]) -> None:
    """Raise UnsupportedError for a neuron that has anything that netx's neurons have not."""
    for error in field_refusals(neuron, read):
        raise error


def field_refusals(neuron: Neuron, read: Collection[str]) -> Iterator[UnsupportedError]:
    """Return a refusal for each field that netx's neurons lack."""
    for name in unread(neuron, read):
        if name == "reset" and neuron.reset == "value_delayed":
            remedy = "Loihi resets at once; train with such a reset"
            yield refusal(neuron, "delayed-reset", "it resets one step late", remedy)
        elif name == "reset":
            reason = f"its reset is '{neuron.reset}'"
            yield refusal(neuron, "soft-reset", reason, "Loihi resets to 0; train with hard reset" + ELSEWHERE)
        else:
            yield refusal(neuron, *describe_field(name), _REMEDIES.get(name, "use a neuron without it"))


def require_trainable(program: Program) -> None:
    """Raise UnsupportedError with everything that keeps a network from training in integers."""
    if errors := untrainable(program):
        raise together(errors)


def untrainable(program: Program) -> list[UnsupportedError]:
    """Return everything that keeps a network from training in integers, node by node; empty if it can be trained."""
    return sent_elsewhere(program, with_fold(program, _untrainable(program), _untrainable, _FOLDED))


def _untrainable(program: Program) -> list[UnsupportedError]:
    untaken = [*refused(program, NIR_NODES, "training in integers")]
    if untaken:
        return untaken
    errors: list[UnsupportedError] = []
    for node in program.nodes:
        errors += [] if (late := _late(node)) is None else [late]
        with kept(errors):
            check_kind(node)
        if isinstance(node, Neuron) and node.spiking and not is_spike_max_pool(program, node):
            errors += neuron_refusals(node)
    errors += _of_other_nodes(errors, all_refusals(program))
    known = dict[str, Value]()
    with kept([]):
        known = classify(program, 1.0, [])
    for neuron in program.spiking if known else ():
        if not is_spike_max_pool(program, neuron):
            errors += _of_other_nodes(errors, _fan_in_refusals(program, neuron, known), besides=neuron.name)
    return in_order(program, errors)


def _of_other_nodes(
    errors: Sequence[UnsupportedError], further: Iterable[UnsupportedError], besides: str = ""
) -> list[UnsupportedError]:
    """Return further refusals of nodes that have none yet, and of the node ``besides``."""
    refused_nodes = {error.node for error in errors} - {besides}
    return [error for error in further if error.node not in refused_nodes]


def _fan_in_refusals(program: Program, neuron: Neuron, known: dict[str, Value]) -> list[UnsupportedError]:
    """Return what keeps the inputs of a population from training."""
    errors: list[UnsupportedError] = []
    with kept(errors), suppress(AssertionError):  # of a layer that is refused already
        paths = fan_in(program, neuron, known)
        with kept(errors):
            _require_weights_alone(program, neuron, paths)
        for leaf in paths.leaves:
            with kept(errors):
                _require_weights(program, neuron, leaf)
    return errors


def _late(node: Node) -> UnsupportedError | None:
    if any(source.delay for source in node.operands):
        return refusal(node, "recurrent", "it reads the step before", "train without recurrence")
    return None


def _require_weights_alone(program: Program, neuron: Neuron, paths: FanIn) -> None:
    if paths.axis != "first":
        refuse(neuron, "linear-over-axes", "its weights are over several axes", "flatten before a Linear")
    if paths.between:
        between = paths.between[0]
        merging = _by_merging(program) if isinstance(between, Pool) else ""
        instead = f"put it behind the neurons{merging}"
        refuse(between, "before-neuron", f"it stands between weights and '{neuron.name}'", instead)


def _by_merging(program: Program) -> str:
    """Return the fold that takes pools into weights, if it takes all of them; else nothing."""
    try:
        merge_pools.PASS.run(program)
    except UnsupportedError:
        return ""
    how = remedy(cli="stl-deploy fold SOURCE --merge-pools -o FOLDED.nir", python="net.fold(merge_pools=True)")
    return f", or merge pools into weights: {how}"


def _require_weights(program: Program, neuron: Neuron, leaf: WeightedPath) -> None:
    node = leaf.node
    if not isinstance(node, Linear | Conv):
        own = "a Linear" if len(neuron.shape) == 1 else "a convolution of kernel 1"
        instead = f"put {own} on that path, or add the spikes behind the neurons"
        source = None if leaf.source is None else program.by_name[leaf.source.node]
        what = "the input reaches" if isinstance(source, Input) else "spikes reach"
        refuse(neuron, "no-weights", f"{what} it on a path without its own weights", instead)
    if len(program.readers[node.name]) > 1:
        refuse(node, "several-readers", "several populations read it", "give each a layer of weights of its own")
    if math.frexp(leaf.unit)[0] != 0.5:
        reason = f"its inputs are multiples of {leaf.unit:.4g}, not of a power of two"
        refuse(node, "pool-size", reason, f"use sum pooling, or windows of 2x2 or 4x4{_by_merging(program)}")
