"""A slow reading of NIR, one number at a time, that shares no code with the lowering or the run.

It takes a NIR graph of one-dimensional nodes and a dialect and returns each node's output over time. Random graphs hold
dyadic numbers only, so that every sum and product is exact and results can be compared with ``==``; exponentials are
rounded to float32 as the Program's contract says.
"""

import math
from dataclasses import replace

import nir
import numpy as np
from hypothesis import strategies as st

from stl_deploy.exporters.nir.dialect import Dialect
from tests.graph.nets import a, bare, graph

F = np.float32


def simulate(net, dialect, x):
    """x: [T][n] for the node "input"; returns {node: [T][n]}. ``net.late`` names the edges that carry the last step."""
    sources = {name: [s for s, t in net.edges if t == name] for name in net.nodes}
    values, states = {name: [] for name in net.nodes}, {}
    read_as = {name: as_written(node, name in reached(net, name), dialect) for name, node in net.nodes.items()}
    for t in range(len(x)):
        for name, node in net.nodes.items():
            total = None
            for source in sources[name]:
                past = t - 1 if (source, name) in net.late else t
                arriving = values[source][past] if past >= 0 else [F(0)] * net.size[source]
                total = arriving if total is None else [p + q for p, q in zip(total, arriving, strict=True)]
            values[name].append(
                [F(v) for v in x[t]] if total is None else step(node, name, total, states, read_as[name], t)
            )
    return values


def reached(net, name):
    """The nodes that a node's output comes to."""
    found, ahead = set(), [name]
    while ahead:
        here = ahead.pop()
        new = {target for source, target in net.edges if source == here} - found
        found |= new
        ahead += new
    return found


def as_written(node, looped, dialect):
    """snnTorch's RSynaptic fails with ``reset_delay=False``, and is read as with the delay."""
    if dialect.reset == "snntorch_subtract_now" and isinstance(node, nir.CubaLIF) and looped:
        return replace(dialect, reset="subtract_delayed")
    return dialect


def step(node, name, x, states, dialect, t):
    match node:
        case nir.Output():
            return x
        case nir.Linear() | nir.Affine():
            rows = [sum((w * v for w, v in zip(row, x, strict=True)), F(0)) for row in node.weight]
            return rows if isinstance(node, nir.Linear) else [r + b for r, b in zip(rows, node.bias, strict=True)]
        case nir.Scale():
            return [v * s for v, s in zip(x, node.scale, strict=True)]
        case nir.Delay():
            states.setdefault(name, []).append(x)
            late = [t - round(float(d) / dialect.dt) for d in node.delay]
            return [states[name][past][k] if past >= 0 else F(0) for k, past in enumerate(late)]
        case nir.Threshold():
            return [F(fires(v, th, dialect)) for v, th in zip(x, node.threshold, strict=True)]
    return [neuron(node, k, v, states.setdefault((name, k), {}), dialect) for k, v in enumerate(x)]


def fires(v, theta, dialect):
    return v >= theta if dialect.compare == "ge" else v > theta


def neuron(node, k, x, state, dialect):
    field = {f: getattr(node, f)[k] for f in vars(node) if isinstance(getattr(node, f), np.ndarray)}
    theta, reset = field.get("v_threshold"), field.get("v_reset", F(0))
    dt = F(dialect.dt)
    if not state:
        starts = {"v_reset": reset if theta is not None else F(0), "v_leak": field.get("v_leak", F(0))}
        state.update(v=starts.get(dialect.start, F(0)), i=F(0), s=F(0))
    over = F(theta is not None and state["v"] > theta)
    if "tau_syn" in field:
        k_syn = dt / field["tau_syn"]
        if dialect.synapse == "euler":
            k_in = k_syn * field["w_in"] if dialect.gain == "r" else F(1)
            state["i"] = (1 - k_syn) * state["i"] + k_in * x
        else:
            state["i"] = (state["i"] + field["w_in"] * x) * F(math.exp(-float(k_syn)))
        x = state["i"]
    if "tau" not in field and "tau_mem" not in field:
        state["v"] = state["v"] + (dt * field["r"]) * x
    else:
        rate = dt / (field["tau"] if "tau" in field else field["tau_mem"])
        if dialect.leak == "exp" or ("tau_syn" in field and dialect.synapse == "exp_add"):
            decay = math.exp(-float(rate))
            state["v"] = F(decay) * state["v"] + scaled(x, decay, dialect)
            if field["v_leak"]:
                state["v"] = state["v"] + F((1 - decay) * float(field["v_leak"]))
        else:
            x = scaled(x, 1 - rate, dialect) if dialect.gain == "one_minus_decay" else (rate * field["r"]) * x
            state["v"] = (1 - rate) * state["v"] + x
            state["v"] = state["v"] + rate * field["v_leak"]
    if theta is None:
        return state["v"]
    if dialect.reset == "snntorch_subtract_now":
        state["v"] = state["v"] - theta * over
    if dialect.reset == "subtract_delayed":
        state["v"] = state["v"] - theta * state["s"]
    if dialect.reset == "value_delayed" and state["s"]:
        state["v"] = reset
    if dialect.v_min is not None:
        state["v"] = max(state["v"], -theta if dialect.v_min == "-threshold" else F(dialect.v_min))
    if dialect.spikes_per_step == "many":
        spikes = F(max(math.trunc(float(state["v"] / theta)), 0))
    else:
        spikes = F(fires(state["v"], theta, dialect))
    state["s"] = spikes
    if dialect.reset == "value" and spikes:
        state["v"] = reset
    if dialect.reset == "subtract":
        state["v"] = state["v"] - theta * spikes
    if dialect.reset == "snntorch_subtract_now":
        state["v"] = state["v"] - theta * (spikes - over)
    return spikes


def scaled(x, decay, dialect):
    return (1 - F(decay)) * x if dialect.gain == "one_minus_decay" else x


dialects = st.builds(
    Dialect,
    dt=st.sampled_from([0.5, 1.0]),
    leak=st.sampled_from(["euler", "euler", "exp"]),
    compare=st.sampled_from(["gt", "ge"]),
    reset=st.sampled_from(["value", "subtract", "subtract_delayed", "value_delayed", "none", "snntorch_subtract_now"]),
    spikes_per_step=st.sampled_from(["one", "many"]),
    v_min=st.sampled_from([None, None, "-threshold", -0.5, 0]),
    start=st.sampled_from(["zero", "v_reset", "v_leak"]),
    synapse=st.sampled_from(["euler", "exp_add"]),
    gain=st.sampled_from(["r", "r", "one_minus_decay"]),
)

weights = st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5, 1.0, 2.0])
_PARAMETERS = {
    "tau": [1.0, 2.0, 4.0],
    "tau_mem": [1.0, 2.0, 4.0],
    "tau_syn": [1.0, 2.0, 4.0],
    "r": [0.5, 1.0, 2.0, 4.0],
    "v_leak": [0.0, 0.0, 0.5],
    "v_threshold": [0.25, 0.5, 1.0, 2.0],
    "v_reset": [0.0, 0.0, -0.5, 0.125],
    "w_in": [0.5, 1.0, 2.0],
    "threshold": [0.0, 0.5, 1.0],
    "scale": [-1.0, 0.5, 2.0],
    "delay": [0.0, 1.0, 2.0, 5.0],
}
_FIELDS = {
    nir.Scale: ("scale",),
    nir.Delay: ("delay",),
    nir.Threshold: ("threshold",),
    nir.I: ("r",),
    nir.IF: ("r", "v_threshold", "v_reset"),
    nir.LI: ("tau", "r", "v_leak"),
    nir.LIF: ("tau", "r", "v_leak", "v_threshold", "v_reset"),
    nir.CubaLI: ("tau_syn", "tau_mem", "r", "v_leak", "w_in"),
    nir.CubaLIF: ("tau_syn", "tau_mem", "r", "v_leak", "v_threshold", "v_reset", "w_in"),
}
NEURONS = (nir.IF, nir.LIF, nir.CubaLIF, nir.I, nir.LI, nir.CubaLI, nir.Threshold)


@st.composite
def nets(draw):
    """Random nets of 1 to 4 layers on one axis, with skip edges, loops and self-edges."""
    size = {"input": draw(st.integers(1, 3))}
    nodes, edges, late = {"input": nir.Input(np.array([size["input"]]))}, [], set()
    for depth in range(draw(st.integers(1, 4))):
        name, last = f"n{depth}", list(nodes)[-1]
        kind = draw(st.sampled_from([nir.Linear, nir.Affine, *_FIELDS]))
        width = size[last]
        if kind in (nir.Linear, nir.Affine):
            size[name] = draw(st.integers(1, 3))
            matrix = [[draw(weights) for _ in range(width)] for _ in range(size[name])]
            fields = {"weight": np.array(matrix, np.float32)}
            if kind is nir.Affine:
                fields["bias"] = a(*(draw(weights) for _ in range(size[name])))
        else:
            size[name] = width
            fields = {f: a(*(draw(st.sampled_from(_PARAMETERS[f])) for _ in range(width))) for f in _FIELDS[kind]}
        nodes[name] = bare(kind, **fields)
        edges.append((last, name))
        same = [s for s in list(nodes)[:-2] if size[s] == width]
        if same and draw(st.booleans()):
            edges.append((draw(st.sampled_from(same)), name))
        if kind in NEURONS and size[name] == width and draw(st.integers(0, 2)) == 0:
            edges.append((name, name))
            late.add((name, name))
    last = list(nodes)[-1]
    nodes["output"] = nir.Output(np.array([size[last]]))
    edges.append((last, "output"))
    size["output"] = size[last]
    net = graph(nodes, edges)
    net.late, net.size = late, size
    return net
