"""Dialects: options that a NIR file leaves open, and each framework's choices.

A NIR graph names time constants and thresholds but neither the time step nor the discrete form of a continuous
equation. A `Dialect` answers those questions. Only `lower` uses it.

The presets and their sources: NIR 1.0.8 (spec), and the reader and writer code of
snnTorch 1.0, Norse 1.1, Sinabs 3.1, SpikingJelly 2.0, Rockpool 3.1 and Spyx 1.0.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from stl_deploy._util.remedies import did_you_mean
from stl_deploy._util.untrusted import read_text
from stl_deploy.errors import InputError
from stl_deploy.graph.program import Compare, SynapseRule

Leak = Literal["euler", "exp"]
Reset = Literal[
    "value",
    "subtract",
    "subtract_delayed",
    "value_delayed",
    "none",
    "snntorch_zero",
    "snntorch_subtract_now",
    "snntorch_zero_now",
    "spyx",
]
SpikesPerStep = Literal["one", "many"] | int
"""One, as many as v holds thresholds, or that with a cap."""
Start = Literal["zero", "v_reset", "v_leak"]
Gain = Literal["r", "one", "one_minus_decay"]
Rate = Literal["divide", "reciprocal", "double"]
Bounded = Literal["all", "if"]
Integrate = Literal["dt_r", "r"]
Emit = Literal["now", "next_step"]
Loop = Literal["closing_edge", "neuron_output"]
LoopInput = Literal["as_written", "neuron"]
Bound = float | Literal["-threshold"] | None
"""A lower bound of the potential: a number, minus the threshold, or none."""


_LATER = frozenset({"rate", "bounded"})
OF_NODES = frozenset({"leak", "compare", "reset", "spikes_per_step", "start", "synapse", "gain", "rate", "integrate"})
"""The options that single nodes may have of their own."""


def _is_finite(value: object) -> bool:
    """Return whether it is a number that a float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


@dataclass(frozen=True)
class Dialect:
    """Discrete-time semantics of a NIR graph.

    dt: time step, in the unit of the graph's time constants.
    leak: ``euler`` v += dt/τ·(v_leak − v + r·x), or ``exp`` v = v_leak + e^(−dt/τ)·(v − v_leak) + x (input gain 1).
    compare: a neuron fires where v > θ (``gt``) or v >= θ (``ge``).
    reset: ``value`` to v_reset; ``subtract`` θ; ``subtract_delayed`` θ at the next step; ``value_delayed`` to v_reset
        at the next step, ignoring that step's input; ``none``: spikes leave v unchanged; ``snntorch_zero``:
        ``value_delayed`` for CubaLIF and for neurons in a loop, ``value`` for others; ``snntorch_zero_now`` and
        ``snntorch_subtract_now``: snnTorch's ``reset_delay=False`` (`Program` has the equations); its RSynaptic, which
        fails with it in snnTorch 1.0, is read with the delay; ``spyx``: ``subtract`` for CubaLIF, ``subtract_delayed``
        for others.
    spikes_per_step: ``one``; ``many``: trunc(v/θ) spikes in one step; or an integer of at least 2, their cap.
    v_min: lower bound of v: a number, ``"-threshold"``, or None; or a mapping from node names to these (others: None).
    start: v at rest is 0 (``zero``), v_reset or v_leak (0 for neurons that have none).
    synapse: update of CubaLIF's current: ``euler``; ``jump``: i = (1 − dt/τ_syn)·i + w_in·in; or ``exp_add``:
        i = (i + in)·e^(−dt/τ_syn); v = v·e^(−dt/τ_mem) + i.
    gain: factor of a leaky neuron's input: dt/τ·r and, for CubaLIF, dt/τ_syn·w_in (``r``; with ``exp`` nothing);
        nothing (``one``); or 1 minus the decay of its potential (``one_minus_decay``).
    rate: computation of dt/τ: a quotient (``divide``) or (1/τ)·dt (``reciprocal``), both in the file's precision,
        or a float64 quotient, of which only the decay is rounded (``double``).
    bounded: neurons that v_min applies to: ``all`` spiking ones, or only integrate-and-fire neurons (``if``).
    integrate: I and IF add dt·r·x (``dt_r``) or r·x (``r``).
    emit: a spike leaves a neuron in the step in which v crosses θ (``now``), or one step later (``next_step``).
    loop: position of a loop's delay of one step: on the edge that closes it (``closing_edge``), so that a bias in the
        loop is absent at t = 0; or at the neuron's output (``neuron_output``), so that it is present.
    loop_input: an edge from an Input into a neuron's recurrent weights is taken ``as_written``, or leads to the neuron
        directly (``neuron``).
    nodes: options of single nodes, by name, that differ from the graph's.
    """

    dt: float = 1e-4
    leak: Leak = "euler"
    compare: Compare = "gt"
    reset: Reset = "value"
    spikes_per_step: SpikesPerStep = "one"
    v_min: Bound | Mapping[str, Bound] = None
    start: Start = "zero"
    synapse: SynapseRule = "euler"
    gain: Gain = "r"
    rate: Rate = "divide"
    bounded: Bounded = "all"
    integrate: Integrate = "dt_r"
    emit: Emit = "now"
    loop: Loop = "closing_edge"
    loop_input: LoopInput = "as_written"
    nodes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, choices in CHOICES.items():
            if getattr(self, key) not in choices:
                accepted = ", ".join(f'"{c}"' for c in choices)
                raise InputError(f"dialect key '{key}': expected {accepted}; found {getattr(self, key)!r}")
        spikes = self.spikes_per_step
        if spikes not in ("one", "many") and (isinstance(spikes, bool) or not isinstance(spikes, int) or spikes < 2):
            raise InputError(
                f'dialect key \'spikes_per_step\': expected "one", "many" or an integer from 2; found {spikes!r}'
            )
        if not _is_finite(self.dt) or self.dt <= 0:
            raise InputError(f"dialect key 'dt': expected a positive finite number; found {self.dt!r}")
        for bound in self.v_min.values() if isinstance(self.v_min, Mapping) else [self.v_min]:
            if not (bound is None or bound == "-threshold" or _is_finite(bound)):
                accepted = 'null, a finite number, "-threshold", or an object with one of these for each node'
                raise InputError(f"dialect key 'v_min': expected {accepted}; found {self.v_min!r}")
        self._check_nodes()

    def _check_nodes(self) -> None:
        """Raise InputError for invalid options of single nodes."""
        if not isinstance(self.nodes, Mapping) or not all(isinstance(own, Mapping) for own in self.nodes.values()):
            raise InputError(f"dialect key 'nodes': expected an object of options by node; found {self.nodes!r}")
        for node, own in self.nodes.items():
            unknown = sorted(set(own) - OF_NODES)
            if unknown:
                accepted = ", ".join(sorted(OF_NODES))
                raise InputError(
                    f"dialect key 'nodes', '{node}': expected options of a node: {accepted}; found '{unknown[0]}'"
                )
            replace(self, nodes={}, **own)

    def bound(self, node: str, leaky: bool) -> Bound:
        """Return the lower bound of the potential of one node's neurons. leaky: they are not IF."""
        if isinstance(self.v_min, Mapping):
            return self.v_min.get(node)
        return None if leaky and self.bounded == "if" else self.v_min

    def of_node(self, name: str) -> Dialect:
        """Return the dialect of one node: its own options before the graph's."""
        own = self.nodes.get(name)
        return replace(self, nodes={}, **own) if own else self

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON twin: every key, in order; ``nodes`` only if a node has options of its own."""
        return {key: value for key, value in asdict(self).items() if key != "nodes" or value}

    def written(self) -> dict[str, Any]:
        """Return the form for files; a missing key has the value of ``spec``.

        Options unknown to earlier versions are left out at their default, so that such files are unchanged.
        """
        default = Dialect().as_dict()
        return {
            key: value
            for key, value in self.as_dict().items()
            if value is not None and not (key in _LATER and value == default[key])
        }

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any], *, where: str, base: Dialect | None = None) -> Dialect:
        """Build from JSON-like data; missing keys take the values of the preset that the key ``preset`` names.

        Without that key they are ``base``'s (default: the spec preset's). Raises InputError naming ``where`` for
        unknown keys and wrong values.
        """
        given = dict(data)
        known = {"preset", *(f.name for f in fields(cls))}
        unknown = sorted(set(given) - known)
        if unknown:
            wrong = f"'{unknown[0]}'{did_you_mean(unknown[0], known)}"
            raise InputError(f"{where}: expected dialect keys {', '.join(sorted(known))}; found {wrong}")
        named = given.pop("preset", None)
        try:
            return replace(base or cls() if named is None else preset(named), **given)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None


CHOICES: dict[str, tuple[str, ...]] = {
    name: get_args(kind) for name, kind in get_type_hints(Dialect).items() if get_origin(kind) is Literal
}
"""Values that each option with a choice may take."""
PRESETS: dict[str, Dialect] = {
    "spec": Dialect(),
    "stl": Dialect(compare="ge"),
    # snnTorch writes τ = dt/(1 - β) in float32; the quotient in float64 gives back every β of 0.5 and more.
    "snntorch": Dialect(reset="subtract_delayed", loop="neuron_output", rate="double"),
    "snntorch_zero": Dialect(reset="snntorch_zero", loop="neuron_output", rate="double"),
    "snntorch_now": Dialect(reset="snntorch_subtract_now", loop="neuron_output", rate="double"),
    "snntorch_zero_now": Dialect(reset="snntorch_zero_now", loop="neuron_output", rate="double"),
    "snntorch_none": Dialect(reset="none", loop="neuron_output", rate="double"),
    # Norse's writer multiplies its time constants by its dt of 1e-3 once too often.
    "norse": Dialect(dt=1e-6, integrate="r", synapse="jump", start="v_leak"),
    "sinabs": Dialect(dt=1.0, leak="exp", compare="ge", reset="subtract", spikes_per_step="many"),
    "sinabs_hard": Dialect(dt=1.0, leak="exp", compare="ge"),
    # What its `from_nir` and `from_model` make: integrate-and-fire neurons stop at minus their threshold.
    "sinabs_reader": Dialect(
        dt=1.0,
        leak="exp",
        compare="ge",
        reset="subtract",
        spikes_per_step="many",
        v_min="-threshold",
        bounded="if",
    ),
    # The default of its LIF, `norm_input=True`, which its writer does not write down.
    "sinabs_norm": Dialect(
        dt=1.0, leak="exp", compare="ge", reset="subtract", spikes_per_step="many", gain="one_minus_decay"
    ),
    "spikingjelly": Dialect(compare="ge", start="v_reset"),
    "rockpool": Dialect(
        dt=1e-3,
        leak="exp",
        compare="ge",
        reset="subtract",
        spikes_per_step="many",
        synapse="exp_add",
        rate="reciprocal",
    ),
    # Its CuBaLIF resets before the leak, its LIF after; its writer leads a recurrent layer's input into the weights.
    "spyx": Dialect(dt=1.0, reset="spyx", gain="one", emit="next_step", loop_input="neuron"),
}
"""Dialects of files, by the framework that wrote them."""
SUMMARIES = {
    "spec": "NIR's own equations, reset to a value",
    "stl": "as spec, spikes at v = θ, too",
    "snntorch": "v - θ one step late, snnTorch's default",
    "snntorch_zero": "v = 0 one step late",
    "snntorch_now": "v - θ at once, reset_delay=False",
    "snntorch_zero_now": "v = 0 at once, reset_delay=False",
    "snntorch_none": "no reset",
    "norse": "dt 1e-6, starts at v_leak",
    "sinabs": "dt 1, v - θ, several spikes a step",
    "sinabs_hard": "dt 1, reset to a value, one spike a step",
    "sinabs_reader": "as sinabs, IF stop at -θ",
    "sinabs_norm": "as sinabs, input times 1 - decay",
    "spikingjelly": "spikes at v = θ, too, starts at v_reset",
    "rockpool": "dt 1e-3, v - θ, several spikes a step",
    "spyx": "dt 1, spikes leave one step late",
}
"""Difference of each preset from the others, in a few words."""


def preset(name: object) -> Dialect:
    """Return a preset by name, without regard to case; raise InputError, with a suggestion, if there is none."""
    dialect = PRESETS.get(name.strip().lower()) if isinstance(name, str) else None
    if dialect is None:
        close = did_you_mean(name.lower(), PRESETS) if isinstance(name, str) else ""
        raise InputError(f"expected a dialect preset: {', '.join(PRESETS)}; found {name!r}{close}")
    return dialect


def load_dialect(asked: object, base: Dialect | None = None) -> Dialect:
    """Load a preset by name (see `preset`), a JSON file (`.json`) with the keys of `Dialect`, or a mapping of these.

    base: where a file or mapping takes the keys that it leaves out (see `Dialect.from_mapping`).
    Raises InputError if there is no such preset, or the file or the mapping cannot be read as a dialect.
    """
    if isinstance(asked, Mapping):
        return Dialect.from_mapping(asked, where="the dialect given", base=base)
    path = Path(asked) if isinstance(asked, str | Path) else None
    if path is None or path.suffix.lower() != ".json":
        try:
            return preset(asked)
        except InputError as error:
            raise InputError(f"{error}; or give the path of a .json file") from None
    text = read_text(path, "a dialect's JSON file")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"dialect file {path}: not JSON ({error})") from None
    if not isinstance(data, dict):
        raise InputError(f"dialect file {path}: expected a JSON object; found a {type(data).__name__}")
    return Dialect.from_mapping(data, where=f"dialect file {path}", base=base)
