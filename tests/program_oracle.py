"""The Program's equations, one time step and one sample at a time, as slow and plain as can be.

It shares no code with the reference run or any exporter. Sums are made in float64 and refused (`Inexact`) where
float32 could round them in some order, so that what is left must agree bit for bit everywhere.
"""

import itertools

import numpy as np

from stl_deploy.graph.program import (
    Concat,
    Conv,
    Delay,
    Gather,
    Input,
    Linear,
    MaxPool,
    Neuron,
    Norm,
    Output,
    Pool,
    Product,
    Reshape,
    Scale,
)

F = np.float32


class Inexact(Exception):
    """A sum does not fit in float32 in every order."""


def simulate(program, inputs):
    """inputs: {Input node: [T, B, *shape]}; returns {node: [T, B, *shape]}."""
    steps, batch = next(iter(inputs.values())).shape[:2]
    samples = [_sample(program, {name: x[:, b] for name, x in inputs.items()}, steps) for b in range(batch)]
    return {node.name: np.stack([sample[node.name] for sample in samples], axis=1) for node in program.nodes}


def _sample(program, inputs, steps):
    values = {node.name: [] for node in program.nodes}
    arrived = {node.name: [] for node in program.nodes}
    states = {}
    for t in range(steps):
        for node in program.nodes:
            if isinstance(node, Input):
                values[node.name].append(inputs[node.name][t].astype(F))
                continue
            total, parts = None, []
            for source in node.operands:
                past = t - source.delay
                shape = program.by_name[source.node].shape
                value = values[source.node][past] if past >= 0 else np.zeros(shape, F)
                parts.append(value)
                total = value if total is None or isinstance(node, Concat | Product) else total + value
            if isinstance(node, Product):
                total = parts
                assert tuple(part.shape for part in parts) == node.operand_shapes
            if isinstance(node, Concat):
                total = np.concatenate(parts)
                assert tuple(map(len, parts)) == node.sizes
            arrived[node.name].append(total)
            values[node.name].append(_output(node, total, arrived[node.name], states, t))
            assert values[node.name][-1].shape == node.shape
    return {name: np.stack(rows) for name, rows in values.items()}


def _output(node, x, arrived, states, t):
    match node:
        case Output() | Concat():
            return x
        case Product():
            return _product(node, *x)
        case Norm():
            y = np.empty(node.shape, F)
            for at in np.ndindex(*node.shape):
                c = at[node.axis]
                y[at] = F(node.scale[c] * (float(x[at]) - (0 if node.mean is None else node.mean[c])) + node.shift[c])
            return y
        case Gather():
            flat = x.reshape(-1)
            places = node.indices.reshape(-1)
            return np.array([F(0) if i < 0 else flat[i] for i in places], F).reshape(node.shape)
        case MaxPool():
            return _max_pool(node, x)
        case Linear():
            y = np.empty(node.shape, F)
            for at in np.ndindex(*node.shape):
                y[at] = exact_sum(node.weight[at[-1]] * x[at[:-1]].astype(float), _bias(node, at[-1]))
            return y
        case Conv():
            return _conv(node, x)
        case Scale():
            return x * node.scale
        case Pool():
            return _pool(node, x)
        case Reshape():
            return x.reshape(node.shape)
        case Delay():
            late = np.broadcast_to(node.steps, node.shape)
            y = np.zeros(node.shape, F)
            for at in np.ndindex(*node.shape):
                if late[at] <= t:
                    y[at] = arrived[t - late[at]][at]
            return y
        case Neuron():
            return _neuron(node, x, states.setdefault(node.name, {}))
    raise AssertionError(node)


def _product(node, a, b):
    y = np.empty(node.shape, F)
    for at in np.ndindex(*node.shape):
        if node.matrices:
            *lead, i, j = at
            y[at] = exact_sum([float(a[(*lead, i, k)]) * float(b[(*lead, k, j)]) for k in range(a.shape[-1])])
        else:
            y[at] = F(a[at] * b[at])
    return y


def exact_sum(terms, bias=0.0):
    """The sum of float64 terms as float32; raises Inexact unless every order of float32 additions gives it."""
    terms = np.append(np.ravel(terms), float(bias))
    scaled = terms * 2.0**12
    if (scaled != np.round(scaled)).any() or np.abs(scaled).sum() > 2**24:
        raise Inexact
    return F(terms.sum())


def _bias(node, channel):
    return 0.0 if node.bias is None else node.bias[channel]


def _padded(x, padding):
    return np.pad(x.astype(float), [(0, 0)] * (x.ndim - len(padding)) + list(padding))


def _conv(node, x):
    x, y = _padded(x, node.padding), np.empty(node.shape, F)
    out_group, in_group = node.shape[0] // node.groups, node.weight.shape[1]
    for at in np.ndindex(*node.shape):
        first = at[0] // out_group * in_group
        terms = []
        for tap in itertools.product(*map(range, node.weight.shape[2:])):
            where = tuple(o * s + k * d for o, s, k, d in zip(at[1:], node.stride, tap, node.dilation, strict=True))
            terms += [node.weight[(at[0], c, *tap)] * x[(first + c, *where)] for c in range(in_group)]
        y[at] = exact_sum(terms, _bias(node, at[0]))
    return y


def _pool(node, x):
    x, y = _padded(x, node.padding), np.empty(node.shape, F)
    for at in np.ndindex(*node.shape):
        i, j = at[-2] * node.stride[0], at[-1] * node.stride[1]
        y[at] = exact_sum(x[(*at[:-2], slice(i, i + node.kernel[0]), slice(j, j + node.kernel[1]))])
    return y if node.divisor == 1 else y / F(node.divisor)


def _max_pool(node, x):
    y = np.empty(node.shape, F)
    for at in np.ndindex(*node.shape):
        found = []
        for tap in itertools.product(*map(range, node.kernel)):
            where = tuple(
                o * s + k - before for o, s, k, (before, _) in zip(at[1:], node.stride, tap, node.padding, strict=True)
            )
            if all(0 <= i < n for i, n in zip(where, x.shape[1:], strict=True)):
                found.append(x[(at[0], *where)])
        y[at] = max(found)
    return y


def _neuron(node, x, state):
    if not state:
        start = F(0) if node.v_start is None else node.v_start
        current = F(0) if node.i_start is None else node.i_start
        state.update(v=np.zeros(node.shape, F) + start, i=np.zeros(node.shape, F) + current, s=np.zeros(node.shape, F))
    drive, before = x, state["v"]
    if node.synapse is not None:
        arriving = x if node.synapse.gain is None else node.synapse.gain * x
        if node.synapse.rule == "euler":
            state["i"] = node.synapse.decay * state["i"] + arriving
        else:
            state["i"] = (state["i"] + arriving) * node.synapse.decay
        drive = state["i"]
    if node.gain is not None:
        drive = node.gain * drive
    v = drive if node.decay is None else node.decay * state["v"] + drive
    if node.offset is not None:
        v = v + node.offset
    over = F(0) * state["v"]
    if node.threshold is not None and node.decay is not None and node.reset == "snntorch_subtract_now":
        over = (before > node.threshold).astype(F)
        v = v - node.threshold * over
    level = subtracted = node.threshold
    if node.adaptation is not None:
        start = F(0) if node.adaptation.start is None else node.adaptation.start
        state["a"] = node.adaptation.decay * state.get("a", start) + node.adaptation.jump * state["s"]
        level = node.threshold + state["a"]
        subtracted = level if node.adaptation.subtracts == "adapted" else node.threshold
    if node.threshold is not None and node.reset == "subtract_delayed":
        v = v - subtracted * state["s"]
    if node.threshold is not None and node.reset == "value_delayed":
        v = np.where(state["s"] > 0, F(0) if node.v_reset is None else node.v_reset, v).astype(F)
    if node.v_min is not None:
        v = np.maximum(v, node.v_min)
    state["v"] = v
    if node.threshold is None:
        return v
    if node.multi_spike:
        u = (v / node.threshold).astype(F)
        s = {"down": np.trunc(u), "half_up": np.floor(u + F(0.5)), "half_even": np.round(u)}[node.rounding]
        s = np.maximum(s, F(0))
        s = s if node.cap is None else np.minimum(s, F(node.cap))
    else:
        s = (v > level if node.compare == "gt" else v >= level).astype(F)
    state["s"] = s
    if node.reset == "value":
        state["v"] = np.where(s > 0, F(0) if node.v_reset is None else node.v_reset, v)
    if node.reset == "snntorch_subtract_now" and node.decay is not None:
        state["v"] = v - node.threshold * (s - over)
    if node.reset == "subtract":
        state["v"] = v - subtracted * s
    return s
