"""Which nets go through which framework, in which direction, and what is known about those that do not come through."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.conformance.nets import GRAPHS, NETS

SEEDS = (0, 1, 2)


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
    ("norse", "norse", {}, _BUILT),
    ("spikingjelly", "spikingjelly", {}, _BUILT),
    ("spikingjelly", "spikingjelly", {"decay_input": "yes", "v_reset": "-0.25"}, ("mlp", "conv")),
    ("sinabs", "sinabs", {}, _BUILT),
    ("sinabs", "sinabs_hard", {"reset": "hard"}, _BUILT),
    ("rockpool", "rockpool", {}, _BUILT),
    ("spyx", "spyx", {}, _BUILT),
]
_WRITTEN = tuple(net for net in NETS if net not in ("recurrent", "recurrent-cuba"))
_READERS: dict[str, dict[str, str]] = {
    "snntorch": {},
    "norse": {"dt": str(2.0**-10)},
    "spikingjelly": {},
    "sinabs": {"reset": "hard"},
}

ROWS = [
    *(Row(framework, "read", preset, net, options) for framework, preset, options, nets in _READ for net in nets),
    *(Row(reader, "write", "stl", net, options) for reader, options in _READERS.items() for net in _WRITTEN),
]

KNOWN: dict[tuple[str, str], tuple[str, str]] = {}
"""Reason and remedy for rows that do not match, by preset and net."""
