"""Programs with Cells, written operation by operation."""

import numpy as np

from stl_deploy.graph.cell import Cell, Constant, Operation, State
from stl_deploy.graph.program import Gather, Input, Linear, Operand, Output, Program


def cell(name, operands, lines, *, states=(), constants=(), outputs, output_shapes=None, line=""):
    """A Cell of text lines: ``"v = add leak x"`` (float32) or ``"f:bool = gt v theta"``.

    operands: (name, operand, shape) each; states: (name, next, start) with start of the state's shape.
    """
    operations = []
    for text in lines:
        made, computed = text.split(" = ")
        made, _, dtype = made.partition(":")
        kind, *args = computed.split()
        operations.append(Operation(made, kind, tuple(args), dtype or "float32", line))
    shape = operands[0][2]
    output_shapes = output_shapes or (shape,) * len(outputs)
    whole = output_shapes[0] if len(outputs) == 1 else (sum(int(np.prod(s)) for s in output_shapes),)
    return Cell(
        name=name,
        shape=whole,
        operands=tuple(operand for _, operand, _ in operands),
        names=tuple(given for given, _, _ in operands),
        operand_shapes=tuple(of for _, _, of in operands),
        states=tuple(State(given, after, np.shape(start), np.asarray(start)) for given, after, start in states),
        constants=tuple(Constant(given, np.asarray(value)) for given, value in constants),
        operations=tuple(operations),
        outputs=tuple(outputs),
        output_shapes=output_shapes,
    )


F = np.float32
ADAPTIVE = (
    "u1 = mul beta u",
    "w1 = mul rho w",
    "in = sub x w1",
    "v = fma one_less in u1",
    "f:bool = gt v theta",
    "s = cast f",
    "still:bool = gt rest none",
    "held:bool = and f still",
    "u2 = where held zero v",
    "aw = mul a v",
    "bs = mul b s",
    "w2a = add w1 aw",
    "w2 = add w2a bs",
    "rest1:int64 = sub rest step",
    "rest2:int64 = max rest1 none",
)
CONSTANTS = (
    ("beta", F(0.9)),
    ("one_less", F(0.3)),
    ("rho", np.array([0.8, 0.7, 0.95], F)),
    ("a", F(0.05)),
    ("b", F(0.4)),
    ("theta", F(0.25)),
    ("zero", F(0)),
    ("none", np.int64(0)),
    ("step", np.int64(1)),
)
STATES = (("u", "u2", np.zeros(3, F)), ("w", "w2", np.full(3, 0.125, F)), ("rest", "rest2", np.full(3, 4, np.int64)))


def adaptive(name="cell", line="", **changes):
    """Three adaptive neurons whose reset holds for the first four steps only, counted in int64."""
    given = {"states": STATES, "constants": CONSTANTS, "outputs": ("s",)} | changes
    return cell(name, [("x", Operand("w_in"), (3,))], ADAPTIVE, line=line, **given)


def by_hand(x):
    """The spikes of `adaptive` for currents ``[T, B, 3]``, in numpy's scalars."""
    out = np.zeros_like(x)
    rho = np.array([0.8, 0.7, 0.95], F)
    for b in range(x.shape[1]):
        for k in range(3):
            u, w, rest = F(0), F(0.125), 4
            for t in range(len(x)):
                faded = F(rho[k] * w)
                drive = F(x[t, b, k] - faded)
                v = F(np.float64(F(0.3)) * np.float64(drive) + np.float64(F(F(0.9) * u)))
                s = F(v > F(0.25))
                w = F(F(faded + F(F(0.05) * v)) + F(F(0.4) * s))
                u = F(0) if s and rest > 0 else v
                rest = max(rest - 1, 0)
                out[t, b, k] = s
    return out


def counting():
    """A count in int64 that starts beyond 2^24, put out less what it starts from."""
    begin = np.int64(2**24)
    counter = cell(
        "cell",
        [("x", Operand("w_in"), (3,))],
        ["n1:int64 = add n one", "more:int64 = sub n1 begin", "c = cast more", "none = mul x zero", "y = add c none"],
        states=(("n", "n1", np.full(3, begin)),),
        constants=(("one", np.int64(1)), ("begin", begin), ("zero", F(0))),
        outputs=("y",),
    )
    return program(weights("w_in", "input", 3, 5, 1), counter, last="cell")


def weights(name, source, out, into, seed, delay=0):
    drawn = np.random.default_rng(seed).normal(0, 0.6, (out, into)).astype(F)
    return Linear(
        name=name, shape=(out,), operands=(Operand(source, delay),), weight=drawn, bias=None, input_shape=(into,)
    )


def program(*nodes, last, size=5, shape=(3,)):
    ends = (
        Input(name="input", shape=(size,), operands=()),
        Output(name="output", shape=shape, operands=(Operand(last),)),
    )
    return Program((ends[0], *nodes, ends[1]), 1e-4)


def feed_forward():
    return program(weights("w_in", "input", 3, 5, 1), adaptive(), last="cell")


def recurrent():
    """Two operands, one of them the Cell's own spikes a step late, behind weights; two outputs, picked apart."""
    both = cell(
        "cell",
        [("x", Operand("w_in"), (3,)), ("back", Operand("w_back"), (3,))],
        [
            "drive = add x back",
            "later = mul drive half",
            "now = where first drive later",
            "leak = mul v half",
            "v1 = add leak now",
            "f:bool = ge v1 theta",
            "s = cast f",
            "left = sub v1 s",
        ],
        states=(("v", "left", np.zeros(3, F)), ("first", "no", np.ones(1, bool))),
        constants=(("half", F(0.5)), ("theta", F(0.5)), ("no", np.array(False))),
        outputs=("s", "v1"),
    )
    pick = [
        Gather(name=name, shape=(3,), operands=(Operand("cell"),), indices=np.arange(3) + at, input_shape=(6,))
        for name, at in (("spikes", 0), ("potential", 3))
    ]
    nodes = (weights("w_in", "input", 3, 5, 2), weights("w_back", "spikes", 3, 3, 3, delay=1), both, *pick)
    return program(*nodes, weights("w_out", "potential", 2, 3, 4), last="w_out", shape=(2,))


def drive(steps=20, samples=4, size=5, seed=0):
    return (np.random.default_rng(seed).random((steps, samples, size)) < 0.4).astype(F)
