"""Extract one step out of many: the shift map.

The operations of the output at step t are matched with those at step t-1, one by one. Nodes that match are
one *signal* at two steps; chains of them reach back to where the signal starts: its initial state. The graph of one
step has a node for each signal, and an edge with lag d where it reads what another one was d steps ago.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, TypeVar

from torch import Tensor

from stl_deploy._util.reachable import reachable
from stl_deploy._util.units import counted
from stl_deploy.errors import CaptureError
from stl_deploy.tracing.recording.operations import COMPARES, map_tree
from stl_deploy.tracing.recording.source_lines import in_module
from stl_deploy.tracing.recording.watched import leaves
from stl_deploy.tracing.unrolling.layout import Sizes
from stl_deploy.tracing.unrolling.nodes import MOVED, Node, replace_nodes

V = TypeVar("V")
FEWEST = 3
"""Time steps that tell what repeats from how it starts."""


@dataclass(frozen=True)
class Ref:
    """A signal ``lag`` steps ago."""

    signal: Signal
    lag: int


@dataclass(eq=False, repr=False)  # a repr would write out all that it reads, again and again
class Signal:
    """Output of one operation at every step.

    node: the operation at the last step. args, kwargs: with Refs to signals in the place of nodes, constants as nodes.
    before: its values at the steps -1, -2, ... (constants), as far as they are read. first: how step 0 makes it, if
    otherwise than the steps after. still: it is the same at every step.
    """

    node: Node
    args: Any = ()
    kwargs: Any = None
    before: tuple[Node, ...] = ()
    first: Node | None = None
    still: bool = False

    def reads(self) -> list[Ref]:
        """Return its source signals, in order."""
        return [item for item in leaves((self.args, self.kwargs)) if isinstance(item, Ref)]

    def made_of(self, read: Callable[[Ref], Any], sizes: Sizes) -> Tensor:
        """Return its value at a step, by torch's own kernel; ``read`` returns those of its sources."""
        tree = map_tree((self.args, self.kwargs), Ref, read)
        args, kwargs = replace_nodes(tree, lambda node: node.value)
        return self.node.run(args, kwargs, sizes)


class SignalError(CaptureError):
    """A signal has no form among neurons and layers; the message names its line."""

    def __init__(self, signal: Signal, reason: str) -> None:
        super().__init__(reason, line=signal.node.place.line)
        self.signal = signal


class NoNeuronError(SignalError):
    """A state's update, or what reads it, is none of a neuron's: a Cell holds it."""

    def __init__(self, signal: Signal) -> None:
        super().__init__(signal, f"the neuron{in_module(signal.node.place)} has no form that a graph holds")


def _all_of(node: Node, read: Callable[[Node], list[Signal]]) -> list[Signal]:
    return [signal for source in node.inputs for signal in read(source)]


DELAYS = (
    "delays d of channels i of s [T, B, channels]: torch.stack([F.pad(s[..., i], (0, 0, d, 0))[:T] for i, d in "
    "enumerate(delays)], -1)"
)
"""The form in which delays by channel are captured."""


@dataclass
class Steps:
    """The graph of one step: signals in an order in which each comes after those that it reads without lag."""

    signals: tuple[Signal, ...]
    output: Ref
    of_node: dict[Node, tuple[Signal, int]] = field(default_factory=dict)

    def at_first(
        self,
        reader: Signal,
        node: Node,
        read: Callable[[Signal, int], V | None],
        make: Callable[[Node, Callable[[Node], V]], V],
    ) -> V:
        """Return what a node is to the other form of a signal's first step.

        read: what another signal is in a step, if that is known; make: what any other node is, from its sources.
        """
        signal, step = self.of_node.get(node, (reader, 0))
        known = None if signal is reader else read(signal, step)
        return make(node, lambda source: self.at_first(reader, source, read, make)) if known is None else known

    def first_reads(self, signal: Signal) -> list[Signal]:
        """Return the signals of step 0 that the other form of a signal's first step reads."""
        if signal.first is None:
            return []
        return self.at_first(signal, signal.first, lambda read, step: [read], _all_of)

    def all_reads(self, signal: Signal) -> list[Signal]:
        """Return the signals that a signal reads in any step."""
        return [ref.signal for ref in signal.reads()] + self.first_reads(signal)


def fold_steps(outputs: Sequence[Node]) -> Steps:
    """Return one step of the operations behind ``outputs``, one node for each time step.

    Raises CaptureError where a step does something else than the one before it.
    """
    if len(outputs) < FEWEST:
        raise CaptureError(
            f"the output has {counted(len(outputs), 'time step')}; at least {FEWEST} are needed to tell what repeats"
        )
    if all(node.constant for node in outputs):
        raise no_input(len(outputs))
    return _Folding(outputs).steps()


def no_input(steps: int) -> CaptureError:
    """Return the refusal of an output that is the same for all input."""
    return CaptureError(
        f"the output does not depend on the input in {counted(steps, 'step')} (is it delayed by more, or computed "
        "outside of torch, by numpy?)"
    )


class _Folding:
    def __init__(self, outputs: Sequence[Node]) -> None:
        self.outputs = outputs
        self.earlier: dict[Node, Node] = {}
        self.start: dict[Node, Node] = {}
        self.equal: dict[Node, Node] = {}
        """Constants that are others' for other readers: delayed spikes for their neuron, and for the output."""
        self.steady: set[Node] = set()
        """Constants that the step before had, too."""
        self.leading = next(t for t, node in enumerate(outputs) if not node.constant)
        """Outputs of the first steps that are constants, whose neurons are all still as they started."""
        for t in range(len(outputs) - 1, 0, -1):
            if t >= self.leading or _equal(outputs[t], outputs[t - 1]):
                self._match(outputs[t], outputs[t - 1])
        self.depths: dict[Node, int | None] = {}
        self.shared = {node for node, times in Counter(self.earlier.values()).items() if times > 1}
        """Nodes that stood for several signals at first: two decays of a state that is still 0 are one operation."""
        self._check_starts()

    @cached_property
    def arises(self) -> dict[Node, int]:
        """The first output that each node is behind."""
        first: dict[Node, int] = {}
        for t, output in enumerate(self.outputs):
            waiting = [output]
            while waiting:
                node = waiting.pop()
                if node not in first:
                    first[node] = t
                    waiting += node.inputs
        return first

    def _match(self, later: Node, sooner: Node) -> None:
        work = [(later, sooner, later)]
        while work:
            a, b, reader = work.pop()
            # Equal constants end the walk: they are weights, or states that nothing has reached yet.
            if a.constant and b.constant and (a is b or _equal(a, b)):
                self.steady.add(a)
                continue
            if a is b and a is not reader and 0 <= a.latest < len(self.outputs) - 1:
                of, instead = f"'{_called(a)}'", ""
                if a.name == "input":
                    of, instead = "x", ": apply to x before capture what several steps read of one"
                raise CaptureError(
                    f"'{_called(reader)}' reads step {a.latest} of {of} in several steps; a graph reads this step and "
                    f"those a number of steps before{instead}",
                    line=reader.place.line,
                )
            if a is b or self.earlier.get(a) is b or self.start.get(a) is b:
                continue
            if a in self.earlier or a in self.start:
                known = self.earlier.get(a) or self.start[a]
                if known.constant and b.constant and _equal(known, b):
                    self.equal[known] = b
                    continue
                raise self._unequal(a, b, reader)
            if a.constant and b.constant:
                before = self.earlier.get(reader)
                if before is not None and before.constant:  # nothing has arrived: each step has its own number
                    continue
                raise self._unequal(a, b, reader)
            inner = None if _is_an_input(b, a) else _arguments(a, b)
            if inner is None:
                self.start[a] = b
                work += [(x, y, a) for x, y in _alike_inputs(a, b) if self.arises[x] > self.arises[y]]
            else:
                self.earlier[a] = b
                work += [(x, y, a) for x, y in inner]

    def _unequal(self, a: Node, b: Node, reader: Node) -> CaptureError:
        if a.name == b.name == "input":
            line = reader.place.line or next((n.place.line for n in self.earlier if a in n.inputs), None)
            return CaptureError(
                "the model reads x at another rate, or in another order, than step by step; a graph reads step t of x "
                "in step t: give capture an x of one entry for each step, or delay it by F.pad over time",
                line=line,
            )
        differing, line = reader if a.constant else a, a.place.line or reader.place.line or b.place.line
        before = self.earlier.get(differing)
        of_one = before is not None and _signals(before) == _signals(differing)  # parts of what all steps make
        if of_one and differing.latest >= 0:
            return _reads_later(differing)
        if differing.name in ("cat", MOVED) and not of_one:
            return CaptureError(
                f"'{_called(differing)}' takes other parts at some steps than at others; take the same at every step "
                f"({DELAYS})",
                line=line,
            )
        if a.constant and b.constant and reader.name in COMPARES:
            return CaptureError(
                f"'{_called(reader)}' does not do the same at every step: it compares with other numbers at some (a "
                "threshold chosen by the step, or raised by spikes of before the last step?); compare with one "
                "threshold, or let spikes of the last step raise it: theta = rho * theta + c + k * s",
                line=reader.place.line or a.place.line or b.place.line,
            )
        from_numbers = ", and let states start from tensors (torch.zeros_like)" if self.start else ""
        return CaptureError(
            f"'{_called(differing)}' does not do the same at every step (a weight, a norm or a "
            f"branch chosen by the step?); a graph has one step that repeats: use the same at every step{from_numbers}",
            line=line,
        )

    def depth(self, node: Node) -> int | None:
        """Return the step in which a node is first known; None if it is the same at every step."""
        order, begun = [node], set[Node]()
        while order:
            top = order[-1]
            if top in self.depths:
                order.pop()
                continue
            needs = [n for n in self._needs(top) if n not in self.depths]
            if needs and top in begun:
                placed = next((pending for pending in reversed(order) if pending.place.line), top)
                raise CaptureError(
                    f"'{_called(placed)}' needs what a later step makes (x[t - 1] at step 0 is the last of x?); a "
                    "graph reads this step and earlier ones: let step 0 start from zeros",
                    line=placed.place.line,
                )
            if needs:
                begun.add(top)
                order += needs
                continue
            self.depths[top] = self._depth(top)
            order.pop()
        return self.depths[node]

    def _needs(self, node: Node) -> list[Node]:
        if node.constant:
            return []
        back = [before for before in (self.earlier.get(node), self.start.get(node)) if before is not None]
        return [*node.inputs, *back]

    def _depth(self, node: Node) -> int | None:
        if node.constant:
            return None
        if node.name == "input":
            return node.args[0]  # type: ignore[no-any-return]
        known = [d for n in node.inputs if (d := self.depths[n]) is not None]
        back = self.earlier.get(node)
        if back is not None:
            before = self.depths[back]
            known.append(int(not back.constant) if before is None else before + 1)
        back = self.start.get(node)
        if back is not None:
            before = self.depths[back]
            known.append(0 if back.constant else (before or 0) + 1)
        return max(known, default=None)

    def _check_starts(self) -> None:
        for a, b in self.start.items():
            if not b.constant and (self.depth(b) or 0) > 0:
                raise _reads_later(b) if b.latest == a.latest >= 0 else self._unequal(a, b, a)

    def steps(self) -> Steps:
        """Return the graph of one step."""
        made: dict[Node, Signal] = {}
        roots: dict[Node, Node] = {}

        def root(node: Node) -> Node:
            """The first of a node's chain that is no constant, and of no other chain."""
            path = []
            while node not in roots:
                path.append(node)
                back = self.earlier.get(node)
                if back is None or back.constant or back in self.shared:
                    roots[node] = node
                    break
                node = back
            for visited in path:
                roots[visited] = roots[node]
            return roots[node]

        waiting = [self.outputs[-1]]
        while waiting:
            node = waiting.pop()
            if root(node) not in made:
                made[root(node)] = Signal(node, still=self.depth(node) is None)
                waiting += [n for n in node.inputs if not n.constant]
        for signal in made.values():
            signal.args, signal.kwargs = replace_nodes(
                (signal.node.args, dict(signal.node.kwargs)),
                partial(self._argument, signal.node, lambda n: made[root(n)]),
            )
        last = self.outputs[-1]
        depth = self.depth(last)
        lag = 0 if depth is None else len(self.outputs) - 1 - depth
        if lag < 0:
            if self.outputs[-2].latest == last.latest:
                raise _reads_later(last)
            raise CaptureError(
                f"the model runs {counted(-lag, 'step')} before the first of x; a graph runs one for each step of x",
                line=last.place.line,
            )
        output = Ref(made[root(last)], lag)
        latest: dict[Signal, int] = {}
        for ref in (output, *(ref for signal in made.values() for ref in signal.reads())):
            latest[ref.signal] = max(ref.lag, latest.get(ref.signal, 0))
        for key, signal in made.items():
            self._add_start(signal, key, latest.get(signal, 0))
        if 0 < lag == self.leading and root(last) is self.outputs[lag]:
            output.signal.before = tuple(reversed(self.outputs[:lag]))
        if not output.signal.still and len(output.signal.before) < output.lag:
            raise CaptureError(
                f"the last output, '{_called(last)}', is that of an earlier step, and nothing is known before step 0: "
                "one time step is repeated over the others, or the first steps are left out; return every step",
                line=last.place.line,
            )
        known = {n: (made[r], self.depths.get(n) or 0) for n, r in roots.items() if r in made}
        for node, back in self.earlier.items():
            if back in self.shared and node in known:
                known.setdefault(back, (known[node][0], self.depths.get(back) or 0))
        return Steps(in_order(made.values(), read_now), output, known)

    def _argument(self, reader: Node, signal_of: Callable[[Node], Signal], node: Node) -> Node | Ref:
        return node if node.constant else self._ref(signal_of(node), reader, node)

    def _ref(self, read: Signal, reader: Node, node: Node) -> Ref:
        at, then = self.depth(reader), self.depth(node)
        lag = 0 if then is None or at is None else at - then
        if lag < 0:
            raise _reads_later(reader)
        return Ref(read, lag)

    def _add_start(self, signal: Signal, chain_root: Node, lag: int) -> None:
        """Add a signal's start, which is read up to ``lag`` steps late."""
        before: list[Node] = []
        node = chain_root
        earlier = self.earlier.get(node) or self.start.get(node)
        if earlier is not None and (not earlier.constant or self.depth(node) == 1):
            signal.first = earlier
            return
        while earlier is not None and earlier.constant:
            before.append(earlier)
            earlier = self.earlier.get(earlier) or self.start.get(earlier)
        if before and not self.steady.isdisjoint((before[-1], self.equal.get(before[-1]))):
            before += before[-1:] * (lag - len(before))
        signal.before = tuple(before)


def _signals(node: Node) -> list[Node]:
    return [source for source in node.inputs if not source.constant]


def _reads_later(reader: Node) -> CaptureError:
    return CaptureError(
        f"'{_called(reader)}' depends on what comes in a later step; a graph reads this step and earlier ones: delay "
        "all else, by F.pad over time, and apply to x before capture what is made of all steps (a mean over time)",
        line=reader.place.line,
    )


def _arguments(a: Node, b: Node) -> list[tuple[Node, Node]] | None:
    """Return the arguments of two equal operations in pairs; None if the operations differ."""
    if a.name != b.name or a.name == "constant" or a.dtype != b.dtype or a.index != b.index:
        return None
    if a.name == "input":
        return [] if a.args[0] is None or a.args[0] == b.args[0] + 1 else None
    first, second = a.inputs, b.inputs
    left = replace_nodes((a.args, dict(a.kwargs)), lambda n: ...)
    right = replace_nodes((b.args, dict(b.kwargs)), lambda n: ...)
    if repr(left) != repr(right) or len(first) != len(second):
        return None
    if a.name == "reshape" and a.layout != b.layout:
        return None
    return list(zip(first, second, strict=True))


def _is_an_input(sooner: Node, later: Node) -> bool:
    """Whether a first step is what later ones add to: ``v = x[0]`` beside ``v = 0.5 * v + x[t]``, of sums ``x[t]``."""
    return sooner.place != later.place and any(_are_alike(x, sooner) for x in later.inputs)


def _alike_inputs(later: Node, sooner: Node) -> list[tuple[Node, Node]]:
    """Return common inputs of a first step that differs (``v + x`` and ``x``): the same line's same operation."""
    near, far = ([sooner, *sooner.inputs], later.inputs), (_behind([sooner]), list(_behind(later.inputs)))
    alike = _alike(*near) or _alike(*far)
    if len(_pairs(alike)) < len(alike):  # one line, or one function, makes both a current and a potential
        alike = [(x, y) for x, y in alike if shifts(x, y, {})]
    return _pairs(alike)


def _alike(sooner: Iterable[Node], later: Iterable[Node]) -> list[tuple[Node, Node]]:
    return [(x, y) for y in sooner for x in later if x is not y and _are_alike(x, y)]


def _behind(nodes: Sequence[Node]) -> Iterable[Node]:
    """Return nodes and what is behind their elementwise operations: ``i`` of ``0.9 * v + 0.1 * i``."""
    return reachable(nodes, lambda node: node.inputs if node.pointwise else ())


def _are_alike(x: Node, y: Node) -> bool:
    """Return whether nodes are of one line of code, or layers of the same weights."""
    if (x.name, x.layout) != (y.name, y.layout) or x.constant or y.constant:
        return False
    weights = [node for node in x.inputs if node.constant]
    layers = not x.pointwise and weights and weights == [node for node in y.inputs if node.constant]
    return x.place == y.place or bool(layers)


def _pairs(matches: Sequence[tuple[Node, Node]]) -> list[tuple[Node, Node]]:
    """Return the pairs of which neither element is in another pair, too."""
    later, sooner = Counter(x for x, _ in matches), Counter(y for _, y in matches)
    return [(x, y) for x, y in matches if later[x] == sooner[y] == 1]


def shifts(x: Node, y: Node, known: dict[tuple[Node, Node], bool], levels: int = 8) -> bool:
    """Return whether ``x`` is ``y`` one step later, judged by a limited number of operations before them."""
    if x.constant or y.constant:
        return y.constant
    if (x, y) not in known:
        known[x, y] = _shift_inputs(x, y, known, levels)
    return known[x, y]


def _shift_inputs(x: Node, y: Node, known: dict[tuple[Node, Node], bool], levels: int) -> bool:
    if x.name == "input" or y.name == "input":
        return _arguments(x, y) is not None
    if not _are_alike(x, y):
        return False
    if not levels:
        return True
    inner_shifts = partial(shifts, known=known, levels=levels - 1)
    inner = _arguments(x, y)
    if inner is not None:
        return all(inner_shifts(*pair) for pair in inner)
    read = [node for node in y.inputs if not node.constant]
    return any(inner_shifts(late, y) for late in x.inputs) or all(
        any(inner_shifts(late, early) for late in x.inputs) for early in read
    )


def _equal(a: Node, b: Node) -> bool:
    x, y = a.tensor, b.tensor
    assert x is not None
    assert y is not None
    if x.dtype != y.dtype:
        return False
    try:
        unequal = (x != y) & ~((x != x) & (y != y))
    except RuntimeError:
        return False
    return not bool(unequal.any())


def _called(node: Node) -> str:
    return f"{node.called}' in '{node.place.module}" if node.place.module else node.called


def in_order(signals: Iterable[Signal], before: Callable[[Signal], Iterable[Signal]]) -> tuple[Signal, ...]:
    """Return signals, each after those that are ``before`` it."""
    done: dict[Signal, None] = {}
    for start in signals:
        path = [start]
        while path:
            missing = next((signal for signal in before(path[-1]) if signal not in done), None)
            if path[-1] in done or missing is None:
                done[path.pop()] = None
            elif missing in path:
                raise CaptureError("a signal depends on itself within one step")
            else:
                path.append(missing)
    return tuple(done)


def read_now(signal: Signal) -> Iterator[Signal]:
    """Yield the signals that a signal reads in its own step."""
    return (ref.signal for ref in signal.reads() if not ref.lag)
