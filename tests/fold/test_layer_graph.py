"""A Program folds into a NIR graph that is read back as the very Program meant."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stl_deploy.errors import CaptureError, InputError
from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.file import read_nir, write_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.exporters.nir.patch import to_graph
from stl_deploy.exporters.nir.write import late_behind, write_anew
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
    Program,
    Reshape,
    Scale,
)
from stl_deploy.graph.run import run
from stl_deploy.passes.permutations import arrange
from stl_deploy.pipeline.fold import fold_layers


def f32(*values: float) -> Any:
    return np.array(values, np.float32)


def graph(*layers: Node) -> Program:
    last = layers[-1]
    return Program((*layers, Output(name="output", shape=last.shape, operands=(Operand(last.name),))), DT)


def linear(name: str, weight: Any, source: str, bias: Any = None) -> Linear:
    array = np.array(weight, np.float32)
    return Linear(
        name=name,
        shape=array.shape[:1],
        operands=(Operand(source),),
        weight=array,
        bias=bias,
        input_shape=array.shape[1:],
    )


def neuron(name: str, source: str, shape: tuple[int, ...] = (2,), **options: Any) -> Neuron:
    given: dict[str, Any] = {"decay": f32(0.3)[0], "threshold": f32(1)[0]}
    return Neuron(name=name, shape=shape, operands=(Operand(source),), **(given | options))


X = Input(name="input", shape=(2,), operands=())


def program_of(layers: Program) -> Program:
    return fold_layers(layers).program


def test_a_norm_goes_into_the_weights_before_it() -> None:
    norm = Norm(
        name="norm", shape=(2,), operands=(Operand("fc"),), scale=np.array([2.0, 0.5]), shift=np.array([1.0, 0.0])
    )
    program = program_of(graph(X, linear("fc", [[1, 2], [3, 4]], "input", f32(1, 2)), norm))
    folded = program.by_name["fc"]
    assert isinstance(folded, Linear)
    assert folded.weight.tolist() == [[2, 4], [1.5, 2]]
    assert folded.bias is not None
    assert folded.bias.tolist() == [3, 1]


def test_a_norm_behind_a_shared_layer_has_weights_of_its_own() -> None:
    norm = Norm(
        name="norm", shape=(2,), operands=(Operand("fc"),), scale=np.array([2.0, 0.5]), shift=np.array([1.0, 0.0])
    )
    both = neuron("lif", "norm")
    both = Neuron(**{**vars(both), "operands": (Operand("norm"), Operand("fc"))})
    program = program_of(graph(X, linear("fc", [[1, 2], [3, 4]], "input"), norm, both))
    own = program.by_name["norm"]
    assert isinstance(own, Linear)
    assert own.weight.tolist() == [[2, 0], [0, 0.5]]


def test_a_concatenation_goes_into_the_weights_behind_it() -> None:
    concat = Concat(name="cat", shape=(3,), operands=(Operand("a"), Operand("b")), sizes=(2, 1))
    layers = graph(X, linear("a", [[1, 0], [0, 1]], "input"), linear("b", [[1, 1]], "input"), concat)
    behind = graph(*layers.nodes[:-1], linear("fc", [[1, 2, 3]], "cat", f32(4)))
    x = np.array([[[5, 7]]], np.float32)
    program = program_of(behind)
    assert run(program, x).y.item() == 5 + 2 * 7 + 3 * 12 + 4
    alone = program_of(layers)
    assert run(alone, x).y.tolist() == [[[5, 7, 12]]]


def test_linear_layers_are_joined_where_that_is_smaller() -> None:
    program = program_of(graph(X, linear("up", [[1, 0]] * 3 + [[0, 1]] * 3, "input"), linear("fc", [[1] * 6], "up")))
    assert [node.name for node in program.of(Linear)] == ["fc"]
    found = program.by_name["fc"]
    assert isinstance(found, Linear)
    assert found.weight.tolist() == [[3, 3]]


def test_decays_and_gains_come_back_to_the_bit() -> None:
    rng = np.random.default_rng(0)
    decay, gain = rng.random(500, np.float32), rng.random(500, np.float32) * 3
    lif = neuron("lif", "input", (500,), decay=decay, gain=gain, offset=rng.random(500, np.float32), reset="subtract")
    program = fold_layers(graph(Input(name="input", shape=(500,), operands=()), lif)).program
    found = program.by_name["lif"]
    assert isinstance(found, Neuron)
    assert (found.decay == decay).all()
    assert (found.gain == gain).all()
    assert to_graph(program).dialect.reset == "subtract"


def test_two_kinds_of_neurons_in_one_file(tmp_path: Path) -> None:
    first, last = neuron("a", "input", reset="subtract", compare="ge"), neuron("b", "a", v_reset=f32(-0.5)[0])
    program = fold_layers(graph(X, first, last)).program
    written = to_graph(program)
    assert written.dialect.nodes
    write_nir(written.graph, tmp_path / "net.nir")
    read = lower(read_nir(tmp_path / "net.nir"))
    for one in (program, read):
        assert [(n.reset, n.compare) for n in one.spiking] == [("subtract", "ge"), ("value", "gt")]
        assert one.spiking[1].v_reset is not None
        assert float(one.spiking[1].v_reset) == -0.5


def test_a_max_pool_of_currents_stays_for_nir_has_none() -> None:
    image = Input(name="input", shape=(1, 4, 4), operands=())
    pool = MaxPool(
        name="pool",
        shape=(1, 2, 2),
        operands=(Operand("input"),),
        kernel=(2, 2),
        stride=(2, 2),
        padding=((0, 0), (0, 0)),
        input_shape=(1, 4, 4),
    )
    folded = fold_layers(graph(image, pool))
    assert folded.program.origin is None
    assert any(folded.program.of(MaxPool))


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ({"lif": {"dt": 1.0}}, "expected options of a node: .*; found 'dt'"),
        ({"lif": {"reset": "never"}}, "dialect key 'reset': expected .*; found 'never'"),
        (["lif"], "expected an object of options by node"),
    ],
)
def test_options_of_nodes_are_checked(nodes: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Dialect.from_mapping({"nodes": nodes}, where="here")


IMAGE = Input(name="input", shape=(1, 4, 4), operands=())


def window(kind: type[Any], shape: tuple[int, ...], **options: Any) -> Any:
    return kind(
        name="a",
        shape=shape,
        operands=(Operand("input"),),
        stride=(1, 1),
        padding=((1, 0), (1, 0)),
        input_shape=IMAGE.shape,
        **options,
    )


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        (
            (X, neuron("a", "input", v_min=f32(-1, -2))),
            "bounds its potentials below by values from -2 to -1; a graph holds one bound for all neurons of a layer",
        ),
        ((IMAGE, window(Pool, (1, 4, 4), kernel=(2, 2), divisor=4)), "pads its sides unequally, for which NIR has no"),
        (
            (
                IMAGE,
                window(Conv, (1, 4, 4), weight=np.ones((1, 1, 2, 2), np.float32), bias=None, dilation=(1, 1), groups=1),
            ),
            "pads its sides unequally, which NIR cannot express",
        ),
    ],
)
def test_what_nir_has_no_word_for_is_refused(layers: tuple[Node, ...], reason: str) -> None:
    with pytest.raises(CaptureError, match=rf"layer 'a'.* {reason}"):
        write_anew(fold_layers(graph(*layers)).program)


@pytest.mark.parametrize(("axis", "scale"), [(0, [2.0]), (-1, [1.0, 2.0, 3.0, 4.0])])
def test_a_norm_without_a_shift_and_weights_before_it_is_a_scale(axis: int, scale: list[float]) -> None:
    norm = Norm(
        name="norm",
        shape=(1, 4, 4),
        operands=(Operand("input"),),
        scale=np.array(scale),
        shift=np.zeros(len(scale)),
        axis=axis,
    )
    program = program_of(graph(IMAGE, norm))
    assert isinstance(program.by_name["norm"], Scale)
    found = run(program, np.ones((1, 1, 1, 4, 4), np.float32)).y[0, 0, 0]
    assert found.tolist() == np.broadcast_to(np.array(scale), (4, 4)).tolist()


def test_a_norm_of_images_without_weights_before_it_is_a_depthwise_convolution() -> None:
    image = Input(name="input", shape=(2, 3, 3), operands=())
    norm = Norm(
        name="norm", shape=(2, 3, 3), operands=(Operand("input"),), scale=np.array([2, 3]), shift=np.array([1, 0])
    )
    program = program_of(graph(image, norm))
    assert isinstance(program.by_name["norm"], Conv)
    found = run(program, np.ones((1, 1, 2, 3, 3), np.float32)).y[0, 0]
    assert found[:, 0, 0].tolist() == [3, 3]
    assert (found == 3).all()


def test_weights_that_overflow_with_their_norm_are_refused() -> None:
    norm = Norm(name="norm", shape=(2,), operands=(Operand("fc"),), scale=np.array([1e39, 1]), shift=np.zeros(2))
    with pytest.raises(CaptureError, match="layer 'fc': weights are not finite after folding"):
        fold_layers(graph(X, linear("fc", [[1, 2], [3, 4]], "input"), norm))


def test_an_axis_that_nir_cannot_make_is_left_out_of_the_output() -> None:
    line = Reshape(name="a", shape=(2, 1), operands=(Operand("lif"),), input_shape=(2,))
    program = program_of(graph(X, neuron("lif", "input"), line))
    assert [node.name for node in program.nodes] == ["input", "lif", "output"]
    assert program.outputs[0].shape == (2,)


X4 = Input(name="input", shape=(4,), operands=())
CUBE = Input(name="input", shape=(2, 2, 2), operands=())
EIGHT = np.arange(8, dtype=np.float32)[None]


def gather(name: str, indices: Any, *sources: str | Operand, before: tuple[int, ...] | None = None) -> Gather:
    places = np.array(indices)
    read = tuple(source if isinstance(source, Operand) else Operand(source) for source in sources)
    return Gather(name=name, shape=places.shape, operands=read, indices=places, input_shape=before or places.shape)


def reshape(name: str, source: str, before: tuple[int, ...], after: tuple[int, ...]) -> Reshape:
    return Reshape(name=name, shape=after, operands=(Operand(source),), input_shape=before)


def reads(node: Any, *sources: Operand) -> Any:
    return replace(node, operands=sources)


def one_by_two(*sources: str) -> Conv:
    return Conv(
        name="conv",
        shape=(1, 3),
        operands=tuple(Operand(source) for source in sources),
        weight=f32([[1, 2]]),
        bias=None,
        stride=(1,),
        padding=((0, 0),),
        dilation=(1,),
        groups=1,
        input_shape=(1, 4),
    )


REARRANGED: dict[str, tuple[tuple[Node, ...], Any]] = {
    "a sum": (
        (
            X4,
            neuron("lif", "input", (4,)),
            linear("fc", np.eye(4), "input"),
            gather("axes", [3, 2, 1, 0], "lif", "fc"),
            linear("out", [[1, 2, 3, 4]], "axes"),
        ),
        lambda x: ((x > 0) + x) @ f32(4, 3, 2, 1)[:, None],
    ),
    "behind a flattening": (
        (
            CUBE,
            neuron("lif", "input", (2, 2, 2)),
            reshape("flat", "lif", (2, 2, 2), (8,)),
            gather("axes", [7, 6, 5, 4, 3, 2, 1, 0], "flat"),
            linear("out", EIGHT, "axes"),
        ),
        lambda x: (x > 0) @ EIGHT[:, ::-1].T,
    ),
    "where its name is taken": (
        (
            CUBE,
            neuron("flat_flat", "input", (2, 2, 2)),
            gather("axes", np.arange(8)[::-1].reshape(2, 2, 2), "flat_flat"),
            reshape("flat", "axes", (2, 2, 2), (8,)),
            linear("out", EIGHT, "flat"),
        ),
        lambda x: (x > 0) @ EIGHT[:, ::-1].T,
    ),
    "two axes that a convolution's sum makes": (
        (
            X4,
            neuron("a", "input", (4,)),
            neuron("b", "a", (4,), threshold=f32(0.5)[0]),
            reshape("a_line", "a", (4,), (1, 4)),
            reshape("b_line", "b", (4,), (1, 4)),
            one_by_two("a_line", "b_line"),
        ),
        lambda x: 2 * (x > 0)[..., None, :-1] + 4 * (x > 0)[..., None, 1:],
    ),
    "before a neuron that reads itself": (
        (
            X4,
            linear("fc", np.eye(4), "input"),
            neuron("a", "fc", (4,)),
            gather("axes", [1, 2, 3, 0], "a"),
            reads(neuron("b", "axes", (4,), threshold=f32(0.5)[0]), Operand("axes"), Operand("b", 1)),
        ),
        lambda x: np.maximum.accumulate(x > 0)[..., [1, 2, 3, 0]],
    ),
}


@pytest.mark.parametrize("name", REARRANGED)
def test_a_rearrangement_leaves_and_the_values_stay(name: str) -> None:
    layers, expected = REARRANGED[name]
    folded = fold_layers(graph(*layers))
    program, arranged = folded.program, folded.places
    x = 2 * (np.random.default_rng(0).random((5, 6, 8 if layers[0] is CUBE else 4)) < 0.4).astype(np.float32)
    given = x.reshape(*x.shape[:2], *layers[0].shape)
    found = run(program, arrange(given, arranged.get("input"))).y
    assert found.any()
    np.testing.assert_array_equal(found.reshape(expected(x).shape), expected(x))


def test_spikes_that_come_back_in_another_order() -> None:
    """One spike goes round, one neuron a step."""
    round_ = gather("round", [2, 0, 1], Operand("lif", 1))
    ring = reads(neuron("lif", "fc", (3,), threshold=f32(0.5)[0]), Operand("fc"), Operand("round"))
    start = Input(name="input", shape=(3,), operands=())
    x = np.zeros((5, 1, 3), np.float32)
    x[0, 0, 0] = 1
    program = program_of(graph(start, linear("fc", np.eye(3), "input"), round_, ring))
    assert run(program, x).y[:, 0].argmax(-1).tolist() == [0, 1, 2, 0, 1]


def test_axes_that_change_at_every_step_of_a_loop_stay() -> None:
    round_ = gather("round", [2, 0, 1], Operand("b", 1))
    first = reads(neuron("a", "fc", (3,)), Operand("fc"), Operand("round"))
    start = Input(name="input", shape=(3,), operands=())
    layers = graph(start, linear("fc", np.eye(3), "input"), round_, first, neuron("b", "a", (3,)))
    folded = fold_layers(layers).program
    assert any(isinstance(node, Gather) for node in folded.nodes)
    x = np.random.default_rng(0).integers(0, 3, (6, 2, 3)).astype(np.float32)
    np.testing.assert_array_equal(run(folded, x).y, run(layers, x).y)


def test_a_maximum_of_spikes_behind_a_concatenation() -> None:
    image = Input(name="input", shape=(1, 2, 2), operands=())
    kernel = dict(kernel=(2, 2), stride=(2, 2), padding=((0, 0), (0, 0)), input_shape=(2, 2, 2))
    late = reads(neuron("b", "a", (1, 2, 2)), Operand("a", 1))
    concat = Concat(name="cat", shape=(2, 2, 2), operands=(Operand("a"), Operand("b")), sizes=(1, 1))
    pool = MaxPool(name="pool", shape=(2, 1, 1), operands=(Operand("cat"),), **kernel)
    x = np.zeros((3, 1, 1, 2, 2), np.float32)
    x[0, 0, 0, 1, 0] = 2
    program = program_of(graph(image, neuron("a", "input", (1, 2, 2)), late, concat, pool))
    assert run(program, x).y[:, 0, :, 0, 0].tolist() == [[1, 0], [0, 0], [0, 0]]


def test_a_late_edge_moves_behind_what_makes_zeros_of_zeros_only() -> None:
    late = (Operand("lif", 1),)
    free = replace(linear("free", np.eye(2), "lif"), operands=late)
    biased = replace(linear("biased", np.eye(2), "lif", f32(1, 0)), operands=late)
    scale = Scale(name="scale", shape=(2,), operands=(Operand("free"),), scale=f32(0.5, 0.5))
    moved = late_behind(
        [free, biased, scale, replace(neuron("lif", "scale"), operands=(Operand("scale"), Operand("biased")))]
    )
    assert moved["free"].operands == (Operand("lif"),)
    assert moved["scale"].operands == (Operand("free"),)
    assert moved["biased"].operands == late
    assert set(moved["lif"].operands) == {Operand("scale", 1), Operand("biased")}
