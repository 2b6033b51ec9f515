"""Which nets go through which framework, in which direction, and what is known about those that do not come through."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from stl_deploy.exporters.nir.dialect import PRESETS
from tests.conformance.nets import GRAPHS, NETS

SEEDS = (0, 1, 2)

DIALECTS = {
    **PRESETS,
    "stl_from_v_leak": replace(PRESETS["stl"], start="v_leak"),
    "stl_from_v_reset": replace(PRESETS["stl"], start="v_reset"),
}
"""The presets, and variants of ours that only networks we write are meant in."""


@dataclass(frozen=True)
class Row:
    """One line of the matrix. direction ``read``: they write and run, we read; ``write``: the other way round."""

    framework: str
    direction: str
    preset: str
    net: str
    options: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """A file name for the case."""
        options = "".join(f"-{key}={value}" for key, value in self.options.items())
        return f"{self.framework}-{self.direction}-{self.preset}-{self.net}{options}"


_BUILT = tuple(net for net in NETS if net not in GRAPHS)
_READ: list[tuple[str, str, dict[str, str], tuple[str, ...]]] = [
    ("snntorch", "snntorch", {}, _BUILT),
    ("snntorch", "snntorch_zero", {"reset": "zero"}, _BUILT),
    ("snntorch", "snntorch_now", {"reset_delay": "no"}, _BUILT),
    ("snntorch", "snntorch_zero_now", {"reset": "zero", "reset_delay": "no"}, _BUILT),
    ("snntorch", "snntorch_none", {"reset": "none"}, ("mlp", "mlp-cuba", "recurrent")),
    ("norse", "norse", {}, _BUILT),
    ("norse", "norse", {"v_leak": "0.25"}, ("mlp", "mlp-cuba", "conv")),
    ("spikingjelly", "spikingjelly", {}, _BUILT),
    ("spikingjelly", "spikingjelly", {"decay_input": "yes", "v_reset": "-0.25"}, ("mlp", "conv")),
    ("sinabs", "sinabs", {}, _BUILT),
    ("sinabs", "sinabs_hard", {"reset": "hard"}, _BUILT),
    ("sinabs", "sinabs_norm", {"norm": "yes"}, ("mlp", "mlp-various", "conv", "conv-sum")),
    ("sinabs", "sinabs_reader", {"reader": "yes"}, ("mlp", "mlp-if", "mlp-various", "conv-sum-if")),
    ("rockpool", "rockpool", {}, _BUILT),
    ("spyx", "spyx", {}, _BUILT),
]
_WRITTEN = tuple(net for net in NETS if net not in ("recurrent", "recurrent-cuba", "mlp-leak", "mlp-reset"))
_READERS: dict[str, dict[str, str]] = {
    "snntorch": {},
    "norse": {"dt": str(2.0**-10)},
    "spikingjelly": {},
    "sinabs": {"reset": "hard"},
}

ROWS = [
    *(Row(framework, "read", preset, net, options) for framework, preset, options, nets in _READ for net in nets),
    *(Row(reader, "write", "stl", net, options) for reader, options in _READERS.items() for net in _WRITTEN),
    Row("norse", "write", "stl_from_v_leak", "mlp-leak", _READERS["norse"]),
    Row("spikingjelly", "write", "stl_from_v_reset", "mlp-reset"),
]

KNOWN: dict[tuple[str, str], tuple[str, str]] = {}
"""Reason and remedy for rows that do not match, by preset and net."""
