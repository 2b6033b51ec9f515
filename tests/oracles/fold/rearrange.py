"""Rearrangements leave a Program: permuted axes, slices, repeats, and reshapes that NIR cannot say.

NIR can flatten, nothing else. A rearrangement P moves towards what reads it: a neuron in other order is the same neuron
with its parameters in that order, n(P·x) = P·n'(x); weights take it in, W·(P·x) = (W·P)·x; two that follow one another
are one, and P⁻¹·P is none. What is moved in the input is moved in the graph's input. Where nothing takes one in,
weights of 0 and 1 do its work, or the layer behind it becomes the matrix that it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from math import prod
from typing import Any

import numpy as np

from stl_deploy.errors import CaptureError
from stl_deploy.graph.convolutions import pointwise
from stl_deploy.graph.program import (
    Conv,
    Delay,
    Gather,
    Input,
    Linear,
    Neuron,
    Node,
    Operand,
    Output,
    Pool,
    Reshape,
    Scale,
)
from tests.oracles.fold.index_maps import (
    Indices,
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

Layers = dict[str, Node]
_ROUNDS = 64
"""How often each layer may be passed by a rearrangement, before it is taken to go round in a circle."""


def rearrange(layers: Layers) -> tuple[Layers, dict[str, Indices]]:
    """The layers without rearrangements; for each neuron and input in another order, where its values were before.

    Raises CaptureError, naming the layer, where weights in a rearrangement's place would be too many.
    """
    work = _Work({name: as_gather(node) or node for name, node in layers.items()})
    for _ in range(_ROUNDS * len(layers)):
        gathers = [node for node in work.layers.values() if isinstance(node, Gather)]
        if not gathers:
            return work.layers, work.arranged
        if not any(move(gather) for gather in gathers for move in work.moves):
            work.select(gathers[-1])
    raise CaptureError(
        "the axes of a layer in a loop change at every step, or it reads the same spikes in two orders; keep "
        "one order of axes"
    )


class _Work:
    def __init__(self, layers: Layers) -> None:
        self.layers = layers
        self.arranged: dict[str, Indices] = {}
        self.moves: tuple[Callable[[Gather], bool], ...] = (
            self._unread,
            self._nothing,
            self._behind_another,
            self._into_input,
            self._before_a_reshape,
            self._into_weights,
            self._pointwise,
            self._behind_a_neuron,
            self._out_of_output,
            self._into_rows,
            self._matrix,
        )

    def _readers(self, name: str) -> list[Node]:
        return [node for node in self.layers.values() if any(source.node == name for source in node.operands)]

    def _bypass(self, name: str, sources: tuple[Operand, ...]) -> None:
        """Who reads ``name`` reads ``sources`` from now on."""
        for reader in self._readers(name):
            self._read(reader, name, sources)
        self.layers.pop(name, None)

    def _read(self, reader: Node, name: str, sources: tuple[Operand, ...]) -> None:
        found: list[Operand] = []
        for s in self.layers[reader.name].operands:
            found += _later(sources, s.delay) if s.node == name else [s]
        self.layers[reader.name] = replace(self.layers[reader.name], operands=tuple(found))

    def _unread(self, gather: Gather) -> bool:
        if self._readers(gather.name):
            return False
        del self.layers[gather.name]
        return True

    def _nothing(self, gather: Gather) -> bool:
        """Values that stay in their order: nothing, or a flattening."""
        if not keeps_order(gather):
            return False
        if gather.shape == gather.input_shape:
            self._bypass(gather.name, gather.operands)
            return True
        if not flattens(gather.input_shape, gather.shape):
            return False
        self.layers[gather.name] = Reshape(
            name=gather.name, shape=gather.shape, operands=gather.operands, input_shape=gather.input_shape
        )
        return True

    def _behind_another(self, gather: Gather) -> bool:
        """Two that follow one another are one."""
        if len(gather.operands) != 1:
            return False
        (source,) = gather.operands
        before = self.layers[source.node]
        if isinstance(before, Reshape):
            first = np.arange(prod(before.shape))
        elif isinstance(before, Gather) and before is not gather:
            first = before.indices.reshape(-1)
        else:
            return False
        at = gather.indices
        self.layers[gather.name] = replace(
            gather,
            operands=_later(before.operands, source.delay),
            indices=np.where(at < 0, -1, first[at]),
            input_shape=before.input_shape,
        )
        if not self._readers(before.name):
            del self.layers[before.name]
        return True

    def _into_input(self, gather: Gather) -> bool:
        """An input that is read in one other order only is given in that."""
        (source, *others) = gather.operands
        given = self.layers[source.node]
        readers = self._readers(given.name)
        alike = all(isinstance(r, Gather) and np.array_equal(r.indices, gather.indices) for r in readers)
        if others or not isinstance(given, Input) or not alike or not bijective(gather):
            return False
        if given.shape == gather.shape and not np.array_equal(gather.indices.reshape(-1), np.arange(prod(given.shape))):
            return False  # nobody could tell input of one order from that of the other
        self._reorder(given.name, gather.indices)
        self.layers[given.name] = replace(given, shape=gather.shape)
        for reader in readers:
            self._bypass(reader.name, reader.operands)
        return True

    def _before_a_reshape(self, gather: Gather) -> bool:
        """What is rearranged and flattened is rearranged into a line."""
        readers = [r for r in self._readers(gather.name) if isinstance(r, Reshape) and len(r.operands) == 1]
        for reader in readers:
            self.layers[reader.name] = replace(
                gather,
                name=reader.name,
                shape=reader.shape,
                operands=_later(gather.operands, reader.operands[0].delay),
                indices=gather.indices.reshape(reader.shape),
            )
        return bool(readers)

    def _reorder(self, name: str, indices: Indices) -> None:
        before = self.arranged.get(name)
        self.arranged[name] = indices if before is None else before.reshape(-1)[indices]

    def _into_weights(self, gather: Gather) -> bool:
        """Weights on its values become weights on what it reads."""
        if repeats(gather.indices):
            return False
        moved = False
        for reader in self._readers(gather.name):
            if [s.node for s in reader.operands] != [gather.name]:
                continue
            channels = channel_map(gather)
            if isinstance(reader, Conv) and reader.groups == 1 and channels is not None:
                weight = columns(reader.weight, channels, gather.input_shape[0])
                self.layers[reader.name] = replace(reader, weight=weight, input_shape=gather.input_shape)
                self._read(reader, gather.name, gather.operands)
            elif isinstance(reader, Linear) and len(reader.input_shape) == 1:
                size = prod(gather.input_shape)
                weight = columns(reader.weight, gather.indices, size)
                self.layers[reader.name] = replace(reader, weight=weight, input_shape=(size,))
                self._read(reader, gather.name, self._flat(gather))
            else:
                continue
            moved = True
        return moved

    def _flat(self, gather: Gather) -> tuple[Operand, ...]:
        """What a rearrangement reads, as one axis."""
        shape = gather.input_shape
        if len(shape) == 1:
            return gather.operands
        name = self._free(f"{gather.name}_flat")
        self.layers[name] = Reshape(name=name, shape=(prod(shape),), operands=gather.operands, input_shape=shape)
        return (Operand(name),)

    def _free(self, name: str) -> str:
        while name in self.layers:
            name += "_"
        return name

    def _pointwise(self, gather: Gather) -> bool:
        """A linear layer on channels that were moved to the last axis is a convolution of size 1 where they were."""
        before = gather.input_shape
        if len(before) not in (2, 3) or not np.array_equal(gather.indices.reshape(-1), _last(before).reshape(-1)):
            return False
        for reader in self._readers(gather.name):
            alone = [s.node for s in reader.operands] == [gather.name]
            if (
                not isinstance(reader, Linear)
                or not alone
                or len(reader.shape) == 1
                or reader.input_shape[-1] != before[0]
            ):
                continue
            made = (len(reader.weight), *before[1:])
            self._reader_axes(reader, made, _last(made))
            sources = _later(gather.operands, reader.operands[0].delay)
            self.layers[reader.name] = pointwise(reader.name, sources, before, reader.weight, bias=reader.bias)
            return True
        return False

    def _reader_axes(self, node: Node, before: tuple[int, ...], indices: Indices) -> None:
        """Who reads ``node``, which is to put out ``before``, reads it in the order that it had."""
        name = self._free(f"{node.name}_axes")
        for later in self._readers(node.name):
            self._read(later, node.name, (Operand(name),))
        self.layers[name] = Gather(
            name=name,
            shape=node.shape,
            operands=(Operand(node.name),),
            indices=indices.reshape(node.shape),
            input_shape=before,
        )

    def _behind_a_neuron(self, gather: Gather) -> bool:
        """n(P·x) = P·n'(x) for what works on each value alone; in a loop of the two, P would only go round."""
        if not bijective(gather):
            return False
        before = {source.node for source in gather.operands}
        kinds = Neuron | Scale | Delay
        readers = [r for r in self._readers(gather.name) if isinstance(r, kinds) and r.name not in before]
        if not readers:
            return False
        name, back = readers[0].name, inverse(gather)
        late = self._free(f"{name}_order")
        for reader in self._readers(name):
            self._read(reader, name, (Operand(late),))
        node = self.layers[name]
        sources = self._sources_in(node, gather, back, late, name)
        full = {f.name: _ordered(getattr(node, f.name), node.shape, back) for f in fields(node) if f.name in _ARRAYS}
        self.layers[name] = replace(node, shape=gather.input_shape, operands=sources, **full)
        self.layers[late] = replace(gather, name=late, operands=(Operand(name),))
        self._reorder(name, back)
        return True

    def _sources_in(self, node: Node, gather: Gather, back: Indices, late: str, name: str) -> tuple[Operand, ...]:
        """What a reader of ``gather`` reads, in the order of what that reads."""
        found: list[Operand] = []
        for s in node.operands:
            if s.node == gather.name:
                found += _later(gather.operands, s.delay)
            else:
                found.append(Operand(self._order(s.node, gather, back, late, name), s.delay))
        return tuple(found)

    def _order(self, source: str, gather: Gather, back: Indices, late: str, node: str) -> str:
        """A source of the neuron in the order that the neuron gets."""
        if source == late:
            return node
        name = self._free(f"{source}_{gather.name}")
        self.layers[name] = Gather(
            name=name, shape=gather.input_shape, operands=(Operand(source),), indices=back, input_shape=gather.shape
        )
        return name

    def _out_of_output(self, gather: Gather) -> bool:
        """An output whose values keep their order is put out without the axes that NIR cannot make."""
        for reader in self._readers(gather.name):
            if isinstance(reader, Output) and len(reader.operands) == 1 and keeps_order(gather):
                self.layers[reader.name] = replace(reader, shape=gather.input_shape)
                self._read(reader, gather.name, gather.operands)
                return True
        return False

    def _into_rows(self, gather: Gather) -> bool:
        """Rows of a linear layer that nobody else reads are taken, repeated, or put in another order."""
        before = self.layers[gather.operands[0].node]
        alone = len(gather.operands) == 1 and not gather.operands[0].delay and len(self._readers(before.name)) == 1
        if not alone or not isinstance(before, Linear) or before.shape != gather.input_shape or len(before.shape) != 1:
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

    def _matrix(self, gather: Gather) -> bool:
        """A layer that works on axes which its input does not have becomes its matrix."""
        for reader in self._readers(gather.name):
            if not keeps_order(gather) or not isinstance(reader, Conv | Pool | Linear):
                continue
            if [s.node for s in reader.operands] != [gather.name]:
                self._split(reader, gather)
                return True
            matrix = dense(reader)
            self._reader_axes(reader, matrix.shape, np.arange(prod(reader.shape)))
            self.layers[reader.name] = matrix
            return True
        return False

    def _split(self, reader: Conv | Pool | Linear, gather: Gather) -> None:
        """A layer that reads a sum reads one sum in the order of the rearrangement's input."""
        sources = self._sources_in(reader, gather, inverse(gather), "", "")
        name = self._free(f"{reader.name}_sum")
        self.layers[name] = replace(gather, name=name, operands=sources)
        self.layers[reader.name] = replace(reader, operands=(Operand(name),))

    def select(self, gather: Gather) -> None:
        """Weights of 0 and 1 do its work."""
        node = selection(gather)
        if node.shape == gather.shape:
            sources = gather.operands if isinstance(node, Conv) else self._flat(gather)
            self.layers[gather.name] = replace(node, operands=sources)
            return
        sources = self._flat(gather)
        name = self._free(f"{gather.name}_chosen")
        self.layers[name] = replace(node, name=name, operands=sources)
        self.layers[gather.name] = replace(
            gather,
            operands=(Operand(name),),
            indices=np.arange(prod(gather.shape)).reshape(gather.shape),
            input_shape=node.shape,
        )


_ARRAYS = ("decay", "threshold", "gain", "offset", "v_reset", "v_min", "v_start", "synapse", "scale", "steps")


def _later(sources: tuple[Operand, ...], delay: int) -> tuple[Operand, ...]:
    return tuple(Operand(source.node, source.delay + delay) for source in sources)


def _last(shape: tuple[int, ...]) -> Indices:
    """The places of values whose first axis was moved to the end."""
    return np.moveaxis(np.arange(prod(shape)).reshape(shape), 0, -1)


def _ordered(values: Any, shape: tuple[int, ...], back: Indices) -> Any:
    """A parameter in another order; what is the same for all stays as it is."""
    if values is None or not isinstance(values, np.ndarray | np.generic) or np.ndim(values) == 0:
        return values
    return np.broadcast_to(values, shape).reshape(-1)[back]
