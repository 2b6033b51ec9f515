"""Plan of the engine: scans and passes in order, and the words of every memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stl_deploy.exporters.verilog.devices import GENERIC, Device
from stl_deploy.graph.program import Node, Shape
from stl_deploy.integers.bounds import Bounds
from stl_deploy.integers.graph import IntegerGraph, IntegerLI, IntegerLIF
from stl_deploy.integers.net import DECAY_ONE, STATE_SHIFT, WIDE, Ints
from stl_deploy.integers.simulate import IntegerRun, values_of

Tap = tuple[int, int]
"""Words of potentials, and words of weights, from where the layer and its weights begin."""
Taps = tuple[tuple[Tap, ...], ...]
"""The taps of each row, or of each column."""
Lanes = NDArray[np.int64]
"""Words ``[N, lanes]``."""


def groups_of(count: int, lanes: int) -> int:
    """Return the number of words for the given number of neurons."""
    return -(-count // lanes)


@dataclass(frozen=True)
class Layout:
    """Positions of a layer's neurons: row, column, and channel last, in words of ``lanes``; channels are padded."""

    channels: int
    height: int
    width: int
    lanes: int

    @property
    def groups(self) -> int:
        """Words of one place."""
        return groups_of(self.channels, self.lanes)

    @property
    def words(self) -> int:
        """Words of the layer."""
        return self.height * self.width * self.groups

    def place(self) -> NDArray[np.int64]:
        """Place (word · lanes + lane) of each neuron, in torch's order."""
        channel, row, column = np.indices((self.channels, self.height, self.width)).reshape(3, -1)
        word = (row * self.width + column) * self.groups + channel // self.lanes
        return np.asarray(word * self.lanes + channel % self.lanes, np.int64)

    def spread(self, values: NDArray[np.int64]) -> Lanes:
        """Values in torch's order as words, 0 where there is no neuron."""
        made = np.zeros(self.words * self.lanes, np.int64)
        made[self.place()] = values.reshape(-1)
        return made.reshape(self.words, self.lanes)


def layout_of(shape: Shape, lanes: int, *, flat: bool = False) -> Layout:
    """Return the layout of a population. flat: in torch's order, as outputs leave."""
    if flat or len(shape) == 1:
        return Layout(int(np.prod(shape)), 1, 1, lanes)
    if len(shape) == 2:
        return Layout(shape[0], 1, shape[1], lanes)
    return Layout(shape[0], shape[1], shape[2], lanes)


@dataclass(frozen=True, eq=False)
class Map:
    """Targets of the events of one source, and their weights.

    outers: input channels, each with ``outer_step`` words of weights. words: of spikes at a place, each with
    ``word_step`` words of weights. groups: words of potentials that a tap reaches.
    """

    rows: Taps
    columns: Taps
    weights: Lanes
    groups: int = 1
    outers: int = 1
    outer_step: int = 0
    words: int = 1
    word_step: int = 0
    shift: int = 0


@dataclass(frozen=True, eq=False)
class Scan:
    """Add a source's events to a layer. source: a population, the input's name, or None: one that always fires.

    to_value: to the potentials of a filtered layer, not to its currents.
    """

    source: str | None
    delay: int
    to: str
    map: Map
    to_value: bool = False


@dataclass(frozen=True, eq=False)
class Pass:
    """A layer's neurons. parameters: words ``[N, lanes]`` of WEIGHT_BITS; begins again after ``repeat`` words.

    most: spikes of a neuron in a step.
    """

    name: str
    layout: Layout
    parameters: Lanes
    repeat: int
    filtered: bool
    spiking: bool
    emits: bool
    soft: bool
    late: bool
    most: int
    keep: int
    filter_keep: int
    by_neuron: bool


@dataclass(frozen=True, eq=False)
class Pool:
    """A max pool of spikes: each neuron takes the most spikes of its window, and keeps no potential.

    map: the places are the pool's own, the weights' addresses those of words of the source's spikes.
    """

    name: str
    layout: Layout
    source: str
    map: Map
    spiking: bool = True


Entry = Scan | Pass | Pool


@dataclass(frozen=True)
class Widths:
    """Bits of what the engine works on; see the parameters of snn_engine.v."""

    weight: int
    state: int
    clip: bool
    threshold: int
    value: int
    bias: int
    keeps: bool
    loads: int
    input: int
    output: int
    output_shift: int
    shift: int
    factor: int
    spikes: int


@dataclass(frozen=True, eq=False)
class Plan:
    """A network for one engine.

    kept_steps: steps whose spikes are kept; kept_inputs: steps whose inputs are.
    """

    graph: IntegerGraph
    lanes: int
    entries: tuple[Entry, ...]
    widths: Widths
    kept_steps: int
    kept_inputs: int
    longest: int
    states: dict[str, int] = field(default_factory=dict)
    """First word of each layer's potentials (currents, if it is filtered)."""
    values: dict[str, int] = field(default_factory=dict)
    """First word of the potentials of filtered layers."""
    spikes: dict[str, int] = field(default_factory=dict)
    """First word of each population's spikes in a step's frame."""
    state_words: int = 0
    frame: int = 0
    device: Device = GENERIC

    @property
    def multipliers(self) -> int:
        """Lanes that multiply in the device's multipliers, not in logic cells."""
        return min(self.lanes, self.device.multipliers) if self.device.multipliers else self.lanes

    @property
    def loaded(self) -> bool:
        """Whether the weights' memory is filled after configuration, from a serial flash."""
        return self.device.loaded

    @property
    def passes(self) -> list[Pass]:
        """The layers with potentials, in order."""
        return [entry for entry in self.entries if isinstance(entry, Pass)]

    @property
    def layers(self) -> list[Pass | Pool]:
        """Layers that spike or emit, in order."""
        return [entry for entry in self.entries if not isinstance(entry, Scan)]

    @property
    def pools(self) -> list[Pool]:
        """The max pools of spikes, in order."""
        return [entry for entry in self.entries if isinstance(entry, Pool)]

    @property
    def scans(self) -> list[Scan]:
        """Scans that add events, in order."""
        return [entry for entry in self.entries if isinstance(entry, Scan)]


def recorded(plan: Plan, x: NDArray[np.int32]) -> IntegerRun:
    """Return the integer model's outputs, and the spikes of each layer whose spikes the engine records."""
    names, output = [layer.name for layer in plan.layers if layer.spiking], plan.graph.output.name
    values = values_of(plan.graph, x, [*names, output])
    return IntegerRun(values[output].astype(np.int32), {name: values[name] for name in names})


def forgets(decay: int | Ints) -> bool:
    """Return whether nothing is kept, so that there is no state to filter with."""
    return isinstance(decay, int) and decay == DECAY_ONE


def bits(largest: int) -> int:
    """Return the bits of a counter or an address that reaches ``largest``, at least 1."""
    return max(1, int(largest).bit_length())


def signed_bits(values: Sequence[int] | NDArray[np.int64]) -> int:
    """Return the bits of signed numbers that hold all ``values``."""
    low, high = int(np.min(values, initial=0)), int(np.max(values, initial=0))
    return 1 + max(high.bit_length(), (-low - 1).bit_length() if low < 0 else 0)


@dataclass(frozen=True)
class Reach:
    """farthest: no state, nor a sum on the way to it, exceeds it. clips: a state could reach its limit."""

    farthest: int
    clips: bool


def reach_of(node: Node, known: Mapping[str, Bounds]) -> Reach:
    """Return the reach of a layer, or of the output's sums."""
    low, high = (value << STATE_SHIFT for value in known[node.name].sums)
    arriving = max(-low, high)
    if not isinstance(node, IntegerLIF | IntegerLI):
        return Reach(arriving, False)
    neuron = node.neuron if isinstance(node, IntegerLIF) else node
    offset = 0 if node.bias is None else int(np.abs(node.bias).max()) << STATE_SHIFT
    current = _series(arriving, neuron.i_decay)
    if current is None or current >= WIDE.u_top:
        return Reach(WIDE.u_top, True)
    put = 0
    if isinstance(node, IntegerLIF):
        given = [v for v in (node.neuron.drop, node.neuron.v_reset) if v is not None]
        put = max((int(np.abs(v).max()) for v in given), default=0) << STATE_SHIFT
    farthest = _series(current + offset + put, neuron.v_decay)
    if isinstance(node, IntegerLIF) and not node.neuron.delayed_reset and node.neuron.drop is None and low >= 0:
        # Never below 0, and what did not fire is at most at its threshold.
        least = 0 if node.bias is None else int(node.bias.min())
        if least >= 0 and node.neuron.v_reset is None:
            top = (int(node.neuron.threshold.max()) << STATE_SHIFT) + current + offset
            farthest = top if farthest is None else min(farthest, top)
    if farthest is None or farthest >= WIDE.v_top:
        return Reach(WIDE.u_top, True)
    return Reach(max(farthest, current), False)


def _series(most: int, decay: int | Ints) -> int | None:
    """Return the sum of ``most`` in every step; None if it grows without end."""
    slowest = int(np.min(decay))
    if most == 0:
        return 0
    # v = k·v + most stays at or below most / (1 - k), the sum of the geometric series.
    return None if slowest == 0 else -(-most * DECAY_ONE // slowest)
