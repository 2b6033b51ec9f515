"""Every pass is run against what it was given: one that gets something wrong is caught by the run, by its name."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stl_deploy.config.options import FoldOptions
from stl_deploy.errors import GraphError, ParityError
from stl_deploy.graph.program import (
    DT,
    Concat,
    Conv,
    Gather,
    Input,
    Linear,
    MaxPool,
    Neuron,
    Node,
    Norm,
    Operand,
    Output,
    Pool,
    Product,
    Program,
    Reshape,
    Scale,
)
from stl_deploy.passes import CAPTURED, FOREIGN, apply
from stl_deploy.passes.base import Pass, Rewritten
from stl_deploy.passes.equivalence import Cut, require_equivalent
from tests.drawn import examples
from tests.strategies import programs

RNG = np.random.default_rng(0)


def _f32(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


def _network() -> Program:
    """One in which passes for captured modules have something to do."""
    theta = np.float32(0.5)
    nodes: tuple[Node, ...] = (
        Input(name="input", shape=(1, 6, 6), operands=()),
        Conv(
            name="conv",
            shape=(4, 6, 6),
            operands=(Operand("input"),),
            weight=_f32(4, 1, 3, 3),
            bias=None,
            stride=(1, 1),
            padding=((1, 1), (1, 1)),
            dilation=(1, 1),
            groups=1,
            input_shape=(1, 6, 6),
        ),
        Norm(
            name="norm",
            shape=(4, 6, 6),
            operands=(Operand("conv"),),
            mean=RNG.normal(size=4),
            scale=RNG.normal(size=4),
            shift=RNG.normal(size=4),
        ),
        Neuron(name="lif1", shape=(4, 6, 6), operands=(Operand("norm"),), decay=np.float32(0.75), threshold=theta),
        MaxPool(
            name="pool",
            shape=(4, 3, 3),
            operands=(Operand("lif1"),),
            kernel=(2, 2),
            stride=(2, 2),
            padding=((0, 0), (0, 0)),
            input_shape=(4, 6, 6),
        ),
        Gather(
            name="order",
            shape=(36,),
            operands=(Operand("pool"),),
            indices=np.arange(36).reshape(4, 3, 3).transpose(1, 2, 0).reshape(-1),
            input_shape=(4, 3, 3),
        ),
        Linear(name="up", shape=(40,), operands=(Operand("order"),), weight=_f32(40, 36), bias=None, input_shape=(36,)),
        Linear(name="fc", shape=(8,), operands=(Operand("up"),), weight=_f32(8, 40), bias=_f32(8), input_shape=(40,)),
        Neuron(
            name="lif2",
            shape=(8,),
            operands=(Operand("fc"),),
            decay=np.float32(0.5),
            threshold=theta,
            offset=np.float32(0.0500001),
            v_start=np.float32(0.1),
        ),
        Concat(name="both", shape=(16,), operands=(Operand("lif2"), Operand("lif2", 2)), sizes=(8, 8)),
        Linear(
            name="last", shape=(5,), operands=(Operand("both"),), weight=_f32(5, 16), bias=_f32(5), input_shape=(16,)
        ),
        Neuron(name="current", shape=(5,), operands=(Operand("last"),), decay=np.float32(0.6), threshold=None),
        Neuron(name="lif3", shape=(5,), operands=(Operand("current"),), decay=np.float32(0.9), threshold=theta),
        Output(name="output", shape=(5,), operands=(Operand("lif3"),)),
    )
    return Program(nodes, DT)


def _multiplied() -> Program:
    """One with a product of signals, which norms move in front of rearrangements for."""
    turned = np.arange(6).reshape(2, 3).T
    nodes: tuple[Node, ...] = (
        Input(name="input", shape=(2, 3), operands=()),
        Gather(name="order", shape=(3, 2), operands=(Operand("input"),), indices=turned, input_shape=(2, 3)),
        Norm(
            name="norm",
            shape=(3, 2),
            operands=(Operand("order"),),
            axis=-1,
            mean=RNG.normal(size=2),
            scale=RNG.normal(size=2),
            shift=RNG.normal(size=2),
        ),
        Neuron(name="lif", shape=(3, 2), operands=(Operand("norm"),), decay=np.float32(0.5), threshold=np.float32(0.5)),
        Product(
            name="product",
            shape=(3, 2),
            operands=(Operand("lif"), Operand("lif", 1)),
            operand_shapes=((3, 2), (3, 2)),
            matrices=False,
        ),
        Output(name="output", shape=(3, 2), operands=(Operand("product"),)),
    )
    return Program(nodes, DT)


def _late() -> Program:
    """One whose input reaches each neuron by a delay of its own."""
    x, shares = Operand("input"), {"now": (0.75, 0.5, 0, 0), "later": (0, 0, 1.5, -2)}
    scales = [Scale(name=name, shape=(4,), operands=(x,), scale=np.float32(share)) for name, share in shares.items()]
    sources = (Operand("now"), Operand("later", 2))
    nodes: tuple[Node, ...] = (
        Input(name="input", shape=(4,), operands=()),
        *scales,
        Neuron(name="lif", shape=(4,), operands=sources, decay=np.float32(0.5), threshold=np.float32(0.5)),
        Output(name="output", shape=(4,), operands=(Operand("lif"),)),
    )
    return Program(nodes, DT)


def _flattened() -> Program:
    """One whose neurons, each with its own decay, read a flattened image."""
    nodes: tuple[Node, ...] = (
        Input(name="input", shape=(2, 3), operands=()),
        Reshape(name="flat", shape=(6,), operands=(Operand("input"),), input_shape=(2, 3)),
        Neuron(name="lif", shape=(6,), operands=(Operand("flat"),), decay=RNG.random(6), threshold=np.float32(1.5)),
        Output(name="output", shape=(6,), operands=(Operand("lif"),)),
    )
    return Program(nodes, DT)


_OF_PASS = {"norms_before_orders": _multiplied, "merge_delays": _late, "flatten_late": _flattened}
"""Networks of passes that find nothing to do in the usual one."""


def _broken(program: Program, before: Program) -> Program:
    """Each array that a pass made two or three times as large; where it made none, the last edge gone a step late."""
    held = {id(getattr(node, field.name)) for node in before.nodes for field in fields(node)}
    nodes, moved = [], False
    for node in program.nodes:
        new = {
            field.name: value * (2 if isinstance(node, Neuron) else 3)
            for field in fields(node)
            if isinstance(value := getattr(node, field.name), np.ndarray | np.generic)
            and value.dtype.kind == "f"
            and id(value) not in held
        }
        moved |= any(np.any(value) for value in new.values())
        nodes.append(replace(node, **new))
    if moved:
        return replace(program, nodes=tuple(nodes))
    changed = [n for n in program.nodes if n.name not in before.by_name or n is not before.by_name[n.name]]
    late = replace(changed[-1], operands=tuple(Operand(s.node, s.delay + 1) for s in changed[-1].operands))
    return replace(program, nodes=tuple(late if node is changed[-1] else node for node in program.nodes))


def caught(right: Pass, program: Program, recipe: tuple[Pass, ...], options: FoldOptions) -> None:
    """Raise AssertionError unless the recipe acts on the program by this pass, and is refused where that is broken."""
    acted = []

    def wrong(given: Program) -> Rewritten:
        made = right.run(given)
        acted.append(made.program is not given)
        return replace(made, program=_broken(made.program, given))

    broken = [replace(right, run=wrong) if one is right else one for one in recipe]
    with pytest.raises(ParityError, match=f"pass {right.name}: "):
        apply(program, broken, options)
    assert acted == [True]


@pytest.mark.parametrize("one", CAPTURED, ids=lambda one: one.name)
def test_a_pass_that_is_wrong_is_caught_by_name(one: Pass) -> None:
    caught(one, _OF_PASS.get(one.name, _network)(), CAPTURED, FoldOptions())


def _foreign() -> Program:
    """One in which every pass for files of others has something to do, but the delays' ones."""
    conv = dict(stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), groups=1, input_shape=(2, 5, 5))
    pool = dict(kernel=(2, 2), stride=(2, 2), padding=((0, 0), (0, 0)), divisor=4, input_shape=(3, 4, 4))
    theta = np.float32(0.7)
    nodes: tuple[Node, ...] = (
        Input(name="input", shape=(2, 5, 5), operands=()),
        Scale(name="before", shape=(2, 5, 5), operands=(Operand("input"),), scale=np.float32([[[0.7]], [[1.3]]])),
        Conv(
            name="conv", shape=(3, 4, 4), operands=(Operand("before"),), weight=_f32(3, 2, 2, 2), bias=_f32(3), **conv
        ),
        Scale(name="behind", shape=(3, 4, 4), operands=(Operand("conv"),), scale=np.abs(_f32(3, 1, 1)) + 1),
        Neuron(name="lif1", shape=(3, 4, 4), operands=(Operand("behind"),), decay=np.float32(0.8), threshold=theta),
        Pool(name="pool", shape=(3, 2, 2), operands=(Operand("lif1"),), **pool),
        Reshape(name="flat", shape=(12,), operands=(Operand("pool"),), input_shape=(3, 2, 2)),
        Linear(name="fc", shape=(6,), operands=(Operand("flat"),), weight=_f32(6, 12), bias=None, input_shape=(12,)),
        Linear(name="back", shape=(6,), operands=(Operand("lif2", 1),), weight=_f32(6, 6), bias=None, input_shape=(6,)),
        Scale(name="sum", shape=(6,), operands=(Operand("fc"), Operand("back")), scale=np.float32(0.6)),
        Neuron(name="lif2", shape=(6,), operands=(Operand("sum"),), decay=np.float32(0.5), threshold=theta),
        Output(name="output", shape=(6,), operands=(Operand("lif2"),)),
    )
    return Program(nodes, DT, {"input": {"coding": "analog", "fraction_bits": 4, "max": 1.0}})


ASKED = {"merge_delays", "round_delays"}
"""The first is broken with the passes for captured modules; the second changes what was requested: nothing checks."""


@pytest.mark.parametrize("one", [one for one in FOREIGN if one.name not in ASKED], ids=lambda one: one.name)
def test_a_pass_over_a_foreign_file_that_is_wrong_is_caught_by_name(one: Pass) -> None:
    how = FoldOptions(thresholds="weights", merge_pools=True, exact_grid=one.name != "narrow")
    caught(one, _foreign(), FOREIGN, how)
    assert apply(_foreign(), FOREIGN, how).program.nodes


def test_the_recipe_leaves_what_it_says_it_removes() -> None:
    program = _network()
    for one in CAPTURED:
        made = one.run(program)
        require_equivalent(program, made.program, by=one.name, exactness=one.exactness, places=made.places)
        program = made.program
        assert not any(isinstance(node, one.removes) for node in program.nodes)


def test_a_neuron_that_random_input_never_reaches_is_judged_too() -> None:
    """Behind a population that is always silent."""
    nodes = list(_network().nodes)
    silent = [replace(n, threshold=np.float32(1e6)) if isinstance(n, Neuron) and n.name == "lif1" else n for n in nodes]
    weight = next(node for node in silent if isinstance(node, Linear) and node.name == "fc")
    worse = [replace(weight, weight=weight.weight * np.float32(1.01)) if node is weight else node for node in silent]
    with pytest.raises(ParityError, match=r"pass mine: neuron \[\d\] of 'lif2' at step \d"):
        require_equivalent(Program(tuple(silent), DT), Program(tuple(worse), DT), by="mine")


def test_a_threshold_of_one_pixel_is_seen() -> None:
    program = _network()
    lif = program.by_name["lif1"]
    assert isinstance(lif, Neuron)
    theta = np.full(lif.shape, 0.5, np.float32)
    theta[2, 3, 1] = 0.501
    other = replace(program, nodes=tuple(replace(lif, threshold=theta) if n is lif else n for n in program.nodes))
    with pytest.raises(ParityError, match=r"neuron \[2, 3, 1\] of 'lif1'"):
        require_equivalent(program, other, by="mine")


def test_an_output_without_neurons_is_compared() -> None:
    entry, last = (
        Input(name="input", shape=(4,), operands=()),
        Output(name="output", shape=(2,), operands=(Operand("w"),)),
    )
    w = Linear(name="w", shape=(2,), operands=(Operand("input"),), weight=_f32(2, 4), bias=None, input_shape=(4,))
    other = replace(w, weight=w.weight * np.float32(1.001))
    with pytest.raises(ParityError, match=r"pass mine: output 'output' at step \d"):
        require_equivalent(Program((entry, w, last), DT), Program((entry, other, last), DT), by="mine")


@pytest.mark.parametrize("wrong", ["first", "last"])
def test_a_weight_behind_any_neuron_is_seen(wrong: str) -> None:
    """Of 40 drawn at rate 0.3 in 6 places, some would never spike, and the weights behind them go unseen."""
    lif = Neuron(name="lif", shape=(40,), operands=(Operand("first"),), decay=np.float32(0.5), threshold=np.float32(1))
    first = Linear(
        name="first", shape=(40,), operands=(Operand("in"),), weight=_f32(40, 40), bias=None, input_shape=(40,)
    )
    last = replace(first, name="last", operands=(Operand("lif"),))
    nodes = Input(name="in", shape=(40,), operands=()), first, lif, last
    network = Program((*nodes, Output(name="out", shape=(40,), operands=(Operand("last"),))), DT)
    for column in range(40):
        weight = first.weight.copy()
        weight[:, column] += 0.1
        other = tuple(replace(n, weight=weight) if n.name == wrong else n for n in network.nodes)  # type: ignore[call-arg]
        with pytest.raises(ParityError, match="pass mine"):
            require_equivalent(network, replace(network, nodes=other), by="mine")


@examples(40)
@given(programs(max_nodes=6), st.data())
def test_what_is_kept_of_an_earlier_run_is_what_a_run_of_its_own_gives(program: Program, data: st.DataObject) -> None:
    """Only what another node leads to runs again, whichever node and population that is."""
    at = {node.name for node in program.spiking}
    others = (node if data.draw(st.booleans(), label=node.name) else _other(node) for node in program.nodes)
    before = replace(program, nodes=tuple(others))
    try:
        known = Cut(before, {name for name in at if data.draw(st.booleans(), label=f"cut {name}")}).run(before)
        alone = Cut(program, at).run(program)
    except GraphError:
        return
    shared = Cut(program, at, known.cut).run(program, known=known)
    assert shared.currents.keys() == alone.currents.keys()
    for name, current in alone.currents.items():
        np.testing.assert_array_equal(shared.currents[name], current, err_msg=name)
    for name, values in alone.outputs.items():
        np.testing.assert_array_equal(shared.outputs[name], values, err_msg=name)


def _other(node: Node) -> Node:
    """Another number where a node has one that counts."""
    if isinstance(node, Linear | Conv):
        return replace(node, weight=node.weight + 1)
    if isinstance(node, Scale):
        return replace(node, scale=node.scale * 2)
    return replace(node, threshold=node.threshold * 2) if isinstance(node, Neuron) and node.spiking else node
