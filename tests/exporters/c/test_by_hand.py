"""Small networks whose every number is worked out here, and the text of one of them."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.c import populations
from stl_deploy.exporters.c.compiler import find_compiler, why_none
from stl_deploy.exporters.c.layout import make_plan
from stl_deploy.exporters.c.names import identifiers, in_comment
from stl_deploy.exporters.c.render import render_plan
from stl_deploy.exporters.c.target import measured_synops
from stl_deploy.graph.program import Node, Operand, Reshape
from stl_deploy.integers.graph import (
    ConvNode,
    DelayNode,
    DenseNode,
    GainNode,
    GatherNode,
    IntegerGraph,
    IntegerInput,
    IntegerLI,
    IntegerLIF,
    IntegerOutput,
    SumPoolNode,
)
from stl_deploy.integers.net import INT16, WIDE, Accumulator, IntegerAdaptation, IntegerNeuron
from stl_deploy.integers.simulate import simulate
from stl_deploy.integers.store import About
from tests.exporters.c.test_graphs import program

GOLDEN = Path(__file__).parent / "golden"
needs_compiler = pytest.mark.skipif(find_compiler() is None, reason=why_none())


def ints(values: Any) -> Any:
    return np.array(values, np.int32)


def entry(shape: Any, high: int = 1) -> IntegerInput:
    return IntegerInput(name="in", shape=shape, operands=(), low=0, high=high, scale=1.0)


def dense(name: str, source: str, weight: Any, bias: Any = None) -> DenseNode:
    bias = None if bias is None else ints(bias)
    return DenseNode(name=name, shape=(len(weight),), operands=(Operand(source),), weight=ints(weight), bias=bias)


def lif(name: str, source: str, shape: Any, threshold: Any, v_decay: int = 2048, **more: Any) -> IntegerLIF:
    neuron = IntegerNeuron(v_decay=v_decay, threshold=ints(threshold), **more)
    return IntegerLIF(name=name, shape=shape, operands=(Operand(source),), neuron=neuron, bias=None)


def out(source: str, shape: Any) -> IntegerOutput:
    return IntegerOutput(name="out", shape=shape, operands=(Operand(source),), unit=1.0)


def one_neuron(**more: Any) -> IntegerGraph:
    return IntegerGraph((entry((1,), 9), dense("fc", "in", [[3]]), lif("a", "fc", (1,), [10], **more), out("a", (1,))))


@needs_compiler
@pytest.mark.parametrize(
    ("more", "spikes"),
    [
        # v in 64ths: 384, 576, 672 > 640 -> spike and 0, then 192 and 288.
        ({}, [0, 0, 1, 0, 0]),
        # After 672 - 640 = 32 comes 16 + 192 = 208 and 104 + 192 = 296.
        ({"reset": "subtract", "drop": ints(10)}, [0, 0, 1, 0, 0]),
        # No leak: 6, 12 > 10 -> 0, then 6 + 6 with inputs of 2.
        ({"v_decay": 0}, [0, 1, 0, 1, 0]),
        # No memory: never above 6.
        ({"v_decay": 4096}, [0, 0, 0, 0, 0]),
        # Put back to 8: 8·64/2 + 384 = 640 is not above 640.
        ({"v_reset": ints(8)}, [0, 0, 1, 0, 0]),
        # Fires above 640 + a: 768 in step 2, then a is 256, 128, 64; 384 and 768 are not above it, 960 is above 704.
        ({"v_decay": 0, "adaptation": IntegerAdaptation(decay=2048, jump=ints(4))}, [0, 1, 0, 0, 1]),
        # 768 - 640 leaves 128; 512, then 896 above 640 + 128, which leaves 128.
        (
            {
                "v_decay": 0,
                "reset": "subtract",
                "drop": ints(10),
                "adaptation": IntegerAdaptation(decay=2048, jump=ints(4), subtracts="adapted"),
            },
            [0, 1, 0, 1, 0],
        ),
        # From 640 64ths: 320 + 384 = 704 > 640 fires at once, then 384, 576, 288 + 192 and 240 + 192.
        ({"v_start": ints(640)}, [1, 0, 0, 0, 0]),
        # u from 512 64ths: v 640 is not above 640; u 704, v 320 + 704 fires; u 736 fires; 560; 280 + 472 fires
        ({"i_decay": 2048, "u_start": ints(512)}, [0, 1, 1, 0, 1]),
        # Above 640 + a, 100 in the first step, then 50, 25, 12: 672 is above 665, and raises a to 12 + 256.
        ({"adaptation": IntegerAdaptation(decay=2048, jump=ints(4), start=ints(100))}, [0, 0, 1, 0, 0]),
        # a -300 in the first step, then -150 + 256 = 106, 53, 26: 384 is above 340; 384, 576 and 480 not above 640.
        ({"adaptation": IntegerAdaptation(decay=2048, jump=ints(4), start=ints(-300))}, [1, 0, 0, 0, 0]),
    ],
)
def test_one_neuron(more: dict[str, Any], spikes: list[int]) -> None:
    graph = one_neuron(**more)
    x = ints([2, 2, 2, 1, 1] if more.get("v_decay") != 0 else [2, 2, 2, 2, 1]).reshape(5, 1, 1)
    assert simulate(graph, x).y.reshape(-1).tolist() == spikes
    assert program(graph).run(x).y.reshape(-1).tolist() == spikes


@needs_compiler
@pytest.mark.parametrize("builds", [(), ("-DNET_NARROW",)])
@pytest.mark.parametrize(
    ("accumulator", "spikes"),
    # Weights -100 and 127 to a threshold of 511 without leak. Step 1, -100·16: v is -1,600, or stops at -512.
    # Step 2, 127·9: -457, or 631, which stops at 511 63/64 and is above 511. Step 3, 127·5: 178, or 635 from 0.
    [(WIDE, [0, 0, 0]), (INT16, [0, 1, 1])],
)
def test_16_bits_stop_a_potential_where_the_model_does(
    accumulator: Accumulator, spikes: list[int], builds: tuple[str, ...]
) -> None:
    neurons = lif("a", "fc", (1,), [511], v_decay=0)
    nodes = (entry((2,), 16), dense("fc", "in", [[-100, 127]]), neurons, out("a", (1,)))
    graph = IntegerGraph(nodes, accumulator)
    x = ints([[16, 0], [0, 9], [0, 5]]).reshape(3, 1, 2)
    assert simulate(graph, x).y.reshape(-1).tolist() == spikes
    assert program(graph).run(x, options=builds).y.reshape(-1).tolist() == spikes


@needs_compiler
@pytest.mark.parametrize(
    ("more", "spikes"),
    [
        # 27·64 = 1728 > 640: 1088, 448, so 2 spikes; 224 + 1728 = 1952: 3, 32; 16 + 1728 = 1744: 2.
        ({"drop": ints(10)}, [2, 3, 2, 0]),
        # A drop of its own: 1728 - 192·6 = 576 <= 640; then 288 + 1728 = 2016 - 8·192 = 480; 240 + 1728 takes 7.
        ({"drop": ints(3)}, [6, 8, 7, 0]),
        # At most two; what is left stays: 1728 - 2·192 = 1344, 672 + 1728 - 384 = 2016, 1008 + 1728 - 384, 1176 - 384.
        ({"drop": ints(3), "cap": 2}, [2, 2, 2, 2]),
        # No memory: 1728 takes 6 each time.
        ({"drop": ints(3), "v_decay": 4096}, [6, 6, 6, 0]),
    ],
)
def test_several_spikes_of_one_neuron(more: dict[str, Any], spikes: list[int]) -> None:
    graph = one_neuron(**{"reset": "subtract", "cap": 31} | more)
    x = ints([9, 9, 9, 0]).reshape(4, 1, 1)
    assert simulate(graph, x).y.reshape(-1).tolist() == spikes
    assert program(graph).run(x).y.reshape(-1).tolist() == spikes


@needs_compiler
def test_spikes_that_are_counted_are_multiplied_and_never_pooled_as_bits() -> None:
    """Two and one spike into a weight of 5, and into a window that fires at its first: OR of 2 and 1 would be 3."""
    several = lif("a", "in", (1, 2, 2), [0], 4096, reset="subtract", drop=ints(1), cap=9)
    pool = SumPoolNode(
        name="pool",
        shape=(1, 1, 1),
        operands=(Operand("a"),),
        kernel=(2, 2),
        stride=(2, 2),
        padding=((0, 0), (0, 0)),
        input_shape=(1, 2, 2),
    )
    flat = Reshape(name="flat", shape=(1,), operands=(Operand("or"),), input_shape=(1, 1, 1))
    ends = (pool, lif("or", "pool", (1, 1, 1), [0], 4096), flat, dense("fc", "flat", [[5]]), out("fc", (1,)))
    graph = IntegerGraph((entry((1, 2, 2), 9), several, *ends))
    x = ints([[[2, 1], [0, 0]], [[0, 0], [0, 0]], [[9, 0], [0, 9]]]).reshape(3, 1, 1, 2, 2)
    assert simulate(graph, x).y.reshape(-1).tolist() == [5, 0, 5]
    run = program(graph).run(x, record=True)
    assert run.y.reshape(-1).tolist() == [5, 0, 5]
    assert run.spikes["a"].reshape(3, 4).tolist() == [[2, 1, 0, 0], [0, 0, 0, 0], [9, 0, 0, 9]]
    assert run.spikes["or"].reshape(-1).tolist() == [1, 0, 1]


@needs_compiler
def test_a_negative_potential_leaks_toward_zero() -> None:
    """-64 leaks to -32, -16, … -1 and then 0, where rounding down would stay at -1."""
    graph = IntegerGraph(
        (
            entry((1,)),
            dense("fc", "in", [[-1]]),
            IntegerLI(name="li", shape=(1,), operands=(Operand("fc"),), v_decay=2048, bias=None),
            out("li", (1,)),
        )
    )
    x = ints([1, 0, 0, 0, 0, 0, 0, 0, 0]).reshape(9, 1, 1)
    expected = [-64, -32, -16, -8, -4, -2, -1, 0, 0]
    assert simulate(graph, x).y.reshape(-1).tolist() == expected
    assert program(graph).run(x).y.reshape(-1).tolist() == expected
    nodes = [replace(node, v_start=ints(-9)) if isinstance(node, IntegerLI) else node for node in graph.nodes]
    graph = IntegerGraph(tuple(nodes), graph.accumulator)
    expected = [-4 - 64, -34, -17, -8, -4, -2, -1, 0, 0]
    assert simulate(graph, x).y.reshape(-1).tolist() == expected
    assert program(graph).run(x).y.reshape(-1).tolist() == expected


def digits_like() -> IntegerGraph:
    """A convolution with thresholds by channel, max pooling fused into its neurons, and a dense layer."""
    conv = ConvNode(
        name="conv1",
        shape=(2, 4, 4),
        operands=(Operand("in"),),
        weight=ints(np.arange(-9, 9).reshape(2, 1, 3, 3)),
        bias=ints([1, -2]),
        stride=(1, 1),
        padding=((1, 1), (1, 1)),
        dilation=(1, 1),
        groups=1,
        input_shape=(1, 4, 4),
    )
    pool = SumPoolNode(
        name="pool1.sum",
        shape=(2, 2, 2),
        operands=(Operand("lif1"),),
        kernel=(2, 2),
        stride=(2, 2),
        padding=((0, 0), (0, 0)),
        input_shape=(2, 4, 4),
    )
    image = lif("lif1", "conv1", (2, 4, 4), np.array([9, 12]).reshape(2, 1, 1))
    pooled = lif("pool1", "pool1.sum", (2, 2, 2), 0, 4096)
    flat = dense("fc", "pool1", np.arange(-4, 20).reshape(3, 8) % 7 - 3)
    flat = DenseNode(name="fc", shape=(3,), operands=(Operand("flat"),), weight=flat.weight, bias=None)
    reshape = Reshape(name="flat", shape=(8,), operands=(Operand("pool1"),), input_shape=(2, 2, 2))
    last = lif("lif2", "fc", (3,), [3, 1, 2], 1000)
    return IntegerGraph((entry((1, 4, 4), 3), conv, image, pool, pooled, reshape, flat, last, out("lif2", (3,))))


ABOUT = About("golden", "net.nir", {"conv1": 12.0, "fc": 3.5}, "of one version")


def test_the_text_is_as_recorded() -> None:
    """After a deliberate change: python -m tests.exporters.c.record_golden"""
    for name, text in render_plan(make_plan(digits_like()), ABOUT).items():
        assert text == (GOLDEN / name).read_text(encoding="ascii"), name


@needs_compiler
def test_the_recorded_network_runs() -> None:
    x = np.random.default_rng(0).integers(0, 4, (20, 3, 1, 4, 4)).astype(np.int32)
    ours, model = program(digits_like()).run(x, record=True), simulate(digits_like(), x, record=True)
    np.testing.assert_array_equal(ours.y, model.y)
    assert 0.1 < model.y.mean() < 0.9
    for name, spikes in model.spikes.items():
        np.testing.assert_array_equal(ours.spikes[name], spikes)


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
def test_a_program_in_cpp_links_with_the_network(tmp_path: Path) -> None:
    (tmp_path / "sketch.cpp").write_text(
        '#include "net_decide.h"\n#include "net.h"\n'
        "int main() { static net_state s; net_decision d; int32_t x[NET_INPUTS] = {0}, y[NET_OUTPUTS]; net_init(&s); "
        "net_decide_init(&d); int fails = net_step(&s, x, y); net_decide(&d, y); return fails + net_class(&d); }\n"
    )
    for name in ("net.c", "net_decide.c"):
        source = str(GOLDEN / name)
        subprocess.run(["g++", "-x", "c", "-std=c99", "-c", source, "-o", f"{name}.o"], cwd=tmp_path, check=True)
    command = ["g++", "-I", str(GOLDEN), "sketch.cpp", "net.c.o", "net_decide.c.o", "-o", "sketch"]
    subprocess.run(command, cwd=tmp_path, check=True)


@needs_compiler
def test_names_that_end_as_those_of_buffers_do() -> None:
    """The bias of "a" that goes to v, and the potentials of "a_bias"."""
    first = replace(lif("a", "fc", (2,), [2, 3], i_decay=1000), bias=ints([1, 2]))
    graph = IntegerGraph(
        (
            entry((2,)),
            dense("fc", "in", [[3, 1], [2, 4]]),
            first,
            dense("fc2", "a", [[3, 1], [2, 4]]),
            lif("a_bias", "fc2", (2,), [3, 4]),
            out("a_bias", (2,)),
        )
    )
    x = np.ones((5, 1, 2), np.int32)
    np.testing.assert_array_equal(program(graph).run(x, record=True).y, simulate(graph, x).y)


def test_rows_of_sums_are_kept_instead_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(populations, "FEW_NEURONS", 0)
    assert make_plan(digits_like()).shared_ram == 3 * 8 * 2 + 4 * 2  # of a kernel of three rows, and a row of spikes


@needs_compiler
@pytest.mark.parametrize("through", ["", "flat"])
def test_a_convolution_of_its_own_spikes_reads_those_of_the_step_before(
    through: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(populations, "FEW_NEURONS", 0)
    rng = np.random.default_rng(3)
    shape = (16, 5, 4)
    window: dict[str, Any] = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
    nodes: list[Node] = [entry(shape)]
    if through:
        nodes.append(Reshape(name="flat", shape=shape, operands=(Operand("a", 1),), input_shape=shape))
    weight = ints(rng.integers(-20, 21, (16, 16, 3, 3)))
    source = Operand("flat") if through else Operand("a", 1)
    nodes.append(
        ConvNode(name="conv", shape=shape, operands=(source,), weight=weight, bias=None, input_shape=shape, **window)
    )
    neuron = IntegerNeuron(v_decay=2048, threshold=ints(rng.integers(-9, 9, (16, 1, 1))))
    nodes.append(IntegerLIF(name="a", shape=shape, operands=(Operand("conv"),), neuron=neuron, bias=None))
    graph = IntegerGraph((*nodes, out("a", shape)))
    x = np.zeros((8, 2, *shape), np.int32)
    ours, model = program(graph).run(x, record=True), simulate(graph, x, record=True)
    assert 0.1 < model.y[1:].mean() < 0.9
    np.testing.assert_array_equal(ours.y, model.y)


def test_memory_by_hand() -> None:
    plan = make_plan(digits_like())
    flash = {name: share.flash for name, share in plan.shares.items() if share.flash}
    # int16 biases beside int16 sums; thresholds of 2 channels and 3 neurons in a byte each.
    assert flash == {"conv1": 18, "lif1": 2 * 2 + 2, "fc": 24, "lif2": 3}
    ram = {name: share.ram for name, share in plan.shares.items() if share.ram}
    assert ram == {"in": 16, "lif1": 32 * 2, "pool1": 8, "lif2": 3 * 2 + 3}
    assert plan.shared_ram == 32 * 2 + 4 * 2
    # Taps inside of a 3 x 3 kernel on 4 x 4: 4·4 + 8·6 + 4·9 = 100, for 2 channels.
    assert plan.shares["conv1"].synops == 200
    assert plan.shares["fc"].synops == 24


def test_sums_beyond_the_registers_are_refused() -> None:
    graph = IntegerGraph((entry((2000,), 2**16), dense("fc", "in", np.full((1, 2000), 127)), out("fc", (1,))))
    with pytest.raises(UnsupportedError, match=r"node 'fc': its sums may reach 16,646,144,000, beyond the 16,777,216"):
        make_plan(graph)


def test_identifiers() -> None:
    names = ["conv.1", "conv 1", "int", "3d", "größe", "", "_x", "a" * 99, "*/ x"]
    found = identifiers(names)
    assert found["conv.1"] == "conv_1"
    assert found["conv 1"] == "conv_1_2"
    assert found["3d"] == "n3d"
    assert len(set(found.values())) == len(names)
    assert all(name.isascii() and name.isidentifier() and not name.startswith("_") for name in found.values())


def test_a_comment_cannot_be_left() -> None:
    assert in_comment("a */ int main /* \n\\ é") == "a * / int main / * ?/ ?"
    assert in_comment("a *\\ int main; \\*") == "a * / int main; / *"
    assert "??" not in in_comment("网络网/")


def passes_on(kind: str, source: str, delay: int) -> Node:
    """A node that changes no values, or only their order."""
    common: dict[str, Any] = {"name": kind, "shape": (3,), "operands": (Operand(source, delay),), "input_shape": (3,)}
    return GatherNode(indices=np.array([2, 0, 1]), **common) if kind == "moved" else Reshape(**common)


def added(*sources: Operand) -> Reshape:
    return Reshape(name="sum", shape=(3,), operands=sources, input_shape=(3,))


@needs_compiler
@pytest.mark.parametrize("kind", ["moved", "flat"])
@pytest.mark.parametrize("order", ["before", "behind", "twice"])
def test_values_of_steps_before_are_read_behind_the_neurons_that_overwrite_them(kind: str, order: str) -> None:
    spikes: list[Node] = [dense("fc", "sum", 9 * np.eye(3)), lif("a", "fc", (3,), [3] * 3)]
    back = passes_on(kind, "a", 0 if order == "behind" else 1)
    entered = added(Operand("in"), *([] if order == "before" else [Operand(kind, 1)]))
    nodes = [back, entered, *spikes] if order == "before" else [entered, *spikes, back]
    if order == "twice":
        nodes = [entered, back, *spikes]
    graph = IntegerGraph((entry((3,)), *nodes, out(kind if order == "before" else "sum", (3,))), WIDE)
    x = ints(np.random.default_rng(0).integers(0, 2, (9, 2, 3)))
    expected = simulate(graph, x).y
    assert expected.any()
    np.testing.assert_array_equal(program(graph).run(x).y, expected)


@needs_compiler
def test_a_loop_is_closed_by_delayed_sums() -> None:
    late = DelayNode(name="late", shape=(3,), operands=(Operand("fc2"),), steps=ints([1, 0, 2]))
    spikes = [dense("fc", "sum", 2 * np.eye(3)), lif("a", "fc", (3,), [3] * 3), dense("fc2", "a", 9 * np.eye(3))]
    nodes = [added(Operand("in"), Operand("late", 1)), *spikes, late]
    graph = IntegerGraph((entry((3,)), *nodes, out("a", (3,))), WIDE)
    x = ints(np.random.default_rng(0).integers(0, 2, (9, 2, 3)))
    np.testing.assert_array_equal(program(graph).run(x).y, simulate(graph, x).y)


@pytest.mark.parametrize(("delay", "synops"), [(0, [2, 2]), (1, [2 / 3, 4 / 3])])
def test_synops_of_values_read_a_step_late(delay: int, synops: list[float]) -> None:
    """Spikes of neuron 0 in steps 1 and 3, of neuron 1 in step 3: the last are read by nothing a step later."""
    loop = [
        DenseNode(name="back", shape=(2,), operands=(Operand("a", delay),), weight=ints(np.ones((2, 2))), bias=None),
        GainNode(name="apart", shape=(2,), operands=(Operand("a", delay), Operand("in", delay)), weight=ints(1)),
    ]
    heard = [dense("fc", "in", 9 * np.eye(2)), lif("a", "fc", (2,), [3, 3], v_decay=4096)]
    nodes = [*loop, *heard] if delay else [*heard, *loop]
    graph = IntegerGraph((entry((2,)), *nodes, out("a", (2,))), WIDE)
    x = ints([[1, 0], [0, 0], [1, 1]]).reshape(3, 1, 2)
    assert simulate(graph, x).y.reshape(3, 2).tolist() == [[1, 0], [0, 0], [1, 1]]
    measured = measured_synops(graph, x)
    assert [measured["back"], measured["apart"]] == pytest.approx([synops[0], synops[0] / 2])
