"""Check layers and neurons against Lava's fixed-point model: for netx, and for training in integers."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from stl_deploy.errors import UnsupportedError
from stl_deploy.graph.program import Conv, Delay, Linear, Neuron, Node, Scale
from stl_deploy.integers.fields import describe_field, unread
from stl_deploy.integers.scales import refusal, refuse

READ = ("decay", "threshold", "gain", "offset", "compare")
_REMEDIES = {
    "multi_spike": "use one spike per step",
    "v_reset": "Loihi starts and resets at 0",
    "v_start": "Loihi starts and resets at 0",
    "v_min": "train without v_min",
    "synapse": "use a LIF without synaptic current",
}


def check_kind(node: Node) -> None:
    """Raise UnsupportedError for a node that is no netx layer."""
    if isinstance(node, Scale):
        refuse(node, "scale", "Loihi's layers have no scale of their own", "fold it into the weights before it")
    if isinstance(node, Delay):
        refuse(
            node, "delay", "a delay node has no layer in netx", "remove it, or fold it into the dense layer after it"
        )
    if isinstance(node, Conv):
        if len(node.input_shape) != 3:
            refuse(node, "conv1d", "netx's convolution is over two axes", "give the input a height of 1")
        if any(before != after for before, after in node.padding):
            refuse(node, "asymmetric-padding", f"padding {node.padding}", "netx pads both sides alike; pad the input")
    elif isinstance(node, Linear) and len(node.input_shape) != 1:
        refuse(node, "linear-over-axes", f"its input is {list(node.input_shape)}", "flatten before a Linear")


def check_neuron(neuron: Neuron) -> None:
    """Raise UnsupportedError for neurons that netx's are not."""
    for error in neuron_refusals(neuron):
        raise error


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
    if decay is not None and ((decay != decay.flat[0]).any() or not 0 <= float(decay.flat[0]) <= 1):
        reason = "its decay differs between neurons or is outside 0 to 1"
        yield refusal(neuron, "decay", reason, "use one decay per layer")


def check_fields(neuron: Neuron, read: Collection[str]) -> None:
    """Raise UnsupportedError for a neuron that has anything that netx's neurons have not."""
    for error in field_refusals(neuron, read):
        raise error


def field_refusals(neuron: Neuron, read: Collection[str]) -> Iterator[UnsupportedError]:
    """A refusal for each field that netx's neurons have not."""
    for name in unread(neuron, read):
        if name == "reset" and neuron.reset == "value_delayed":
            remedy = "Loihi resets at once; train with such a reset"
            yield refusal(neuron, "delayed-reset", "it resets one step late", remedy)
        elif name == "reset":
            reason = f"its reset is '{neuron.reset}'"
            yield refusal(neuron, "soft-reset", reason, "Loihi resets to 0; train with hard reset")
        else:
            yield refusal(neuron, *describe_field(name), _REMEDIES.get(name, "use a neuron without it"))
