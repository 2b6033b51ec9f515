"""Random Xylo networks of several kinds, drawn with numpy alone (the recorder runs in xylosim's environment)."""

from __future__ import annotations

from typing import Any

import numpy as np

KINDS = ("plain", "saturating", "aliases", "decays", "biases", "two_synapses", "partial", "zero_thresholds", "extreme")


def draw(kind: str, seed: int = 0, *, steps: int = 40, batch: int = 2) -> tuple[dict[str, Any], Any]:
    """The arguments by name, and input ``[T, B, channels]``."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    channels, hidden, outputs = 5, 20, 3
    loud = kind in ("saturating", "extreme")
    synapses = 2 if loud or kind == "two_synapses" else 1
    hear, heard = (12, 7) if kind == "partial" else (hidden, hidden)
    top = 128 if loud else 40

    def whole(low: int, high: int, *shape: int) -> Any:
        return rng.integers(low, high, shape).astype(np.int32)

    def weights(*shape: int) -> Any:
        return whole(-top, top, *shape) * (rng.random(shape) < 0.4)

    dash = 16 if kind == "decays" else 7
    spec = {
        "weights_in": weights(channels, hear, synapses),
        "weights_rec": weights(hidden, hidden, synapses),
        "weights_out": weights(heard, outputs),
        "dash_mem": whole(0, dash, hidden),
        "dash_mem_out": whole(0, dash, outputs),
        "dash_syn": whole(0, dash, hidden),
        "dash_syn_out": whole(0, dash, outputs),
        "threshold": whole(30, 900, hidden),
        "threshold_out": whole(30, 900, outputs),
        "bias_hidden": np.zeros(hidden, np.int32),
        "bias_out": np.zeros(outputs, np.int32),
        "aliases": np.full(hidden, -1, np.int32),
        "weight_shift_in": np.int32(7 if loud else rng.integers(0, 3)),
        "weight_shift_rec": np.int32(6 if loud else rng.integers(0, 2)),
        "weight_shift_out": np.int32(7 if loud else rng.integers(0, 2)),
    }
    if kind == "decays":
        for name in ("dash_mem", "dash_syn"):
            spec[name] = np.arange(hidden, dtype=np.int32)[:: 1 if name == "dash_mem" else -1] % 16
    if synapses == 2:
        spec["dash_syn_2"] = whole(0, dash, hidden)
    if kind == "biases":
        spec["bias_hidden"], spec["bias_out"] = whole(-200, 300, hidden), whole(-200, 300, outputs)
        spec["bias_hidden"][:2] = [-32768, 32767]
    if kind == "extreme":
        spec["bias_hidden"], spec["bias_out"] = whole(-(2**15), 2**15, hidden), whole(-(2**15), 2**15, outputs)
    if kind == "aliases":
        targets = whole(1, hidden, hidden)
        wanted = (rng.random(hidden) < 0.6) & (targets != np.arange(hidden))
        spec["aliases"] = np.where(wanted, targets, -1).astype(np.int32)
    if kind == "zero_thresholds":
        spec["threshold"][::5] = 0
        spec["threshold_out"][0] = 0
    often = 0.8 if loud else 0.25
    x = (rng.integers(0, 16, (steps, batch, channels)) * (rng.random((steps, batch, channels)) < often)).astype(
        np.uint8
    )
    x[steps // 2 :] = x[steps // 2 :] * (rng.random((steps - steps // 2, 1, 1)) < 0.3)
    return spec, x
