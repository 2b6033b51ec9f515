"""Random integer graphs over every node: convolutions of all kinds, pools, loops, skips, delays, filters and resets."""

from __future__ import annotations

from typing import Any

import numpy as np

from stl_deploy.graph.program import Node, Operand, Reshape
from stl_deploy.integers.graph import (
    ConvNode,
    DelayNode,
    DenseNode,
    GainNode,
    IntegerGraph,
    IntegerInput,
    IntegerLI,
    IntegerLIF,
    IntegerOutput,
    MaxPoolNode,
    SumPoolNode,
)
from stl_deploy.integers.net import LOIHI, WIDE, IntegerAdaptation, IntegerNeuron

Case = tuple[IntegerGraph, Any]


class Grower:
    """Adds node after node, each reading what is there.

    several: populations fire several spikes a step. adapts: their thresholds adapt. starts: states may start at other
    values than 0.
    """

    def __init__(self, seed: int, *, several: bool = False, adapts: bool = False, starts: bool = True) -> None:
        self.several, self.adapts, self._may_start = several, adapts, starts
        self.rng = np.random.default_rng(seed)
        self.maxima = np.random.default_rng((seed, 1))
        self.starts = np.random.default_rng((seed, 2))
        self.nodes: list[Node] = []
        self.accumulator = WIDE if seed % 2 else LOIHI

    def pick(self, *values: Any) -> Any:
        return values[int(self.rng.integers(len(values)))]

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def whole(self, low: int, high: int, shape: Any = ()) -> Any:
        return np.asarray(self.rng.integers(low, high, shape, endpoint=True), np.int32)

    def name(self, kind: str) -> str:
        return f"{self.pick('', '2 ', 'int.', 'é*/')}{kind}{len(self.nodes)}"

    def grow(self) -> Case:
        shape = self.pick((5,), (12,), (2, 7), (1, 5, 6), (3, 6, 5), (4, 7, 7))
        high = self.pick(1, 1, 16, 255, 4000)
        low = self.pick(0, 0, -3)
        self.nodes.append(IntegerInput(name="in", shape=shape, operands=(), low=low, high=high, scale=1.0))
        steps, samples = self.pick(1, 4, 9), self.pick(1, 3)
        x = self.whole(low, high, (steps, samples, *shape)) * (self.rng.random((steps, samples, *shape)) < 0.5)
        for _ in range(self.pick(1, 2, 3, 5)):
            self.block()
        self.end()
        return IntegerGraph(tuple(self.nodes), self.accumulator), x.astype(np.int32)

    def block(self) -> None:
        """Weights and neurons, or a node without weights behind neurons."""
        before = self.nodes[-1]
        if isinstance(before, IntegerLIF | IntegerInput) and self.chance(0.5):
            self.plain(before)
            before = self.nodes[-1]
        weighted = self.weighted(before, (Operand(before.name),))
        self.nodes.append(weighted)
        reaches: Node = weighted
        if self.chance(0.15) and len(weighted.shape) == 3 and min(weighted.shape[1:]) > 1:
            self.nodes.append(self.pool(weighted))
            reaches = self.nodes[-1]
        elif self.chance(0.15):
            self.nodes.append(self.delay(weighted))
            reaches = self.nodes[-1]
        self.population(reaches)

    def population(self, reaches: Node) -> None:
        shape, name = reaches.shape, self.name("lif")
        sources = [Operand(reaches.name, 1 if self.chance(0.1) else 0)]
        same = [n for n in self.nodes[:-1] if n.shape == shape and isinstance(n, IntegerLIF)]
        if same and self.chance(0.5):
            self.nodes.append(self.gain(same[-1].name, shape, self.pick(0, 0, 1)))
            sources.append(Operand(self.nodes[-1].name))
        if self.chance(0.2):
            skip = self.weighted_like(reaches)
            if skip is not None:
                self.nodes.append(skip)
                sources.append(Operand(skip.name))
        if self.chance(0.25):
            back = f"{name}.back"
            loop = self.pick("gain", "dense") if len(shape) == 1 else "gain"
            if loop == "gain":
                self.nodes.append(self.gain(name, shape, 1, back))
            else:
                self.nodes.append(self.dense(back, shape[0], shape[0], (Operand(name, 1),)))
            sources.append(Operand(back))
        bias = self.whole(-30, 30, self.sizes(shape)) if self.chance(0.4) else None
        self.nodes.append(
            IntegerLIF(name=name, shape=shape, operands=tuple(sources), neuron=self.neuron(shape), bias=bias)
        )
        if self.chance(0.4) and len(shape) == 3 and min(shape[1:]) > 1:
            pool = self.pool(self.nodes[-1], spiking=True)
            self.nodes.append(pool)
            if self.chance(0.7):
                neuron = IntegerNeuron(v_decay=4096, threshold=np.zeros((), np.int32))
                self.nodes.append(
                    IntegerLIF(
                        name=self.name("max"),
                        shape=pool.shape,
                        operands=(Operand(pool.name),),
                        neuron=neuron,
                        bias=None,
                    )
                )

    def plain(self, before: Node) -> None:
        kind = self.pick("flat", "delay", "pool", "sum", "moved")
        if kind == "pool" and len(before.shape) == 3 and min(before.shape[1:]) > 1:
            self.nodes.append(self.pool(before))
        elif kind == "delay":
            self.nodes.append(self.delay(before))
        elif kind == "flat":
            self.nodes.append(self.reshape(before, (int(np.prod(before.shape)),)))
        elif kind == "moved" and len(before.shape) == 3:
            self.nodes.append(self.reshape(before, before.shape[::-1]))
        elif kind == "sum":
            sources = (Operand(before.name), Operand(before.name, 1))
            self.nodes.append(
                Reshape(name=self.name("sum"), shape=before.shape, operands=sources, input_shape=before.shape)
            )

    def reshape(self, before: Node, shape: Any) -> Node:
        return Reshape(name=self.name("flat"), shape=shape, operands=(Operand(before.name),), input_shape=before.shape)

    def delay(self, before: Node) -> Node:
        steps = self.whole(0, 3, self.sizes(before.shape))
        return DelayNode(name=self.name("delay"), shape=before.shape, operands=(Operand(before.name),), steps=steps)

    def pool(self, before: Node, spiking: bool = False) -> Node:
        kernel = self.pick((2, 2), (2, 2), (2, 1), (1, 2))
        stride = self.pick(kernel, kernel, (1, 1), (1, 2))
        padding = self.pick(((0, 0), (0, 0)), ((0, 0), (0, 0)), ((1, 0), (0, 1)))
        sizes = tuple(
            (n + sum(p) - k) // s + 1 for n, k, s, p in zip(before.shape[1:], kernel, stride, padding, strict=True)
        )
        inside = all(max(sides) < size for sides, size in zip(padding, kernel, strict=True))
        kind = MaxPoolNode if inside and not spiking and self.maxima.random() < 0.5 else SumPoolNode
        return kind(
            name=self.name("pool"),
            shape=(before.shape[0], *sizes),
            operands=(Operand(before.name),),
            kernel=kernel,
            stride=stride,
            padding=padding,
            input_shape=before.shape,
        )

    def gain(self, source: str, shape: Any, delay: int, name: str | None = None) -> Node:
        weight = self.whole(-20, 20, self.sizes(shape))
        return GainNode(name=name or self.name("gain"), shape=shape, operands=(Operand(source, delay),), weight=weight)

    def dense(self, name: str, ins: int, outs: int, sources: Any) -> Node:
        bias = self.whole(-9, 9, outs) if self.chance(0.3) else None
        top = self.pick(3, 40, 127)
        return DenseNode(
            name=name, shape=(outs,), operands=sources, weight=self.whole(-top, top, (outs, ins)), bias=bias
        )

    def weighted(self, before: Node, sources: Any) -> Node:
        if len(before.shape) == 1:
            return self.dense(self.name("dense"), before.shape[0], self.pick(1, 4, 9, 17, 40, 112), sources)
        flat = before.shape if len(before.shape) == 3 else (before.shape[0], 1, before.shape[1])
        line = len(before.shape) == 2
        groups = self.pick(1, 1, 1, flat[0])
        outs = groups * self.pick(1, 2, 5) if groups > 1 else self.pick(1, 2, 5, 10, 24, 64)
        kernel = [self.pick(*range(1, min(4, n) + 1)) for n in flat[1:]]
        dilation = [self.pick(1, 1, 2) if 2 * (k - 1) < n else 1 for k, n in zip(kernel, flat[1:], strict=True)]
        stride = self.pick((1, 1), (1, 1), (2, 1), (2, 2), (1, 3))
        padding = self.pick(((0, 0), (0, 0)), ((1, 1), (1, 1)), ((0, 2), (1, 0)))
        if line:
            stride, padding = (1, stride[1]), ((0, 0), padding[1])
        if self.chance(0.5):
            stride, dilation = (1, 1), [1, 1]
        sizes = [
            (n + sum(p) - d * (k - 1) - 1) // s + 1
            for n, k, d, s, p in zip(flat[1:], kernel, dilation, stride, padding, strict=True)
        ]
        top = self.pick(3, 40, 127)
        return ConvNode(
            name=self.name("conv"),
            shape=(outs, sizes[1]) if line else (outs, *sizes),
            operands=sources,
            weight=self.whole(-top, top, (outs, flat[0] // groups, *kernel)),
            bias=self.whole(-9, 9, outs) if self.chance(0.3) else None,
            stride=stride,
            padding=padding,
            dilation=tuple(dilation),
            groups=groups,
            input_shape=flat,
        )

    def weighted_like(self, other: Node) -> Node | None:
        """A second layer of weights that reaches the same neurons, from any flat node."""
        flat = [n for n in self.nodes if len(n.shape) == 1 and isinstance(n, IntegerLIF | Reshape | IntegerInput)]
        if len(other.shape) != 1 or not flat:
            return None
        source = self.pick(*flat)
        return self.dense(self.name("skip"), source.shape[0], other.shape[0], (Operand(source.name, self.pick(0, 1)),))

    def sizes(self, shape: Any) -> Any:
        return self.pick((), (shape[0], *(1,) * (len(shape) - 1)), shape)

    def decay(self, shape: Any) -> Any:
        if self.chance(0.15):
            return self.whole(0, 4096, self.sizes(shape))
        return int(self.pick(2048, 4096, 0, 1024, 3072, int(self.rng.integers(1, 4096))))

    def neuron(self, shape: Any) -> IntegerNeuron:
        if self.several:
            return IntegerNeuron(
                v_decay=self.decay(shape),
                threshold=self.whole(0, self.pick(5, 60, 400), self.sizes(shape)),
                i_decay=self.decay(shape) if self.chance(0.5) else 4096,
                reset="subtract",
                drop=self.whole(1, self.pick(3, 60), self.sizes(shape)),
                cap=self.pick(2, 31, 255),
                v_start=self.start(shape),
                u_start=self.start(shape),
            )
        reset = self.pick("value", "value", "value", "subtract", "subtract_delayed", "value_delayed")
        soft = reset.startswith("subtract")
        return IntegerNeuron(
            v_decay=self.decay(shape),
            threshold=self.whole(0, self.pick(5, 60, 400), self.sizes(shape)),
            i_decay=self.decay(shape) if self.chance(0.25) else 4096,
            reset=reset,
            drop=self.whole(0, 60, self.sizes(shape)) if soft else None,
            v_reset=self.whole(-20, 20, self.sizes(shape)) if not soft and self.chance(0.2) else None,
            adaptation=self.adaptation(shape) if self.adapts and self.chance(0.8) else None,
            v_start=self.start(shape),
            u_start=self.start(shape),
        )

    def start(self, shape: Any) -> Any:
        """Values of a state before the first step, in 64ths; often None."""
        if not self._may_start or self.starts.random() < 0.6:
            return None
        sizes = ((), shape)[int(self.starts.integers(2))]
        top = (40, 4000, 30_000)[int(self.starts.integers(3))]
        return np.asarray(self.starts.integers(-top, top, sizes, endpoint=True), np.int32)

    def adaptation(self, shape: Any) -> IntegerAdaptation:
        decay = self.pick(self.whole(1, 4096, self.sizes(shape)), 4096, 1024, int(self.rng.integers(1, 600)))
        return IntegerAdaptation(
            decay=decay,
            jump=self.whole(0, self.pick(2, 30, 1000), self.sizes(shape)),
            subtracts=self.pick("baseline", "adapted"),
            start=self.start(shape),
        )

    def end(self) -> None:
        """The output: spikes, votes, or potentials."""
        before = self.nodes[-1]
        how = self.pick("spikes", "votes", "potentials")
        if how != "spikes":
            if len(before.shape) > 1:
                before = self.reshape(before, (int(np.prod(before.shape)),))
                self.nodes.append(before)
            before = self.dense(self.name("vote"), before.shape[0], 3, (Operand(before.name),))
            self.nodes.append(before)
        if how == "potentials":
            bias = self.whole(-5, 5, 3) if self.chance(0.5) else None
            i_decay = self.pick(4096, 4096, 1500)
            before = IntegerLI(
                name="li",
                shape=(3,),
                operands=(Operand(before.name),),
                v_decay=self.decay((3,)),
                bias=bias,
                i_decay=i_decay,
                v_start=self.start((3,)),
                u_start=self.start((3,)),
            )
            self.nodes.append(before)
        self.nodes.append(IntegerOutput(name="out", shape=before.shape, operands=(Operand(before.name),), unit=1.0))
