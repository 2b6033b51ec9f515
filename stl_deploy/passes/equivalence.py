"""Check a pass by running the Program before and after it, cut at the neurons and Cells.

Every spiking population gets drawn spikes from those before it, the same on both sides, so each is judged alone. A
whole deep network that is silent on drawn input would prove nothing, nor would a silent neuron about the weights behind
it. The check compares each neuron's potential, in units of its threshold, its spikes, what arrives at each Cell (no
pass rewrites one), and the outputs.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.reachable import reachable
from stl_deploy.errors import GraphError, ParityError
from stl_deploy.graph import neurons
from stl_deploy.graph.cell import Cell
from stl_deploy.graph.exact import Grid, input_grid, largest_sum, random_input, round_to_grid
from stl_deploy.graph.margins import nearest_level
from stl_deploy.graph.program import Conv, Delay, Floats, Input, Linear, Neuron, Node, Output, Pool, Program, Scale
from stl_deploy.graph.run import run
from stl_deploy.passes.base import Exactness, LayerGrid, free
from stl_deploy.passes.permutations import Permutations, arrange

TOLERANCES: Mapping[Exactness, float] = {"bits": 0.0, "real": 2.0**-16, "grid": 2.0**-12}
"""Largest difference of potentials, relative to the threshold or to the largest potential, whichever is more."""
_STEPS, _MOST_STEPS, _RATE = 3, 12, 0.3


@dataclass(frozen=True, eq=False)
class Arrived:
    """A run of a Program cut at its neurons. currents: input of each spiking neuron and Cell; outputs: by name.

    of, cut: the Program, and its drawn input.
    """

    currents: Mapping[str, Floats]
    outputs: Mapping[str, Floats]
    of: Program
    cut: Cut


class Cut:
    """Drawn input and spikes ``[T, 1, *shape]`` for the inputs of a Program and the populations in ``at``.

    None is silent: each of their neurons spikes at least once, and each input is not 0 at least once.
    """

    def __init__(self, program: Program, at: set[str], like: Cut | None = None) -> None:
        """like: an earlier one, whose draws are kept where they would be the same."""
        self.steps, self.metadata = _steps(program), program.metadata
        kept = like.given if like is not None and like.steps == self.steps and like.metadata is self.metadata else {}
        self.given: dict[str, Floats] = {}
        for node in program.nodes:
            size, rng = (self.steps, 1, *node.shape), np.random.default_rng(zlib.crc32(node.name.encode()))
            if node.name not in at and not isinstance(node, Input):
                continue
            if node.name in kept and kept[node.name].shape == size:
                self.given[node.name] = kept[node.name]
            elif isinstance(node, Input):
                grid = input_grid(program.metadata)
                most = 1.0 if grid is None else float(round_to_grid(np.array(grid.bound), grid.fraction_bits))
                self.given[node.name] = _none_silent(random_input(rng, program.metadata, size), most, rng)
            else:
                spikes = (rng.random(size, np.float32) < _RATE).astype(np.float32)
                self.given[node.name] = _none_silent(spikes, 1.0, rng)
                if not np.all(node.fires):
                    graded = rng.standard_normal(size, np.float32).reshape(self.steps, -1)
                    self.given[node.name] = np.where(node.fires, spikes.reshape(self.steps, -1), graded).reshape(size)

    def run(
        self,
        program: Program,
        places: Permutations | None = None,
        *,
        known: Arrived | None = None,
        double: bool = True,
    ) -> Arrived:
        """Run a Program with the populations replaced by the drawn spikes.

        places: of values in another order. known: a run of another Program, whose equal parts are kept. double: add up
        in float64.
        """
        places = places or {}
        given = {name: arrange(values, places.get(name)) for name, values in self.given.items()}
        wanted = [node for node in program.nodes if not isinstance(node, Input)]
        if known is not None and not places:
            changed = self._reached(known, program)
            wanted = [node for node in wanted if node.name in changed]
        ends = {node.name for node in wanted if node.name in given or isinstance(node, Output)}
        nodes, names = dict[str, Node](), {}
        needed = self._before(program, ends)
        for node in program.nodes:
            if node.name in given and node.name in needed:
                nodes[node.name] = Input(name=node.name, shape=node.shape, operands=())
            elif node.name in needed:
                nodes[node.name] = node
            if node.name in given and node.name in ends:
                names[free(program.by_name, f"{node.name}'")] = node
        for name, node in names.items():
            nodes[name] = replace(node if isinstance(node, Neuron) else _end(node), name=name)
        part = Program(tuple(nodes.values()), program.dt, {})
        arrived_at: dict[str, Floats] = {}

        def observe(node: Node, arrived: Floats, _: Floats) -> None:
            if node.name in names:
                arrived_at[names[node.name].name] = arrived

        x = {node.name: given[node.name] for node in part.inputs}
        outputs = run(part, x, observe=observe, double=double).outputs if nodes else {}
        if known is not None and not places:
            arrived_at = {name: values for name, values in known.currents.items() if name in given} | arrived_at
            outputs = {**known.outputs, **outputs}
        return Arrived(arrived_at, outputs, program, self)

    def _reached(self, known: Arrived, program: Program) -> set[str]:
        """Return the nodes with another input or computation than in the known run."""
        was, before = known.cut.given, known.of.by_name
        moved, changed = set(), []
        for node in program.nodes:
            name, same = node.name, before.get(node.name)
            if name in self.given:
                differs = self.given[name] is not was.get(name)
                moved |= set() if name in known.currents and same and same.operands == node.operands else {name}
            else:
                differs = same is not node or name in was
                moved |= {name} if differs else set()
            changed += [name] if differs else []

        def readers(name: str) -> list[str]:
            return [reader.name for reader in program.readers[name]]

        behind = [reader for name in changed for reader in readers(name)]
        return moved.union(reachable(behind, lambda name: [] if name in self.given else readers(name)))

    def _before(self, program: Program, ends: set[str]) -> set[str]:
        """Return the nodes that ``ends`` are computed from, back to the given values."""

        def sources(name: str) -> list[str]:
            return [source.node for source in program.by_name[name].operands]

        first = [source for end in ends for source in sources(end)]
        before = reachable(first, lambda name: [] if name in self.given else sources(name))
        return (ends - self.given.keys()).union(before)


def _none_silent(values: Floats, most: float, rng: np.random.Generator) -> Floats:
    """Return ``[T, B, *shape]`` with ``most`` at a drawn step and sample of each all-zero element."""
    flat = values.reshape(values.shape[0] * values.shape[1], -1)
    silent = np.flatnonzero(~flat.any(axis=0))
    flat[rng.integers(len(flat), size=silent.size), silent] = most
    return flat.reshape(values.shape)


def _steps(program: Program) -> int:
    delays = [source.delay for node in program.nodes for source in node.operands]
    delays += [int(node.steps.max(initial=0)) for node in program.of(Delay)]
    return min(_STEPS + max(delays, default=0), _MOST_STEPS)


def cut_at(before: Program, after: Program) -> set[str]:
    """Return the spiking populations and Cells of both."""
    names = ({node.name for node in (*program.spiking, *program.of(Cell))} for program in (before, after))
    return set.intersection(*names)


def _end(cell: Node) -> Cell:
    """Return a Cell that takes what another one takes, and computes nothing, so that nothing diverges."""
    assert isinstance(cell, Cell)
    shape = cell.operand_shapes[0]
    bare: dict[str, Any] = {"states": (), "constants": (), "operations": ()}
    return replace(cell, shape=shape, outputs=cell.names[:1], output_shapes=(shape,), **bare)


def require_equivalent(
    before: Program,
    after: Program,
    *,
    by: str,
    exactness: Exactness = "real",
    places: Permutations | None = None,
    grids: Sequence[LayerGrid] = (),
    known: Arrived | None = None,
) -> Arrived | None:
    """Raise ParityError (pass, neuron, step) if a pass changed more than its exactness explains.

    places: of values reordered by it. grids: how far weights were rounded on purpose. known: a run
    of ``before`` from the check of the pass before this one. Returns the run of ``after`` for the next.
    """
    places, at = places or {}, cut_at(before, after)
    try:
        expected = Cut(before, at, None if known is None else known.cut).run(before, known=known)
    except GraphError:  # it diverges on drawn spikes, whatever the pass did
        return None
    actual = expected.cut.run(after, places, known=expected)
    judged = _Judge(before, by, TOLERANCES[exactness], {grid.node: grid for grid in grids})
    for name, current in expected.currents.items():
        neuron, same = before.by_name[name], after.by_name[name]
        if isinstance(neuron, Cell):
            judged.cell(neuron, same, current, actual.currents[name])
            continue
        assert isinstance(neuron, Neuron)
        assert isinstance(same, Neuron)
        if neuron is same and current is actual.currents[name]:
            continue
        judged.neuron(neuron, same, current, actual.currents[name], places.get(name))
    for name, values in expected.outputs.items():
        judged.output(name, values, actual.outputs[name].reshape(values.shape))
    return None if places else actual


class _Judge:
    def __init__(self, before: Program, by: str, tolerance: float, grids: Mapping[str, LayerGrid]) -> None:
        self.before, self.by, self.tolerance, self.grids = before, by, tolerance, grids

    def cell(self, before: Cell, after: Node, expected: Floats, found: Floats) -> None:
        """Compare what arrives at a Cell that both Programs have."""
        kept = (getattr(before, f.name) is getattr(after, f.name) for f in fields(before) if f.name != "operands")
        if not all(kept):
            raise ParityError(f"pass {self.by}: Cell '{before.name}' was rewritten")
        self.output(before.name, expected, found, "what arrives at")

    def output(self, name: str, expected: Floats, found: Floats, what: str = "output") -> None:
        moved = sum(_error(self.before, source.node, self.grids) for source in self.before.by_name[name].operands)
        most = self.tolerance * max(1.0, float(np.abs(expected).max(initial=0))) + moved
        wrong = np.abs(found.astype(np.float64) - expected) > most
        if wrong.any():
            step, sample, *at = (int(i) for i in np.argwhere(wrong)[0])
            raise ParityError(
                f"pass {self.by}: {what} '{name}' at step {step}, sample {sample}, {at}: expected "
                f"{expected[step, sample, *at]:g}, found {found[step, sample, *at]:g}"
            )

    def neuron(
        self, before: Neuron, after: Neuron, expected: Floats, found: Floats, place: NDArray[np.int64] | None
    ) -> None:
        """Step both populations side by side until their spikes part as rounding explains."""
        states = neurons.NeuronState(before, expected.shape[1]), neurons.NeuronState(after, found.shape[1])
        moved = _moved(self.before, before, self.grids, frozenset())
        parted = np.zeros(found.shape[1:], bool)
        largest = 0.0
        for step, (x, y) in enumerate(zip(expected, found, strict=True)):
            states[0].charge(x)
            states[1].charge(y)
            u, spare, spikes = (_ordered(values, place) for values in _released(states[0], bool(self.tolerance)))
            w, _, others = _released(states[1], bool(self.tolerance))
            largest = max(largest, float(np.abs(u[~parted]).max(initial=0)))
            most = self.tolerance * max(1.0, largest) + moved / _unit(before)
            wrong = np.abs(u - w) > most
            if self.tolerance:
                wrong |= (spikes != others) & (spare > most)
            else:
                wrong |= spikes != others
            wrong &= ~parted
            if wrong.any():
                self._refuse(after.name, step, wrong, (spikes, others), (u, w))
            # One was reset and the other not: from here on their potentials say nothing about the pass.
            parted |= spikes != others

    def _refuse(self, name: str, step: int, wrong: NDArray[np.bool_], spikes: Any, potentials: Any) -> None:
        sample, *at = (int(i) for i in np.argwhere(wrong)[0])
        (s, t), (u, w) = ([array[sample, *at] for array in pair] for pair in (spikes, potentials))
        raise ParityError(
            f"pass {self.by}: neuron {at} of '{name}' at step {step}, sample {sample}: expected spike {s:g}, found "
            f"{t:g}; its potential is {u:g} before the pass and {w:g} after it"
            + " (in thresholds)"
            * bool(self.tolerance)
        )


def _unit(node: Neuron) -> float:
    assert node.threshold is not None
    sizes = np.abs(node.threshold[node.threshold != 0] if node.threshold.ndim else node.threshold)
    return float(sizes.min(initial=np.inf)) if sizes.size and sizes.min() > 0 else 1.0


def _released(state: neurons.NeuronState, in_units: bool) -> tuple[NDArray[np.float64], NDArray[np.float64], Floats]:
    """Return potentials, their distances from the nearest level at which spikes change, and spikes; advance the state.

    in_units: of the threshold θ (of 1 if that is 0), moved so that a spike is where they pass 1, also while θ adapts.
    """
    theta = state.node.threshold
    assert theta is not None
    potentials = state.v.astype(np.float64)
    spare = np.abs(potentials - nearest_level(state))
    if in_units:
        unit = np.where(theta == 0, 1.0, theta)
        potentials, spare = (potentials - state.threshold) / unit + 1.0, spare / np.abs(unit)
    out = np.empty_like(state.v)
    state.release(out)
    return potentials, spare, out


def _ordered(values: Any, place: NDArray[np.int64] | None) -> Any:
    return values if place is None else arrange(values[None], place)[0]


def _moved(program: Program, neuron: Neuron, grids: Mapping[str, LayerGrid], path: frozenset[str]) -> float:
    """Bound the change of a potential by rounded weights, with equal inputs."""
    steps = _steps(program)
    arriving = sum(_error(program, source.node, grids, path) for source in neuron.operands)
    decay = 0.0 if neuron.decay is None else float(np.max(neuron.decay))
    kept = steps if decay >= 1 else min(steps, 1 / (1 - decay))
    if neuron.synapse is not None:
        kept *= steps
    return float(arriving * kept * (1.0 if neuron.gain is None else np.abs(neuron.gain).max()))


def _error(program: Program, name: str, grids: Mapping[str, LayerGrid], path: frozenset[str] = frozenset()) -> float:
    """Return the largest difference of a node's output due to rounded weights before it, with equal spikes.

    path: nodes that the search came through; in a loop without spikes there is no bound.
    """
    node = program.by_name[name]
    if not grids or isinstance(node, Input | Cell) or (isinstance(node, Neuron) and node.spiking):
        return 0.0
    if name in path:
        return float("inf")
    path |= {name}
    if isinstance(node, Neuron):
        return _moved(program, node, grids, path)
    before = sum(_error(program, source.node, grids, path) for source in node.operands)
    if isinstance(node, Linear | Conv):
        passed = before * largest_sum(node.weight, None, Grid(0, 1)) if before else 0.0
        # Weights of a population's own spikes are rounded together with those on its way in, which have the grid.
        loops = [r for r in program.readers[name] if any(source.node == r.name for source in node.operands)]
        beside = [source.node for reader in loops for source in reader.operands]
        rounded = [name] if name in grids else [each for each in beside if each in grids]
        change = max((grids[each].largest_change for each in rounded), default=0.0)
        fan_in = node.weight[0].size
        bound = max((grid.bound for grid in [input_grid(program.metadata)] if grid is not None), default=1.0)
        return float(passed + change * (fan_in * max(1.0, bound) + 1))
    if isinstance(node, Pool):
        return before * float(np.prod(node.kernel)) / node.divisor
    return before * (float(np.abs(node.scale).max()) if isinstance(node, Scale) else 1.0)
