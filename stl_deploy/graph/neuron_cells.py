"""A neuron's step as a Cell: the equations of `stl_deploy.graph.program` as data, one operation a line."""

from __future__ import annotations

from typing import Any

import numpy as np

from stl_deploy.graph.cell import Array, Cell, Constant, Dtype, Operation, State
from stl_deploy.graph.program import Neuron

_ROUNDED = {"down": "floor", "half_up": "floor", "half_even": "round"}
_STATES = "ivsa"
"""Current, potential, last spikes, raised threshold: in the order that files have them."""


def as_cell(node: Neuron) -> Cell:
    """Return a Cell that computes each step of a neuron in the same order, so with the same bits.

    Examples:
        >>> from stl_deploy.graph.program import Operand
        >>> half = np.float32(0.5)
        >>> lif = Neuron(name="lif", shape=(3,), operands=(Operand("fc"),), decay=half, threshold=half)
        >>> [operation.op for operation in as_cell(lif).operations]
        ['mul', 'add', 'gt', 'cast', 'where']
    """
    return _Equations(node).cell()


class _Equations:
    """Takes down the operations of one neuron's step."""

    def __init__(self, node: Neuron) -> None:
        self.node = node
        self.operations: list[Operation] = []
        self.constants: dict[str, Constant] = {}
        self.states: list[State] = []
        self.arriving = tuple(f"x{number}" for number in range(len(node.operands)))

    def cell(self) -> Cell:
        """Return the Cell."""
        node = self.node
        out = self._step()
        return Cell(
            name=node.name,
            shape=node.shape,
            operands=node.operands,
            names=self.arriving,
            operand_shapes=(node.shape,) * len(self.arriving),
            states=tuple(sorted(self.states, key=lambda state: _STATES.index(state.name))),
            constants=tuple(self.constants.values()),
            operations=tuple(self.operations),
            outputs=(out,),
            output_shapes=(node.shape,),
        )

    def _step(self) -> str:
        node = self.node
        v = self._drive()
        before = None
        if node.decay is not None:
            before = "v"
            v = self._op("add", self._op("mul", "v", self._constant("decay", node.decay)), v)
        if node.offset is not None:
            v = self._op("add", v, self._constant("offset", node.offset))
        if node.threshold is None:
            return self._kept(self._bounded(v))
        theta = self._constant("threshold", node.threshold)
        level = self._adapted(theta)
        adaptation = node.adaptation
        subtracted = level if adaptation is not None and adaptation.subtracts == "adapted" else theta
        over = None
        if node.reset == "snntorch_subtract_now" and before is not None:
            over = self._op("cast", self._op("gt", before, theta, dtype="bool"))
            v = self._op("sub", v, self._op("mul", over, theta))
        elif node.reset == "subtract_delayed":
            v = self._op("sub", v, self._op("mul", "s", subtracted))
        elif node.reset == "value_delayed":
            v = self._to_value(v, self._fires("s"))
        v = self._bounded(v)
        fired, spikes = self._spikes(v, level)
        if node.delayed_reset or adaptation is not None:
            self._state("s", spikes, None)
        if over is not None:
            v = self._op("sub", v, self._op("mul", self._op("sub", spikes, over), subtracted))
        elif node.reset == "subtract" and before is not None:
            v = self._op("sub", v, self._op("mul", spikes, subtracted))
        elif node.reset == "value" and before is not None:
            v = self._to_value(v, fired or self._fires(spikes))
        self._kept(v)
        return spikes

    def _drive(self) -> str:
        """The sum of what arrives, through the synapse and times the gain."""
        node, (x, *others) = self.node, self.arriving
        for other in others:
            x = self._op("add", x, other)
        if node.synapse is not None:
            decay = self._constant("synapse_decay", node.synapse.decay)
            if node.synapse.gain is not None:
                x = self._op("mul", x, self._constant("synapse_gain", node.synapse.gain))
            if node.synapse.rule == "euler":
                x = self._op("add", self._op("mul", "i", decay), x)
            else:
                x = self._op("mul", self._op("add", "i", x), decay)
            self._state("i", x, node.i_start)
        return x if node.gain is None else self._op("mul", x, self._constant("gain", node.gain))

    def _adapted(self, theta: str) -> str:
        """The level that potentials are compared with: the threshold, raised by earlier spikes."""
        adaptation = self.node.adaptation
        if adaptation is None:
            return theta
        faded = self._op("mul", "a", self._constant("adaptation_decay", adaptation.decay))
        jump = self._op("mul", "s", self._constant("adaptation_jump", adaptation.jump))
        raised = self._op("add", faded, jump)
        self._state("a", raised, adaptation.start)
        return self._op("add", theta, raised)

    def _bounded(self, v: str) -> str:
        return v if self.node.v_min is None else self._op("max", v, self._constant("v_min", self.node.v_min))

    def _spikes(self, v: str, level: str) -> tuple[str, str]:
        """Where potentials fire, if that is computed, and the spikes: 0 or 1, or their number."""
        node = self.node
        if not node.multi_spike:
            fired = self._op(node.compare, v, level, dtype="bool")
            return fired, self._op("cast", fired)
        ratio = self._op("div", v, level)
        if node.rounding == "half_up":
            ratio = self._op("add", ratio, self._number("half", 0.5))
        # floor of what is not negative, which rounds to 0 too
        count = self._op(_ROUNDED[node.rounding], self._op("max", ratio, self._number("zero", 0)))
        return "", count if node.cap is None else self._op("min", count, self._number("cap", node.cap))

    def _fires(self, spikes: str) -> str:
        return self._op("gt", spikes, self._number("zero", 0), dtype="bool")

    def _to_value(self, v: str, fired: str) -> str:
        value = self.node.v_reset
        to = self._number("zero", 0) if value is None else self._constant("v_reset", value)
        return self._op("where", fired, to, v)

    def _kept(self, v: str) -> str:
        """Pass the potential to the next step, if the neuron remembers it; return its name."""
        if self.node.decay is not None:
            self._state("v", v, self.node.v_start)
        return v

    def _op(self, op: str, *args: str, dtype: Dtype = "float32") -> str:
        name = f"{op}_{len(self.operations)}"
        self.operations.append(Operation(name, op, args, dtype))
        return name

    def _constant(self, name: str, value: Array) -> str:
        self.constants[name] = Constant(name, np.asarray(value, np.float32))
        return name

    def _number(self, name: str, value: float) -> str:
        return self._constant(name, np.asarray(value, np.float32))

    def _state(self, name: str, after: str, start: Any) -> None:
        first = np.zeros((), np.float32) if start is None else np.asarray(start, np.float32)
        self.states.append(State(name, after, self.node.shape, first))
