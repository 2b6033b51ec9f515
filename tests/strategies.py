"""Random Programs for property tests, over every node type.

Synaptic weights are small multiples of 1/4 and only values on such a grid reach them, so that synaptic sums are exact;
what neurons and scales compute is arbitrary float32, except that numbers on the grid (and so ties with the threshold)
are frequent.
"""

import numpy as np
from hypothesis import strategies as st

from stl_deploy.graph.program import (
    Adaptation,
    Concat,
    Conv,
    Delay,
    Gather,
    Input,
    Linear,
    MaxPool,
    Neuron,
    Norm,
    Operand,
    Output,
    Pool,
    Product,
    Program,
    Reshape,
    Scale,
    Synapse,
)

F = np.float32


@st.composite
def programs_and_inputs(draw, max_nodes=7, more=False):
    """(Program, {Input node: x [T, B, *shape]}) with T of 1 to 6 and B of 1 to 3."""
    program = draw(programs(max_nodes, more))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    steps, batch = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    low, high = draw(st.sampled_from([(0, 2), (0, 4), (-2, 3)]))
    x = {node.name: rng.integers(low, high, (steps, batch, *node.shape)).astype(F) for node in program.inputs}
    return program, x


@st.composite
def programs(draw, max_nodes=7, more=False):
    """A Program with 1 or 2 inputs and outputs, skip edges, delays and loops.

    more: of nodes that NIR has not, too; ``all``: of products of two signals as well.
    """
    made = _Made(draw, more)
    shape = draw(st.sampled_from([(3,), (6,), (2, 5), (2, 5, 4), (2, 5, 4), (3, 4, 4), (3, 4, 4), (8, 4, 4)]))
    for i in range(draw(st.sampled_from([1, 1, 1, 2]))):
        made.add(Input(name=f"input{i}", shape=shape, operands=()), exact=True)
    for _ in range(draw(st.integers(1, max_nodes))):
        made.layer()
    for i in range(draw(st.sampled_from([1, 1, 2]))):
        source = made.nodes[-1] if i == 0 else draw(st.sampled_from(made.nodes))
        made.add(Output(name=f"output{i}", shape=source.shape, operands=(made.edge(source),)), exact=False)
    return Program(tuple(made.nodes), 1e-4)


class _Made:
    def __init__(self, draw, more=False):
        self.draw, self.nodes, self.exact = draw, [], {}
        self.more = ("norm", "max_pool", "concat", "gather") if more else ()
        self.more += ("product",) if more == "all" else ()
        self.rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def pick(self, *values):
        return self.draw(st.sampled_from(values))

    def add(self, node, exact):
        self.nodes.append(node)
        self.exact[node.name] = exact

    def edge(self, node):
        return Operand(node.name, self.pick(0, 0, 0, 0, 0, 0, 1, 3))

    def name(self, kind):
        return f"{kind}.{len(self.nodes)}"

    def layer(self):
        """One more node, or a loop of two, that reads what is there."""
        kind = self.pick(
            "synapse", "synapse", "pool", "pool", "neuron", "neuron", "neuron", "scale", "delay", "reshape", *self.more
        )
        usable = [n for n in self.nodes if self.exact[n.name] or kind not in ("synapse", "pool", "product")]
        usable = [n for n in usable if kind != "pool" or (len(n.shape) == 3 and min(n.shape[1:]) > 1)]
        if not usable:
            kind, usable = "neuron", self.nodes
        first = self.pick(*usable[-2:])
        sources = [self.edge(first)]
        same = [n for n in usable if n.shape == first.shape]
        for _ in range(self.pick(0, 0, 0, 1, 2)):
            sources.append(self.edge(self.pick(*same)))
        exact = all(self.exact[source.node] for source in sources)
        getattr(self, f"_{kind}")(first.shape, tuple(sources), exact)

    def _synapse(self, shape, sources, exact):
        if len(shape) > 1 and self.pick(True, True, False):
            self.add(self.conv(self.name("conv"), shape, sources), exact)
        else:
            self.add(self.linear(self.name("linear"), shape, sources, self.pick(1, 3, 5)), exact)

    def linear(self, name, shape, sources, out):
        return Linear(
            name=name,
            shape=(*shape[:-1], out),
            operands=sources,
            weight=self.weights(out, shape[-1]),
            bias=self.weights(out) if self.pick(True, False) else None,
            input_shape=shape,
        )

    def conv(self, name, shape, sources, same=False):
        rank = len(shape) - 1
        groups = self.pick(1, shape[0])
        out = shape[0] if same else groups * self.pick(1, 2)
        kernel, stride, dilation = (tuple(self.pick(1, 2) for _ in range(rank)) for _ in range(3))
        if same:
            stride, dilation = (1,) * rank, (1,) * rank
            padding = tuple((k - 1, 0) for k in kernel)
        else:
            padding = tuple((self.pick(0, 1), self.pick(0, 1, 2)) for _ in range(rank))
        sizes = tuple(
            (n + lo + hi - (k - 1) * d - 1) // s + 1
            for n, (lo, hi), k, d, s in zip(shape[1:], padding, kernel, dilation, stride, strict=True)
        )
        if min(sizes) < 1:
            return self.linear(name, shape, sources, 2)
        return Conv(
            name=name,
            shape=(out, *sizes),
            operands=sources,
            weight=self.weights(out, shape[0] // groups, *kernel),
            bias=self.weights(out) if self.pick(True, False) else None,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            input_shape=shape,
        )

    def _pool(self, shape, sources, exact):
        kernel = self.pick((2, 2), (2, 1), (3, 2))
        stride = self.pick((1, 1), (2, 2), (1, 3))
        padding = tuple((self.pick(0, 1), self.pick(0, 1)) for _ in range(2))
        sizes = tuple(
            (n + lo + hi - k) // s + 1 for n, (lo, hi), k, s in zip(shape[1:], padding, kernel, stride, strict=True)
        )
        if min(sizes) < 1:
            return self._reshape(shape, sources, exact)
        divisor = self.pick(1, 1, kernel[0] * kernel[1])
        pool = Pool(
            name=self.name("pool"),
            shape=(shape[0], *sizes),
            operands=sources,
            kernel=kernel,
            stride=stride,
            padding=padding,
            divisor=divisor,
            input_shape=shape,
        )
        return self.add(pool, exact and divisor in (1, 2, 4))

    def _scale(self, shape, sources, exact):
        self.add(
            Scale(name=self.name("scale"), shape=shape, operands=sources, scale=self.parameter(shape, -2, 2)), False
        )

    def _norm(self, shape, sources, exact):
        axis = self.pick(0, -1)
        scale, shift, mean = (self.rng.normal(size=shape[axis]) for _ in range(3))
        mean = self.pick(mean, None)
        name = self.name("norm")
        self.add(Norm(name=name, shape=shape, operands=sources, scale=scale, shift=shift, mean=mean, axis=axis), False)

    def _max_pool(self, shape, sources, exact):
        kernel = tuple(self.pick(1, 2) for _ in shape[1:])
        padding = tuple((self.pick(0, k // 2), self.pick(0, k // 2)) for k in kernel)
        stride = tuple(self.pick(1, 2) for _ in kernel)
        sizes = tuple(
            (n + lo + hi - k) // s + 1 for n, (lo, hi), k, s in zip(shape[1:], padding, kernel, stride, strict=True)
        )
        if not kernel or min(sizes) < 1:
            return self._reshape(shape, sources, exact)
        pool = MaxPool(
            name=self.name("max"),
            shape=(shape[0], *sizes),
            operands=sources,
            kernel=kernel,
            stride=stride,
            padding=padding,
            input_shape=shape,
        )
        return self.add(pool, exact)

    def _concat(self, shape, sources, exact):
        sizes = (shape[0],) * len(sources)
        whole = (sum(sizes), *shape[1:])
        self.add(Concat(name=self.name("concat"), shape=whole, operands=sources, sizes=sizes), exact)

    def _product(self, shape, sources, exact):
        """The product of one source with another of its shape, or as a matrix with its own transposition."""
        first, second = sources[0], sources[-1]
        if len(shape) < 2 or self.pick(True, False):
            self.add(
                Product(
                    name=self.name("product"),
                    shape=shape,
                    operands=(first, second),
                    operand_shapes=(shape, shape),
                    matrices=False,
                ),
                False,
            )
            return
        turned = (*shape[:-2], shape[-1], shape[-2])
        places = np.arange(int(np.prod(shape))).reshape(shape).swapaxes(-1, -2)
        back = self.name("turned")
        self.add(Gather(name=back, shape=turned, operands=(second,), indices=places, input_shape=shape), exact)
        name, made = self.name("product"), (*shape[:-1], shape[-2])
        sources = (first, Operand(back))
        self.add(Product(name=name, shape=made, operands=sources, operand_shapes=(shape, turned), matrices=True), False)

    def _gather(self, shape, sources, exact):
        made = self.pick(shape, shape[::-1], (int(np.prod(shape)) + 1,))
        indices = self.rng.integers(-1, int(np.prod(shape)), made)
        name = self.name("gather")
        self.add(Gather(name=name, shape=made, operands=sources, indices=indices, input_shape=shape), exact)

    def _delay(self, shape, sources, exact):
        steps = self.rng.integers(0, 4, self.pick((), shape)) if self.pick(True, True, False) else np.array(7)
        self.add(Delay(name=self.name("delay"), shape=shape, operands=sources, steps=steps.astype(np.int64)), exact)

    def _reshape(self, shape, sources, exact):
        self.add(
            Reshape(name=self.name("flat"), shape=(int(np.prod(shape)),), operands=sources, input_shape=shape), exact
        )

    def _neuron(self, shape, sources, exact):
        name, back = self.name("neuron"), None
        loop = self.pick(None, None, "self", "linear", "conv", "delay", "scale", "neuron")
        delay = self.pick(1, 1, 2)
        if loop == "self":
            sources += (Operand(name, delay),)
        elif loop is not None:
            back = f"{name}.back"
            returning = Operand(back, delay)
            sources = (returning, *sources) if self.pick(True, False) else (*sources, returning)
        threshold = self.draw(st.integers(0, 4)) > 0 or loop in ("linear", "conv")
        self.add(self.neuron(name, shape, sources, threshold), threshold)
        if back is not None:
            self._back(loop, back, shape, (Operand(name),), threshold)

    def _back(self, loop, name, shape, sources, exact):
        match loop:
            case "conv" if len(shape) > 1:
                self.add(self.conv(name, shape, sources, same=True), exact)
            case "linear" | "conv":
                self.add(self.linear(name, shape, sources, shape[-1]), exact)
            case "delay":
                steps = self.rng.integers(0, 3, shape).astype(np.int64)
                self.add(Delay(name=name, shape=shape, operands=sources, steps=steps), exact)
            case "scale":
                scale = Scale(name=name, shape=shape, operands=sources, scale=self.parameter(shape, -1, 1))
                self.add(scale, False)
            case "neuron":
                self.add(self.neuron(name, shape, sources, True), True)

    def neuron(self, name, shape, sources, threshold):
        def maybe(low, high):
            return self.parameter(shape, low, high) if self.pick(True, False, False) else None

        synapse = i_start = None
        if self.pick(True, False, False):
            synapse = Synapse(self.pick("euler", "exp_add"), self.parameter(shape, 0, 1), maybe(0.5, 2))
            if self.more:
                i_start = maybe(-1, 1)
        reset = self.pick("value", "subtract", "subtract_delayed", "value_delayed", "none", "snntorch_subtract_now")
        counting = self.counting()
        adaptation = None
        if self.more and threshold and not counting and reset != "snntorch_subtract_now" and self.pick(True, False):
            subtracts = self.pick("baseline", "adapted")
            start = self.parameter(shape, -0.5, 1) if self.pick(True, False) else None
            adaptation = Adaptation(self.parameter(shape, 0, 0.9), self.parameter(shape, 0, 1), subtracts, start)
        return Neuron(
            name=name,
            shape=shape,
            operands=sources,
            decay=self.parameter(shape, 0, 1) if self.pick(True, True, True, False) else None,
            threshold=self.parameter(shape, 0.25, 2) if threshold else None,
            gain=maybe(0.25, 2),
            offset=maybe(-1, 1),
            v_reset=maybe(-1, 0.5),
            v_min=maybe(-2, 0),
            v_start=maybe(-1, 1),
            i_start=i_start,
            synapse=synapse,
            compare=self.pick("gt", "ge"),
            reset=reset,
            adaptation=adaptation,
            **counting,
        )

    def counting(self):
        """Fields of a neuron that fires several spikes, now and then."""
        if not self.pick(True, False, False):
            return {}
        rounding = self.pick("down", "half_up", "half_even") if self.more else "down"
        return {"multi_spike": True, "cap": self.pick(None, None, 1, 3) if self.more else None, "rounding": rounding}

    def weights(self, *shape):
        return (self.rng.integers(-4, 5, shape) / 4).astype(F)

    def parameter(self, shape, low, high):
        """Uniform, per channel or per element; any float or one on the grid of 1/4."""
        size = self.pick((), (shape[0], *(1,) * (len(shape) - 1)), shape)
        values = self.rng.uniform(low, high, size)
        on_grid = np.ceil(values * 4) / 4
        return np.asarray(on_grid if self.pick(True, False) else values, F)
