"""Eliminate permutations, slices, repeats, and reshapes that NIR cannot express.

NIR can only flatten. A rearrangement P moves towards its readers: a neuron behind it becomes the same neuron with
permuted parameters, n(P·x) = P·n'(x); weights absorb it, W·(P·x) = (W·P)·x; two in a row combine, and P⁻¹·P vanishes.
A rearranged input moves into the graph's input. Where nothing absorbs P, weights of 0 and 1 replace it, or the next
layer becomes its matrix. P stays before a max pool: NIR has no node for that pool, and targets that support the pool
support P. All stay in networks that multiply signals, have Cells, in which they would move in a circle, or in which
weights in their place would be more than `MAX_DENSE`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from math import prod

import numpy as np

from stl_deploy.graph import program as ir
from stl_deploy.graph.convolutions import pointwise
from stl_deploy.passes.base import Nodes, Pass, Rewritten, free, later, read_instead, readers_of, with_nodes
from stl_deploy.passes.permutations import (
    Indices,
    arranged_fields,
    as_gather,
    bijective,
    channel_map,
    columns,
    dense,
    flattens,
    inverse,
    keeps_order,
    repeats,
    selection,
)

_ROUNDS = 64
"""Times that a rearrangement may pass each layer before it counts as going round in a circle."""


def rearrange(layers: Nodes) -> tuple[Nodes, dict[str, Indices]]:
    """Remove rearrangements; return the layers, and each reordered neuron's and input's former places."""
    layers = {name: as_gather(node) or node for name, node in layers.items()}
    rounds = _ROUNDS * len(layers)
    if not any(node.combine == "flat" for node in layers.values()):
        work = _Work(dict(layers), stay=False)
        with suppress(OverflowError):
            if work.done(rounds):
                return work.layers, work.arranged
    # Or the axes of a loop change at every step, the same spikes are read in two orders, or weights are too many.
    work = _Work(dict(layers), stay=True)
    work.done(rounds)
    return work.layers, work.arranged


class _Work:
    """The layers under way. stay: NIR cannot hold the network, so what does not vanish stays where it is."""

    def __init__(self, layers: Nodes, *, stay: bool) -> None:
        self.layers, self.stay = layers, stay
        self.arranged: dict[str, Indices] = {}
        self.kept: set[str] = set()
        """Rearrangements that stay."""
        self.selected: set[str] = set()
        """Those that weights do the work of; one that is left is taken in by nothing."""
        self.moves: tuple[Callable[[ir.Gather], bool], ...] = (
            self._unread,
            self._nothing,
            self._behind_another,
        )
        if stay:
            return
        self.moves += (
            self._into_input,
            self._before_a_reshape,
            self._into_weights,
            self._pointwise,
            self._behind_a_neuron,
            self._out_of_output,
            self._into_rows,
            self._matrix,
        )

    def done(self, rounds: int) -> bool:
        """Move rearrangements until none is left that does not stay; return False where they go round in a circle."""
        for _ in range(rounds):
            gathers = [
                node for node in self.layers.values() if isinstance(node, ir.Gather) and node.name not in self.kept
            ]
            if not gathers:
                return True
            if any(move(gather) for gather in gathers for move in self.moves):
                continue
            staying = [gather for gather in gathers if self.stays(gather)]
            if staying:
                self.keep(staying[-1])
            elif gathers[-1].name in self.selected:
                return False
            else:
                self.selected.add(gathers[-1].name)
                self.select(gathers[-1])
        return False

    def _readers(self, name: str) -> list[ir.Node]:
        return readers_of(self.layers, name)

    def _bypass(self, name: str, sources: tuple[ir.Operand, ...]) -> None:
        """Let readers of ``name`` read ``sources``."""
        for reader in self._readers(name):
            self._read(reader, name, sources)
        self.layers.pop(name, None)

    def _read(self, reader: ir.Node, name: str, sources: tuple[ir.Operand, ...]) -> None:
        read_instead(self.layers, reader.name, name, sources)

    def _unread(self, gather: ir.Gather) -> bool:
        if self._readers(gather.name):
            return False
        del self.layers[gather.name]
        return True

    def _nothing(self, gather: ir.Gather) -> bool:
        """Handle values that stay in their order: nothing, or a flattening."""
        if not keeps_order(gather):
            return False
        if gather.shape == gather.input_shape:
            self._bypass(gather.name, gather.operands)
            return True
        if not flattens(gather.input_shape, gather.shape):
            return False
        self._reshape(gather)
        return True

    def _behind_another(self, gather: ir.Gather) -> bool:
        """Merge two consecutive rearrangements."""
        if len(gather.operands) != 1:
            return False
        (source,) = gather.operands
        before = self.layers[source.node]
        if isinstance(before, ir.Reshape):
            first = np.arange(prod(before.shape))
        elif isinstance(before, ir.Gather) and before is not gather:
            first = before.indices.reshape(-1)
        else:
            return False
        at = gather.indices
        self.layers[gather.name] = replace(
            gather,
            operands=later(before.operands, source.delay),
            indices=np.where(at < 0, -1, first[at]),
            input_shape=before.input_shape,
        )
        if not self._readers(before.name):
            del self.layers[before.name]
        return True

    def _into_input(self, gather: ir.Gather) -> bool:
        """Reorder an input that is read in one other order only."""
        (source, *others) = gather.operands
        given = self.layers[source.node]
        readers = self._readers(given.name)
        alike = all(isinstance(r, ir.Gather) and np.array_equal(r.indices, gather.indices) for r in readers)
        if others or not isinstance(given, ir.Input) or not alike or not bijective(gather):
            return False
        if given.shape == gather.shape and not np.array_equal(gather.indices.reshape(-1), np.arange(prod(given.shape))):
            return False  # nobody could tell input of one order from that of the other
        self._reorder(given.name, gather.indices)
        self.layers[given.name] = replace(given, shape=gather.shape)
        for reader in readers:
            self._bypass(reader.name, reader.operands)
        return True

    def _before_a_reshape(self, gather: ir.Gather) -> bool:
        """Merge a rearrangement and the flattening behind it."""
        readers = [r for r in self._readers(gather.name) if isinstance(r, ir.Reshape) and len(r.operands) == 1]
        for reader in readers:
            self.layers[reader.name] = replace(
                gather,
                name=reader.name,
                shape=reader.shape,
                operands=later(gather.operands, reader.operands[0].delay),
                indices=gather.indices.reshape(reader.shape),
            )
        return bool(readers)

    def _reorder(self, name: str, indices: Indices) -> None:
        before = self.arranged.get(name)
        self.arranged[name] = indices if before is None else before.reshape(-1)[indices]

    def _into_weights(self, gather: ir.Gather) -> bool:
        """Replace weights on the rearranged values by weights on its source."""
        if repeats(gather.indices):
            return False
        moved = False
        for reader in self._readers(gather.name):
            if [s.node for s in reader.operands] != [gather.name]:
                continue
            channels = channel_map(gather)
            if isinstance(reader, ir.Conv) and reader.groups == 1 and channels is not None:
                weight = columns(reader.weight, channels, gather.input_shape[0])
                self.layers[reader.name] = replace(reader, weight=weight, input_shape=gather.input_shape)
                self._read(reader, gather.name, gather.operands)
            elif isinstance(reader, ir.Linear) and len(reader.input_shape) == 1:
                size = prod(gather.input_shape)
                weight = columns(reader.weight, gather.indices, size)
                self.layers[reader.name] = replace(reader, weight=weight, input_shape=(size,))
                self._read(reader, gather.name, self._flat(gather))
            else:
                continue
            moved = True
        return moved

    def _flat(self, gather: ir.Gather) -> tuple[ir.Operand, ...]:
        """Return a rearrangement's source as one axis."""
        shape = gather.input_shape
        if len(shape) == 1:
            return gather.operands
        name = free(self.layers, f"{gather.name}_flat")
        self.layers[name] = ir.Reshape(name=name, shape=(prod(shape),), operands=gather.operands, input_shape=shape)
        return (ir.Operand(name),)

    def _pointwise(self, gather: ir.Gather) -> bool:
        """Turn a linear layer on channels moved to the last axis into a 1x1 convolution in their place."""
        before = gather.input_shape
        if len(before) not in (2, 3) or not np.array_equal(gather.indices.reshape(-1), _last(before).reshape(-1)):
            return False
        for reader in self._readers(gather.name):
            alone = [s.node for s in reader.operands] == [gather.name]
            if (
                not isinstance(reader, ir.Linear)
                or not alone
                or len(reader.shape) == 1
                or reader.input_shape[-1] != before[0]
            ):
                continue
            made = (len(reader.weight), *before[1:])
            self._reader_axes(reader, made, _last(made))
            sources = later(gather.operands, reader.operands[0].delay)
            self.layers[reader.name] = pointwise(reader.name, sources, before, reader.weight, bias=reader.bias)
            return True
        return False

    def _reader_axes(self, node: ir.Node, before: tuple[int, ...], indices: Indices) -> None:
        """Let readers of ``node``, whose output becomes ``before``, read the former order."""
        name = free(self.layers, f"{node.name}_axes")
        for reader in self._readers(node.name):
            self._read(reader, node.name, (ir.Operand(name),))
        self.layers[name] = ir.Gather(
            name=name,
            shape=node.shape,
            operands=(ir.Operand(node.name),),
            indices=indices.reshape(node.shape),
            input_shape=before,
        )

    def _behind_a_neuron(self, gather: ir.Gather) -> bool:
        """Apply n(P·x) = P·n'(x) to elementwise nodes; in a loop of the two, P would only go round."""
        if not bijective(gather):
            return False
        before = {source.node for source in gather.operands}
        kinds = ir.Neuron | ir.Scale | ir.Delay
        readers = [r for r in self._readers(gather.name) if isinstance(r, kinds) and r.name not in before]
        if not readers:
            return False
        name, back = readers[0].name, inverse(gather)
        late = free(self.layers, f"{name}_order")
        for reader in self._readers(name):
            self._read(reader, name, (ir.Operand(late),))
        node = self.layers[name]
        sources = self._sources_in(node, gather, back, late, name)
        self.layers[name] = replace(node, shape=gather.input_shape, operands=sources, **arranged_fields(node, back))
        self.layers[late] = replace(gather, name=late, operands=(ir.Operand(name),))
        self._reorder(name, back)
        return True

    def _sources_in(
        self, node: ir.Node, gather: ir.Gather, back: Indices, late: str, name: str
    ) -> tuple[ir.Operand, ...]:
        """Return the sources of a reader of ``gather``, in the order of its source."""
        reordered: list[ir.Operand] = []
        for s in node.operands:
            if s.node == gather.name:
                reordered += later(gather.operands, s.delay)
            else:
                reordered.append(ir.Operand(self._order(s.node, gather, back, late, name), s.delay))
        return tuple(reordered)

    def _order(self, source: str, gather: ir.Gather, back: Indices, late: str, node: str) -> str:
        """Return a source of the neuron in the neuron's new order."""
        if source == late:
            return node
        name = free(self.layers, f"{source}_{gather.name}")
        self.layers[name] = ir.Gather(
            name=name, shape=gather.input_shape, operands=(ir.Operand(source),), indices=back, input_shape=gather.shape
        )
        return name

    def _out_of_output(self, gather: ir.Gather) -> bool:
        """Output values in their order without the axes that NIR cannot make."""
        for reader in self._readers(gather.name):
            if isinstance(reader, ir.Output) and len(reader.operands) == 1 and keeps_order(gather):
                self.layers[reader.name] = replace(reader, shape=gather.input_shape)
                self._read(reader, gather.name, gather.operands)
                return True
        return False

    def _into_rows(self, gather: ir.Gather) -> bool:
        """Take, repeat, or reorder rows of a linear layer with no other reader."""
        before = self.layers[gather.operands[0].node]
        alone = len(gather.operands) == 1 and not gather.operands[0].delay and len(self._readers(before.name)) == 1
        if (
            not alone
            or not isinstance(before, ir.Linear)
            or before.shape != gather.input_shape
            or len(before.shape) != 1
        ):
            return False
        rows = gather.indices.reshape(-1)
        if np.array_equal(rows, np.arange(len(before.weight))):
            return False
        bias = None if before.bias is None else np.where(rows < 0, np.float32(0), before.bias[rows])
        weight = np.where(rows[:, None] < 0, np.float32(0), before.weight[rows])
        self.layers[before.name] = replace(before, shape=rows.shape, weight=weight, bias=bias)
        order = np.arange(rows.size).reshape(gather.shape)
        self.layers[gather.name] = replace(gather, indices=order, input_shape=rows.shape)
        return True

    def _matrix(self, gather: ir.Gather) -> bool:
        """Turn a layer on axes that its input lacks into its matrix."""
        for reader in self._readers(gather.name):
            if not keeps_order(gather) or not isinstance(reader, ir.Conv | ir.Pool | ir.Linear):
                continue
            if [s.node for s in reader.operands] != [gather.name]:
                self._split(reader, gather)
                return True
            matrix = dense(reader)
            self._reader_axes(reader, matrix.shape, np.arange(prod(reader.shape)))
            self.layers[reader.name] = matrix
            return True
        return False

    def _split(self, reader: ir.Conv | ir.Pool | ir.Linear, gather: ir.Gather) -> None:
        """Let a layer that reads a sum read one sum in the order of the rearrangement's input."""
        sources = self._sources_in(reader, gather, inverse(gather), "", "")
        name = free(self.layers, f"{reader.name}_sum")
        self.layers[name] = replace(gather, name=name, operands=sources)
        self.layers[reader.name] = replace(reader, operands=(ir.Operand(name),))

    def stays(self, gather: ir.Gather) -> bool:
        """Return whether NIR cannot hold what it is for: a max pool reads it, or signals are multiplied somewhere."""
        return self.stay or any(isinstance(reader, ir.MaxPool) for reader in self._readers(gather.name))

    def keep(self, gather: ir.Gather) -> None:
        """Leave it in place; as a reshape, if it is no more than that."""
        self.kept.add(gather.name)
        if keeps_order(gather):
            self._reshape(gather)

    def _reshape(self, gather: ir.Gather) -> None:
        self.layers[gather.name] = ir.Reshape(
            name=gather.name, shape=gather.shape, operands=gather.operands, input_shape=gather.input_shape
        )

    def select(self, gather: ir.Gather) -> None:
        """Replace it by weights of 0 and 1."""
        node = selection(gather)
        if node.shape == gather.shape:
            sources = gather.operands if isinstance(node, ir.Conv) else self._flat(gather)
            self.layers[gather.name] = replace(node, operands=sources)
            return
        sources = self._flat(gather)
        name = free(self.layers, f"{gather.name}_chosen")
        self.layers[name] = replace(node, name=name, operands=sources)
        self.layers[gather.name] = replace(
            gather,
            operands=(ir.Operand(name),),
            indices=np.arange(prod(gather.shape)).reshape(gather.shape),
            input_shape=node.shape,
        )


def _last(shape: tuple[int, ...]) -> Indices:
    """Return the places of values after moving the first axis to the end."""
    return np.moveaxis(np.arange(prod(shape)).reshape(shape), 0, -1)


def _absorb(program: ir.Program) -> Rewritten:
    nodes, places = rearrange(dict(program.by_name))
    return Rewritten(with_nodes(program, nodes), places)


PASS = Pass("absorb_permutations", _absorb, "real")
