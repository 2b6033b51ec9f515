"""What to write instead of operations that have no form in a spiking graph."""

from __future__ import annotations

_NORM = "it divides by statistics of each sample; use BatchNorm, which goes into the weights"
_CONDITION = (
    "a spike is decided by one comparison with a fixed threshold; leave out what else decides (a refractory time?)"
)
_ACTIVATION = "an activation of real numbers is none of a spiking neuron; put a neuron in its place"
_INSTEAD = {
    **dict.fromkeys(("native_layer_norm", "native_group_norm", "_fused_rms_norm", "rms_norm"), _NORM),
    **dict.fromkeys(
        ("bitwise_and", "bitwise_or", "bitwise_not", "logical_and", "logical_or", "logical_not"), _CONDITION
    ),
    "sign": "spikes are 0 or 1; compare a potential with a threshold in its place",
    **dict.fromkeys(
        ("_softmax", "_log_softmax"),
        "it divides by a sum over the classes of each step; return what it reads, and apply it to that",
    ),
    **dict.fromkeys(
        ("relu", "sigmoid", "tanh", "gelu", "silu", "leaky_relu", "elu", "softplus", "hardtanh"), _ACTIVATION
    ),
}
CLIPS = ("clamp", "clamp_min", "clamp_max", "maximum", "minimum", "relu", "hardtanh")
"""Operations that bound a potential."""


def no_form(name: str) -> str:
    """That an operation has no form, and what to write instead."""
    return f"'{name}' has no form in a spiking graph; {_INSTEAD.get(name, 'docs/capture.md lists what has')}"
