"""Draw networks with obstacles: chains of dense layers, or of convolutions and pools, with what targets may refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from stl_deploy.graph import program as ir

Shape = tuple[int, ...]
F = np.float32


class Obstacles:
    """One network of a seed. Even seeds give chains of dense layers, odd ones start with images."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self._add(ir.Input, (2, 8, 8) if seed % 2 else (6,))

    def program(self) -> ir.Program:
        """Return the network."""
        if self._is_image and self._chance(0.3):
            self._pool(4)
        for _ in range(int(self.rng.integers(1, 4))):
            if self._is_image and min(self._shape[1:]) >= 4:
                self._images()
            else:
                self._dense()
        if self._chance(0.4):
            self._readout()
        self._add(ir.Output, self._shape)
        for _ in range(int(self.rng.integers(0, 4))):
            self._change(self._pick(ir.Neuron), self._field)
        self._maybe(0.2, self._edge)
        self._maybe(0.08, lambda: self._change(self._pick(ir.Linear, ir.Conv), _zeros))
        self._maybe(0.08, lambda: self._add(ir.Output, self._shape, *self.nodes[-1].operands))
        self._maybe(0.08, self._second_input)
        coding = self._one({}, {"input": {"coding": "spikes"}}, {"input": {"coding": "analog"}})
        return ir.Program(tuple(self.nodes), 1e-4, coding)

    @property
    def _shape(self) -> Shape:
        return tuple(self.nodes[-1].shape)

    @property
    def _is_image(self) -> bool:
        return len(self._shape) == 3

    def _chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def _maybe(self, share: float, do: Callable[[], None]) -> None:
        if self._chance(share):
            do()

    def _one(self, *values: Any) -> Any:
        return values[self.rng.integers(len(values))]

    def _array(self, shape: Shape, low: float, high: float) -> Any:
        return self.rng.uniform(low, high, shape).astype(F)

    def _add(self, kind: Any, shape: Shape, *sources: ir.Operand, **fields: Any) -> None:
        operands = sources or tuple(ir.Operand(node.name) for node in self.nodes[-1:])
        name = f"{kind.__name__.lower()}{len(self.nodes)}"
        self.nodes.append(kind(name=name, shape=shape, operands=operands, **fields))

    def _images(self) -> None:
        self._conv(*self._one(*[((1, 1), (1, 1))] * 6, ((1, 0), (0, 1))))
        if self._chance(0.15):
            self._pool(kind=ir.MaxPool)
        self._neuron()
        if min(self._shape[1:]) < 2:
            return
        after = self._one(*["nothing"] * 5, "max pool", "max pool", "max pool", "graded", "graded and neurons")
        if after == "max pool":
            self._pool(1)
            self._neuron(decay=None, threshold=F(0.5))
        elif after != "nothing":
            self._pool(4)
            if after == "graded and neurons":
                self._neuron()

    def _dense(self) -> None:
        if self._is_image and self._chance(0.8):
            channels, rows, columns = self._shape
            self._flat((channels, rows * columns) if self._chance(0.15) else (channels * rows * columns,))
        self._linear(int(self.rng.integers(3, 6)))
        self._maybe(0.2, lambda: self._linear(4))
        scale = self._one(F(0.5), self._array(self._shape, -1, 1))
        self._maybe(0.15, lambda: self._add(ir.Scale, self._shape, scale=scale))
        self._maybe(0.15, lambda: self._add(ir.Delay, self._shape, steps=np.array(self._one(1, 3, 300, 70000))))
        self._neuron()

    def _readout(self) -> None:
        if self._is_image:
            self._flat((int(np.prod(self._shape)),))
        self._linear(3)
        self._maybe(0.5, lambda: self._neuron(threshold=None))

    def _linear(self, out: int) -> None:
        before = self._shape
        weight = self.rng.normal(size=(out, before[-1])).astype(F)
        self._add(ir.Linear, (*before[:-1], out), weight=weight, bias=None, input_shape=before)

    def _conv(self, *padding: tuple[int, int]) -> None:
        channels, *sizes = before = self._shape
        shape = (3, *(size + sum(sides) - 2 for size, sides in zip(sizes, padding, strict=True)))
        weight = self.rng.normal(size=(3, channels, 3, 3)).astype(F)
        more: dict[str, Any] = {"stride": (1, 1), "dilation": (1, 1), "groups": 1, "bias": None}
        self._add(ir.Conv, shape, weight=weight, padding=padding, input_shape=before, **more)

    def _pool(self, divisor: int = 4, kind: Any = ir.Pool) -> None:
        channels, rows, columns = before = self._shape
        more: dict[str, Any] = {"divisor": divisor} if kind is ir.Pool else {}
        more |= {"kernel": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0)), "input_shape": before}
        self._add(kind, (channels, rows // 2, columns // 2), **more)

    def _flat(self, shape: Shape) -> None:
        self._add(ir.Reshape, shape, input_shape=self._shape)

    def _neuron(self, **fields: Any) -> None:
        self._add(ir.Neuron, self._shape, **{"decay": F(0.5), "threshold": F(1), **fields})

    def _pick(self, *kinds: type) -> int:
        return int(self.rng.choice([at for at, node in enumerate(self.nodes) if isinstance(node, kinds)]))

    def _change(self, at: int, fields: Callable[[Any], dict[str, Any]]) -> None:
        self.nodes[at] = replace(self.nodes[at], **fields(self.nodes[at]))

    def _field(self, node: ir.Neuron) -> dict[str, Any]:
        """Return another value of one field of a neuron."""
        shape, one, array = node.shape, self._one, self._array
        resets = ("subtract", "subtract_delayed", "value_delayed", "none", "snntorch_subtract_now")
        several = {"cap": one(None, 7, 300), "reset": one("subtract", "value"), "rounding": one("down", "half_up")}
        adaptation = ir.Adaptation(decay=F(one(0.9, 0.99999)), jump=F(one(0.5, -0.5)))
        return dict(
            one(
                {"reset": one(*resets)},
                {"multi_spike": True, **several},
                {"v_reset": array(shape, -1, 0.5)},
                {"v_min": F(-1)},
                {one("v_start", "i_start"): array(shape, 0, 1)},
                {"v_start": np.zeros(shape, F)},
                {"synapse": ir.Synapse(one("euler", "exp_add"), F(one(0.5, 1.5)), None)},
                {"adaptation": adaptation},
                {"threshold": one(F(0), F(-1), None, array(shape, 0.5, 2))},
                {"decay": one(F(1.5), F(-0.5), None, array(shape, 0, 1), F(1))},
                {"gain": array(shape, -1, 1)},
                {"offset": array(shape, -1, 1)},
            )
        )

    def _edge(self) -> None:
        """Add a recurrent edge, or a skip, to some neurons."""
        at = self._pick(ir.Neuron)
        node = self.nodes[at]
        before = [each.name for each in self.nodes[:at] if each.shape == node.shape and not isinstance(each, ir.Input)]
        late = ir.Operand(node.name, 1)
        source = ir.Operand(str(self._one(*before))) if before and self._chance(0.5) else late
        self.nodes[at] = replace(node, operands=(*node.operands, source))

    def _second_input(self) -> None:
        first = self.nodes[0]
        self.nodes.insert(1, ir.Input(name="second", shape=first.shape, operands=()))
        at = next(at for at, node in enumerate(self.nodes) if ir.Operand(first.name) in node.operands)
        self.nodes[at] = replace(self.nodes[at], operands=(*self.nodes[at].operands, ir.Operand("second")))


def _zeros(node: ir.Linear | ir.Conv) -> dict[str, Any]:
    return {"weight": np.zeros_like(node.weight)}
