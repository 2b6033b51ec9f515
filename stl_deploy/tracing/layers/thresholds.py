"""Build comparisons and gates: neurons without memory."""

from __future__ import annotations

from math import prod

import numpy as np
import torch

from stl_deploy.graph.program import Gather, MaxPool, Neuron, Reshape, Shape
from stl_deploy.tracing.layers.arguments import alpha, number
from stl_deploy.tracing.layers.builder import Builder, refusal
from stl_deploy.tracing.layers.draft import Operands
from stl_deploy.tracing.recognition.populations import compact, counting
from stl_deploy.tracing.unrolling.nodes import Node
from stl_deploy.tracing.unrolling.steps import Ref, Signal


def compared(build: Builder, signal: Signal) -> Operands:
    """Build a comparison of a signal without state."""
    threshold = build.thresholds.get(signal)
    if threshold is None:
        raise refusal(
            signal,
            f"expected a comparison with a fixed threshold; found '{signal.node.called}' of two signals; "
            "compare a potential with a number, a tensor or a parameter",
        )
    shape = build.shape(signal)
    node = Neuron(
        name=build.name("threshold", signal.node.place.module),
        shape=shape,
        operands=build.read(Ref(threshold.potential, 0)),
        decay=None,
        threshold=compact(threshold.theta.expand((1, *shape)), shape),
        compare="gt" if threshold.compare == "gt" else "ge",
        **counting(threshold),
    )
    build.stands_for(node.name, signal)
    return build.add(node)


def rectified(build: Builder, signal: Signal) -> Operands:
    """Return spikes unchanged by a clip to a range that holds them; bound currents below."""
    x, *bounds = signal.args
    low, high = (*bounds, 0 if signal.node.name == "relu" else None, None)[:2]
    low, high = signal.kwargs.get("min", low), signal.kwargs.get("max", high)
    if signal.node.name == "clamp_max":
        low, high = None, low
    terms = build.read(x)
    if is_binary(build, terms) and (low is None or low <= 0) and (high is None or high >= 1):
        return terms
    if (low is None or low <= 0) and high == 1 and all(is_binary(build, (term,)) for term in terms):
        return added_and_compared(build, signal, terms, 0.5)
    if high is None and isinstance(low, int | float):
        return _bounded_below(build, signal, terms, float(low))
    raise refusal(
        signal,
        f"expected spikes, a lower bound that is a number, or a neuron's own arithmetic; found '{signal.node.called}' "
        "of a current with an upper bound or with a tensor's; put a spiking neuron, or a ReLU, in its place; where it "
        "prepares x, apply it to x before capture",
    )


def _bounded_below(build: Builder, signal: Signal, terms: Operands, low: float) -> Operands:
    """Build ``max(x, low)`` (a ReLU: 0) as a potential without memory that is bounded below."""
    node = Neuron(
        name=build.name("relu", signal.node.place.module),
        shape=build.shape(signal),
        operands=terms,
        decay=None,
        threshold=None,
        v_min=np.asarray(low, np.float32),
    )
    build.stands_for(node.name, signal)
    return build.add(node)


def gate(build: Builder, signal: Signal, operands: tuple[Ref, Ref]) -> Operands:
    """Build the product of two spikes (AND), or of a spike and another's remainder (AND NOT), as a threshold."""
    shape = build.shape(signal)
    terms: Operands = ()
    for ref in operands:
        _require_start(signal, ref)
    turned = [turned_spike(ref) for ref in operands]
    read = [(build.read(ref), negated) for ref, negated in turned]
    if read[0] == read[1] and is_binary(build, read[0][0]):  # s * s, and s * s * s
        return build.read(operands[0])
    for (ref, negated), (spikes, _) in zip(turned, read, strict=True):
        if not is_binary(build, spikes):
            raise refusal(
                signal,
                "expected a product of two spikes, or of a signal and a constant; found two signals that are not both "
                "spikes (gating); no spiking graph holds it",
            )
        terms += build.scaled(_spread(build, spikes, ref, shape), -1 if negated else 1, shape)
    if all(negated for _, negated in turned):
        raise refusal(
            signal,
            "expected at most one negated spike in a product; found two; write 1 - torch.maximum(a, b)",
        )
    return added_and_compared(build, signal, terms, 0.5 if any(negated for _, negated in turned) else 1.5)


def both(build: Builder, signal: Signal) -> Operands:
    """Build the smaller of two spikes, and both of them (AND)."""
    return gate(build, signal, _two(signal))


def either(build: Builder, signal: Signal) -> Operands:
    """Build the larger of two spikes, and one or both of them (OR)."""
    shape = build.shape(signal)
    operands = _two(signal)
    terms: Operands = ()
    for ref in dict.fromkeys(operands):
        _require_start(signal, ref)
        spikes = build.read(ref)
        if not is_binary(build, spikes):
            raise refusal(signal, _OF_SPIKES.format(signal.node.name))
        terms += _spread(build, spikes, ref, shape)
    return added_and_compared(build, signal, terms, 0.5) if len(set(operands)) > 1 else terms


def _spread(build: Builder, terms: Operands, ref: Ref, shape: Shape) -> Operands:
    """Repeat spikes along the axes that torch would repeat them along; unchanged if only their shape differs."""
    before = build.shape(ref.signal)
    return terms if prod(before) == prod(shape) else build.widened(terms, before, shape)


_OF_SPIKES = "expected '{}' of two spikes; found it of something else, which no spiking graph holds; add them up"


def _two(signal: Signal) -> tuple[Ref, Ref]:
    left, right = signal.args[:2]
    if not isinstance(left, Ref) or not isinstance(right, Ref):
        raise refusal(signal, _OF_SPIKES.format(signal.node.name))
    return left, right


def added_and_compared(build: Builder, signal: Signal, terms: Operands, threshold: float) -> Operands:
    """Build a neuron without memory that fires where the sum of terms is above a threshold."""
    node = Neuron(
        name=build.name("gate", ""),
        shape=build.shape(signal),
        operands=terms,
        decay=None,
        threshold=np.asarray(threshold, np.float32),
    )
    build.stands_for(node.name, signal)
    return build.add(node)


def _require_start(signal: Signal, ref: Ref) -> None:
    """Raise CaptureError where spikes of earlier steps start otherwise than a graph's: at 0, and negated ones at 1."""
    inner, start = turned_spike(ref)
    while True:
        before = [node.tensor for node in ref.signal.before[: ref.lag]]
        if any(tensor is not None and not bool((tensor == start).all()) for tensor in before):
            raise refusal(
                signal,
                "expected spikes of earlier steps that start at 0, and negated ones at 1, as in a graph; found others, "
                "read by a product or comparison of two spikes; start them so (torch.zeros_like, torch.ones_like)",
            )
        if ref.signal is inner.signal:
            return
        start ^= ref.signal.node.name != "_to_copy"
        ref = next(arg for arg in ref.signal.args if isinstance(arg, Ref))


def turned_spike(ref: Ref) -> tuple[Ref, bool]:
    """Return ``1 - s`` and ``~s`` as s, and whether it was inverted."""
    node, args = ref.signal.node, ref.signal.args
    if node.name == "_to_copy" and isinstance(args[0], Ref):
        inner, turned = turned_spike(Ref(args[0].signal, args[0].lag + ref.lag))
        return (inner, True) if turned else (ref, False)
    if node.name in ("logical_not", "bitwise_not") and node.dtype == torch.bool and isinstance(args[0], Ref):
        return Ref(args[0].signal, args[0].lag + ref.lag), True
    if alpha(ref.signal) != 1:
        return ref, False
    if node.name == "rsub" and isinstance(args[0], Ref) and args[1] == 1:
        return Ref(args[0].signal, args[0].lag + ref.lag), True
    from_one = node.name == "sub" and isinstance(args[0], Node) and bool((number(args[0]) == 1).all())
    if from_one and isinstance(args[1], Ref):
        return Ref(args[1].signal, args[1].lag + ref.lag), True
    return ref, False


def is_binary(build: Builder, terms: Operands) -> bool:
    """Return whether terms are 0 or 1."""
    if len(terms) != 1:
        return False
    node = build.nodes.get(terms[0].node)
    if isinstance(node, MaxPool | Reshape | Gather):
        return is_binary(build, node.operands)
    return isinstance(node, Neuron) and node.spiking and not node.multi_spike
