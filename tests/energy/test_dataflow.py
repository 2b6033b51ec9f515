"""The comparison grid by hand: one dataflow for both sides, and what each cell charges."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from stl_deploy.energy import AnnTwin, EnergyReport, load_prices, measure_energy
from stl_deploy.energy.models import dataflow
from stl_deploy.energy.models.dataflow import DATAFLOWS, Dataflow, Fetch, Sums
from stl_deploy.energy.models.frontier import ann_joules_of_counts
from stl_deploy.energy.models.grid import GRID_PRICES, quoted
from stl_deploy.energy.models.layout import _layer, meeting_places
from stl_deploy.energy.models.ledger import Item, Ledger
from stl_deploy.energy.models.lemaire import ann as lemaire_ann
from stl_deploy.energy.models.lemaire import snn as lemaire_snn
from stl_deploy.energy.models.ratios import Ratio, number
from stl_deploy.energy.models.widths import widths
from stl_deploy.energy.prices.comparison import Comparison
from stl_deploy.energy.prices.price_list import access, middle, multiply, word_access
from stl_deploy.graph.program import Neuron, Operand, Program, Scale
from tests.energy.close import approx
from tests.energy.nets import conv, f32, lif, linear, pool, program, start

PJ = 1e-12
FP32, INT8 = load_prices("horowitz45_fp32"), load_prices("horowitz45_int8_acc32")


def two_layers(decay: float = 0.5) -> Program:
    return program(
        start((2,)),
        linear("a", "in", np.ones((3, 2)), bias=np.zeros(3)),
        lif("hidden", "a", (3,), decay=f32(decay)),
        linear("b", "hidden", np.ones((2, 3))),
        lif("out_", "b", (2,), decay=f32(decay)),
    )


X = f32([[[1, 0]], [[1, 1]]])  # one sample, two steps, three events: 9 synops of a; 6 hidden spikes: 12 synops of b


def cell(
    report: EnergyReport, fetch: Fetch, sums: Sums, price: str = "horowitz45_fp32", zeros: str = "computed"
) -> Ratio:
    flow = Dataflow(fetch, sums)
    return next(c for c in report.comparisons if (c.flow, c.prices.name, c.ann_zeros) == (flow, price, zeros))


def counts(items: tuple[Item, ...], term: str) -> dict[str, float]:
    return {item.layer: item.count for item in items if item.term == term}


@pytest.mark.parametrize(
    ("fetch", "spiking", "dense"),
    [
        ("per_event", {"a": 9, "b": 12}, {"a": 6, "b": 6}),
        ("per_step", {"a": 9, "b": 12}, {"a": 6, "b": 6}),  # 12 words in two steps, but only 9 events ask for one
        ("per_inference", {"a": 6, "b": 6}, {"a": 6, "b": 6}),
    ],
)
def test_how_often_a_weight_is_fetched(fetch: Fetch, spiking: dict[str, int], dense: dict[str, int]) -> None:
    report, flow = measure_energy(two_layers(), X), Dataflow(fetch, "registers")
    assert counts(dataflow.snn(two_layers(), report.counts, FP32, flow), "weight reads") == spiking
    assert counts(dataflow.ann(two_layers(), report.counts, FP32, flow), "weight reads") == dense


def test_weights_of_inputs_that_never_fire_are_not_fetched() -> None:
    net = program(start((3,)), linear("a", "in", np.ones((4, 3))), lif("n", "a", (4,)))
    x = f32([[[1, 0, 0], [1, 1, 0]], [[1, 0, 0], [0, 1, 0]]])  # one input of the first sample, two of the second
    counted = measure_energy(net, x).counts
    fetched = {
        fetch: counts(dataflow.snn(net, counted, FP32, Dataflow(fetch, "registers")), "weight reads")["a"]
        for fetch in ("per_event", "per_step", "per_inference")
    }
    assert fetched == {"per_event": 10, "per_step": 10, "per_inference": 4 * 1.5}  # means of two samples


def test_the_first_layer_of_a_constant_image_is_computed_once_layer_by_layer() -> None:
    net = program(
        start((1, 4, 4)),
        pool("p", "in", (1, 4, 4)),
        conv("c", "p", np.ones((2, 1, 1, 1)), (1, 2, 2), bias=[1, 1]),
        lif("n", "c", (2, 2, 2)),
        conv("d", "n", np.ones((1, 2, 1, 1)), (2, 2, 2)),
        lif("m", "d", (1, 2, 2)),
    )
    image = np.ones((1, 1, 1, 4, 4), np.float32)
    still, moving = (
        measure_energy(net, x).counts for x in (np.repeat(image, 3, 0), np.stack([image[0], 2 * image[0]]))
    )
    once, streaming = Dataflow("per_inference", "registers"), Dataflow("per_step", "registers")
    for counted, flow, times in ((still, once, 1), (still, streaming, 3), (moving, once, 2)):
        items = dataflow.snn(net, counted, FP32, flow)
        assert counts(items, "synops")["c"] == times * 8
        assert counts(items, "bias adds")["c"] == times * 8
        assert counts(items, "pool adds")["p"] == times * 16
        assert counts(items, "queue writes and reads")["c"] == times * 2 * 4
    assert counts(dataflow.snn(net, still, FP32, once), "synops")["d"] == still.weighted["d"].synops


def test_labels_of_each_step_have_no_ratio_to_a_twin_of_one_pass() -> None:
    once, each = (measure_energy(two_layers(), X, labels=np.array(labels)) for labels in ([1], [[0, 1]]))
    assert once.verdict.startswith("The SNN costs ")
    assert each.verdict.startswith("No ratio to an ANN: labels are per step, and an ANN twin of one pass decides once.")
    assert "The SNN takes 4.9 to 5.9 pJ an inference streaming (weights once per step)" in each.verdict
    assert each.spread == ""
    (line,) = set(each.assumptions) - set(once.assumptions)
    assert line.startswith("Labels are of each step.")


def test_a_loop_cannot_be_batched_over_time() -> None:
    recurrent = replace(lif("hidden", "a", (3,)), operands=(Operand("a"), Operand("back")))
    net = program(
        start((2,)),
        linear("a", "in", np.ones((3, 2))),
        linear("back", "hidden", np.ones((3, 3)), delay=1),
        recurrent,
        linear("b", "hidden", np.ones((2, 3))),
        lif("out_", "b", (2,)),
    )
    counted = measure_energy(net, np.ones((4, 1, 2), np.float32)).counts
    assert counted.neurons["hidden"].spikes == 12
    items = dataflow.snn(net, counted, FP32, Dataflow("per_inference", "registers"))
    assert counts(items, "weight reads") == {"a": 6, "back": 27, "b": 6}  # 3 x 3 x 3 events come back within 4 steps
    assert counts(items, "state reads and writes") == {"hidden": 2 * 4 * 3}


def test_an_integrator_that_a_reset_leaves_above_its_threshold_moves_without_input() -> None:
    x = f32([[[1, 0]], [[0, 0]]])
    for reset, expected in (("value", {"hidden": 6, "out_": 4}), ("subtract", {"hidden": 12, "out_": 8})):
        net = two_layers(1.0)
        nodes = tuple(replace(node, reset=reset) if isinstance(node, Neuron) else node for node in net.nodes)
        net = replace(net, nodes=nodes)
        items = dataflow.snn(net, measure_energy(net, x).counts, FP32, Dataflow("per_step", "registers"))
        assert counts(items, "state reads and writes") == expected


def shared() -> tuple[Program, np.ndarray]:
    """A convolution that uses each of its 9 weights 4 times in a dense pass; all 16 inputs active in two steps."""
    net = program(start((1, 4, 4)), conv("c", "in", np.ones((1, 1, 3, 3)), (1, 4, 4)), lif("n", "c", (1, 2, 2)))
    return net, np.ones((2, 1, 1, 4, 4), np.float32)


def test_shared_weights_are_fetched_as_the_dataflow_says() -> None:
    net, x = shared()
    counted = measure_energy(net, x).counts
    fetched = {
        flow.fetch: (
            counts(dataflow.snn(net, counted, FP32, flow), "weight reads")["c"],
            counts(dataflow.ann(net, counted, FP32, flow), "weight reads")["c"],
        )
        for flow in DATAFLOWS
    }
    assert fetched == {"per_event": (72, 36), "per_step": (18, 9), "per_inference": (9, 9)}


def test_a_convolutions_biases_are_fetched_as_its_weights_are() -> None:
    layers = conv("c", "in", np.ones((2, 1, 3, 3)), (1, 4, 4), bias=[1, 2]), lif("n", "c", (2, 2, 2))
    net = program(start((1, 4, 4)), *layers)
    counted = measure_energy(net, f32(np.arange(48).reshape(3, 1, 1, 4, 4))).counts
    read = {}
    for flow in DATAFLOWS:
        sides = (side(net, counted, FP32, flow) for side in (dataflow.snn, dataflow.ann))
        read[flow.fetch] = tuple(counts(items, "bias reads")["c"] for items in sides)
    assert read == {"per_event": (24, 8), "per_step": (6, 2), "per_inference": (2, 2)}


def test_sums_in_memory_are_read_and_written_at_every_addition_on_both_sides() -> None:
    net, x = shared()
    counted = measure_energy(net, x).counts
    memory, registers = Dataflow("per_event", "memory"), Dataflow("per_event", "registers")
    assert counts(dataflow.snn(net, counted, FP32, memory), "potential reads and writes") == {"c": 2 * 72}
    assert counts(dataflow.ann(net, counted, FP32, memory), "partial sum reads and writes") == {"c": 2 * 36}
    assert counts(dataflow.snn(net, counted, FP32, registers), "potential reads and writes") == {}
    assert counts(dataflow.ann(net, counted, FP32, registers), "partial sum reads and writes") == {}


@pytest.mark.parametrize(
    ("fetch", "sums", "leaky", "integrator"),
    [
        ("per_event", "memory", {"hidden": 12, "out_": 8}, {}),  # an integrator's sum is its state, already paid
        ("per_step", "registers", {"hidden": 12, "out_": 8}, {"hidden": 6, "out_": 4}),
        ("per_inference", "registers", {}, {}),  # the state stays in its register through all steps
    ],
)
def test_a_state_is_touched_where_something_moves_it(
    fetch: Fetch, sums: Sums, leaky: dict[str, int], integrator: dict[str, int]
) -> None:
    x = f32([[[1, 0]], [[0, 0]]])  # the second step brings nothing; the hidden bias is 0
    for decay, expected in ((0.5, leaky), (1.0, integrator)):
        net = two_layers(decay)
        items = dataflow.snn(net, measure_energy(net, x).counts, FP32, Dataflow(fetch, sums))
        assert counts(items, "state reads and writes") == expected


def test_one_cell_by_hand() -> None:
    # per step, registers, 32-bit float; a word of 32 bits in n bytes of SRAM: 10 pJ x n / 8192 x 32 / 64
    def sram(size: int, bits: int = 32) -> float:
        return 10 * size / 8192 * bits / 64

    a = 9 * 0.9 + 9 * sram(24) + 6 * 0.9 + 6 * sram(12) + 3 * sram(1, 1)
    b = 12 * 0.9 + 12 * sram(24) + 2 * 6 * sram(1, 2)
    states = 10 * 3.7 + 20 * 0.9 + 2 * 6 * sram(12) + 2 * 4 * sram(8)
    ann = 12 * 4.6 + 2 * 6 * sram(24) + 3 * 0.9 + 3 * sram(12) + 2 * sram(8) + 3 * sram(12)
    ann += 3 * sram(12) + 2 * sram(8) + 5 * 0.9
    found = cell(measure_energy(two_layers(), X), "per_step", "registers")
    assert found.comparison.snn_J == approx(((a + b + states) * PJ,) * 2)
    assert found.comparison.ann_J == approx((ann * PJ,) * 2)
    assert found.ratio == approx((a + b + states) / ann)


def test_the_json_s_cells_are_the_whole_grid() -> None:
    twin = AnnTwin(macs_nonzero=30, macs=120, samples=10, source="twin")
    data = measure_energy(two_layers(), X, twin=twin).as_dict()
    keys = [(c["dataflow"], c["sums"], c["width"], c["prices"], c["ann_zeros"]) for c in data["comparisons"]]
    assert len(set(keys)) == len(keys) == 3 * 2 * 4 * 2
    assert {(c["width"], c["prices"]) for c in data["comparisons"]} == {
        ("fp32", "horowitz45_fp32"),
        ("int8", "horowitz45_int8_acc32"),
        ("fp32", "jouppi7_fp32"),
        ("int8", "jouppi7_int8_acc32"),
    }
    for found in data["comparisons"]:
        assert found["snn_over_ann"] == approx(found["snn_J"] / found["ann_J"])


def test_a_twin_that_skips_zeros_fetches_no_weights_and_sums_for_them() -> None:
    net, x = shared()
    twin = AnnTwin(macs_nonzero=9, macs=36, samples=1, source="twin")
    report = measure_energy(net, x[:1], twin=twin)
    for flow in (Dataflow("per_event", "memory"), Dataflow("per_step", "memory")):
        items = dataflow.ann(net, report.counts, INT8, flow, active=twin.fraction)
        assert counts(items, "MACs: multiply") == {"c": 9}
        assert counts(items, "weight reads") == {"c": 9}
        assert counts(items, "partial sum reads and writes") == {"c": 18}
    assert cell(report, "per_event", "memory", zeros="skipped").ratio > cell(report, "per_event", "memory").ratio


def test_each_layer_skips_the_zeros_that_were_measured_in_it() -> None:
    twin = AnnTwin(macs_nonzero=9, macs=12, samples=1, source="twin", by_layer={"a": 1.0, "b": 0.5})
    report = measure_energy(two_layers(), X, twin=twin)
    items = dataflow.ann(two_layers(), report.counts, INT8, Dataflow("per_step", "registers"), active=twin)
    assert counts(items, "MACs: multiply") == {"a": 6, "b": 3}
    assert counts(items, "weight reads") == {"a": 6, "b": 3}
    dense = measure_energy(two_layers(), X).by_layer
    skipped = {name: ann for name, _, ann in report.by_layer}
    assert {name for name, _, ann in dense if skipped[name] < ann} == {"b"}
    chosen = quoted(report.comparisons)
    assert chosen is not None
    assert sum(skipped.values()) == approx(middle(chosen.comparison.ann_J))
    assert report.as_dict()["ann_twin"]["active_by_layer"] == {"a": 1.0, "b": 0.5}


def test_the_quoted_cell_follows_the_rule() -> None:
    report = measure_energy(two_layers(), X)
    chosen = quoted(report.comparisons)
    assert chosen is not None
    assert (chosen.flow, chosen.prices.name) == (Dataflow("per_step", "registers"), "horowitz45_int8_acc32")
    twin = AnnTwin(macs_nonzero=30, macs=120, samples=10, source="twin")
    chosen = quoted(measure_energy(two_layers(), X, twin=twin).comparisons)
    assert chosen is not None
    assert chosen.ann_zeros == "skipped"
    assert quoted(()) is None


def test_ratios_have_two_digits() -> None:
    assert [number(r) for r in (0.996, 1.0, 1.04, 0.66, 17.4, 99.53, 260.4, 0.004)] == [
        *("0.996", "1.00", "1.04", "0.66", "17", "100", "260", "0.0040")
    ]


def test_prices_of_nothing_have_no_ratio_and_stand_in_no_grid() -> None:
    free = replace(FP32, name="free", terms={term: replace(p, low=0.0, high=0.0) for term, p in FP32.terms.items()})
    report = measure_energy(two_layers(), X, prices=[free])
    assert {c.prices.name for c in report.comparisons} == set(GRID_PRICES)
    data = report.as_dict()
    assert data["energy"][0]["snn_over_ann"] is None
    solved = [m for m in data["break_even"]["models"] if m["price"] == "free"]
    assert {(m["verdict"], m["text"]) for m in solved} == {("not defined", "the ANN costs nothing at these prices")}
    assert data["verdict"] == measure_energy(two_layers(), X).verdict


def test_a_net_without_weights_has_no_twin() -> None:
    net = program(start((3,)), lif("n", "in", (3,)))
    report = measure_energy(net, f32(np.ones((2, 1, 3))))
    assert report.comparisons == ()
    assert report.verdict.startswith("The SNN has no weights, so there is no ANN twin to compare it with. On Loihi 1 ")
    data = report.as_dict()
    assert (data["quoted"], data["itemised"], data["sensitivity"]) == (None, {}, [])
    assert all(line["snn_over_ann"] is None for line in data["chips"])


def test_layers_that_meet_at_one_neuron_share_its_potentials() -> None:
    both = Neuron(name="n", shape=(3,), operands=(Operand("a"), Operand("b")), decay=f32(0.5), threshold=f32(1))
    net = program(start((2,)), linear("a", "in", np.ones((3, 2))), linear("b", "in", np.ones((3, 2))), both)
    counted = measure_energy(net, X).counts
    assert meeting_places(net, counted) == {"a": ["n"], "b": []}
    reads = counts(lemaire_snn(net, counted, FP32), "potential reads")
    assert reads == {"a": 9 + 3 * 2, "b": 9}  # T x N_out once, with the first of the two
    for items in (dataflow.ann(net, counted, FP32, Dataflow("per_step", "registers")), lemaire_ann(net, counted, FP32)):
        assert counts(items, "output writes") == {"a": 3}  # one activation for each of the three ReLUs


def test_a_spike_is_written_once_and_read_by_each_layer() -> None:
    net = program(
        start((2,)),
        linear("a", "in", np.ones((3, 2))),
        lif("n", "a", (3,)),
        linear("b", "n", np.ones((2, 3))),
        linear("c", "n", np.ones((4, 3))),
        lif("m", "b", (2,)),
        lif("k", "c", (4,)),
    )
    counted = measure_energy(net, X).counts
    assert counted.weighted["b"].in_nonzero == counted.weighted["c"].in_nonzero == 6
    for items in (dataflow.snn(net, counted, FP32, Dataflow("per_event", "memory")), lemaire_snn(net, counted, FP32)):
        # the input is there; the six spikes of n are written with the first that reads them
        assert counts(items, "queue writes and reads") == {"a": 3, "b": 6 + 6, "c": 6}


def test_an_event_with_a_value_carries_it_through_the_queue() -> None:
    x = f32([[[0.5, 0]], [[0.25, 1]]])
    report = measure_energy(two_layers(), x)
    for items in (
        dataflow.snn(two_layers(), report.counts, FP32, Dataflow("per_event", "memory")),
        lemaire_snn(two_layers(), report.counts, FP32),
    ):
        queue = next(i for i in items if (i.layer, i.term) == ("a", "queue writes and reads"))
        # 3 events of 1 address bit and 32 value bits are read in a queue of two such words (9 bytes)
        assert queue.joules == approx((3 * 10 * 9 / 8192 * 33 / 64 * PJ,) * 2)


def test_a_float_multiply_is_not_priced_by_the_bits_of_an_activation() -> None:
    names = [model.name for model in measure_energy(two_layers(), X).models if model.prices.numbers == "float"]
    assert not any("quantised" in name for name in names)
    assert multiply(FP32, 3).low == FP32.terms["mul"].low
    assert multiply(INT8, 2).low == approx(0.2 * 2 / 8 * PJ)
    assert multiply(INT8, 2, 3).low == approx(0.2 * 2 / 8 * 3 / 8 * PJ)
    assert multiply(FP32, 1).low == multiply(INT8, 8, 1).low == 0


def test_what_does_not_fit_on_chip_is_dram() -> None:
    mebi = 1 << 20
    assert access(FP32, mebi) == approx((100 * PJ, 100 * PJ))
    assert access(FP32, 2 * mebi) == approx(((100 + 1300) / 2 * PJ, (100 + 2600) / 2 * PJ))
    assert access(FP32, 8 * 1024, 0.25) == approx(((10 + 3 * 1300) / 4 * PJ, (10 + 3 * 2600) / 4 * PJ))
    assert word_access(load_prices("jouppi7_int8_acc32"), 8, 2 * mebi) == approx(((14 + 1300) / 2 / 8 * PJ,) * 2)
    larger = replace(FP32, on_chip_bytes=2 * mebi)
    assert access(larger, mebi + mebi // 2)[0] < 200 * PJ


def perceptron(*widths: int) -> Program:
    rng = np.random.default_rng(0)
    nodes, before = [start((widths[0],))], "in"
    for i, (into, out) in enumerate(pairwise(widths)):
        nodes += [linear(f"l{i}", before, rng.random((out, into))), lif(f"n{i}", f"l{i}", (out,))]
        before = f"n{i}"
    return program(*nodes)


def joules(net: Program) -> float:
    chosen = quoted(measure_energy(net, np.ones((1, 1, *net.nodes[0].shape), np.float32)).comparisons)
    assert chosen is not None
    return middle(chosen.comparison.ann_J)


def test_the_capacity_is_the_network_s_and_one_percent_more_weights_cost_at_most_twice() -> None:
    """One layer of 1.05 MiB cost 19 times as much a byte as eight of 0.98 MiB."""
    for wide in (990, 1000, 1010, 1020, 1030, 1040, 1050, 1100):
        here, more = perceptron(1024, wide), perceptron(1024, round(wide * 1.01))
        assert 1 < joules(more) / joules(here) < 2
    one, eight = perceptron(1024, 1075), perceptron(*[1000] * 9)
    assert joules(eight) / (8 * 1000**2) > joules(one) / (1024 * 1075)  # the larger network has less of itself on chip


def test_states_have_the_chip_before_weights() -> None:
    ledger = Ledger(replace(FP32, on_chip_bytes=1000))
    ledger.words("a", "weight reads", 1, 64, 1200, "weights")
    ledger.words("a", "queue", 1, 64, 100)
    ledger.words("b", "queue", 1, 64, 40)
    ledger.words("b", "states", 1, 64, 300, "states")
    items = {(item.layer, item.term): item.joules for item in ledger.items()}
    assert items["b", "states"] == approx(access(FP32, 300))
    assert items["a", "queue"] == approx(access(FP32, 100))
    assert items["a", "weight reads"] == approx(access(replace(FP32, on_chip_bytes=1000), 1200, 600 / 1200))


@pytest.mark.parametrize("form", ["gain", "gain of each neuron", "scale", "offset"])
def test_equivalent_graphs_cost_the_same(form: str) -> None:
    """A gain in the neuron was billed as a 32-bit multiply for each update."""
    ones, x = np.ones((3, 2)), np.ones((4, 2, 2), np.float32)
    bias = np.full(3, 0.5, np.float32) if form == "offset" else None
    plain = lif("n", "a", (3,), decay=f32(0.5))
    folded = program(start((2,)), linear("a", "in", 0.5 * ones, bias=bias), plain)
    other = {
        "gain": [linear("a", "in", ones), replace(plain, gain=f32(0.5))],
        "gain of each neuron": [linear("a", "in", ones), replace(plain, gain=np.full(3, 0.5, np.float32))],
        "scale": [
            linear("a", "in", ones),
            Scale(name="s", shape=(3,), operands=(Operand("a"),), scale=f32([0.5] * 3)),
            replace(plain, operands=(Operand("s"),)),
        ],
        "offset": [linear("a", "in", 0.5 * ones), replace(plain, offset=f32(0.5))],
    }[form]
    ours, theirs = measure_energy(folded, x), measure_energy(program(start((2,)), *other), x)
    assert [n.spikes for n in theirs.counts.neurons.values()] == [n.spikes for n in ours.counts.neurons.values()]
    for one, two in zip(ours.comparisons, theirs.comparisons, strict=True):
        for side in ("snn_J", "ann_J"):
            assert getattr(two.comparison, side) == pytest.approx(getattr(one.comparison, side), rel=1e-9, abs=0)
    for one_chip, two_chip in zip(ours.chips, theirs.chips, strict=True):
        if "stm32" not in one_chip.chip:  # instructions were counted of graphs as they are exported
            assert two_chip.total == pytest.approx(one_chip.total, rel=1e-9, abs=0)
    assert theirs.verdict.partition(" On Loihi")[0] == ours.verdict.partition(" On Loihi")[0]


def test_pruned_weights_cost_less_on_both_sides() -> None:
    """No digit of the verdict or the grid moved, however many weights were zero."""
    rng = np.random.default_rng(1)
    weights = rng.random((40, 30)).astype(np.float32)
    pruned = np.where(rng.random(weights.shape) < 0.9, 0, weights).astype(np.float32)
    x = (rng.random((3, 4, 30)) < 0.3).astype(np.float32)
    whole, sparse = (
        measure_energy(program(start((30,)), linear("a", "in", w), lif("n", "a", (40,))), x) for w in (weights, pruned)
    )
    for before, after in zip(whole.comparisons, sparse.comparisons, strict=True):
        assert after.comparison.ann_J < before.comparison.ann_J
    items = sparse.as_dict()["itemised"]["streaming"]["snn"]
    synops = next(item["count"] for item in items if item["term"] == "synops")
    assert synops == sparse.counts.weighted["a"].synops_nonzero_w / 4 < sparse.counts.weighted["a"].synops / 4
    assert sparse.verdict != whole.verdict


def test_an_index_addresses_what_one_input_reaches() -> None:
    """Of a layer over tokens it was as many times too narrow as there are tokens, of groups as many too wide."""
    tokens = replace(linear("a", "in", np.ones((64, 8))), input_shape=(16, 8), shape=(16, 64))
    grouped = replace(conv("c", "in", np.ones((8, 1, 3, 3)), (8, 4, 4)), groups=8, input_shape=(8, 6, 6))
    whole = conv("d", "in", np.ones((8, 2, 3, 3)), (8, 4, 4))
    scale = Scale(name="s", shape=(8,), operands=(Operand("in"),), scale=f32(np.ones(8)))
    assert [_layer(node).reached for node in (tokens, grouped, whole, scale)] == [64, 9, 72, 1]


def test_few_zero_weights_are_stored_as_they_are() -> None:
    weights = np.ones((40, 30), np.float32)
    weights[0, :10] = 0  # an index would cost more than they do
    x = np.ones((3, 4, 30), np.float32)
    net, other = (program(start((30,)), linear("a", "in", w), lif("n", "a", (40,))) for w in (weights, weights * 0 + 1))
    few, none = (measure_energy(each, x).comparisons for each in (net, other))
    assert [cell.comparison.ann_J for cell in few] == [cell.comparison.ann_J for cell in none]


def test_pools_read_and_write_on_both_sides() -> None:
    last = conv("l", "p", np.ones((1, 1, 1, 1)), (1, 1, 1))
    net = program(start((1, 2, 2)), lif("n", "in", (1, 2, 2)), pool("p", "n", (1, 2, 2)), last)
    counted = measure_energy(net, np.ones((1, 1, 1, 2, 2), np.float32)).counts
    flow = Dataflow("per_step", "registers")
    assert counts(dataflow.snn(net, counted, FP32, flow), "queue writes and reads")["p"] == 2 * 4
    assert counts(dataflow.ann(net, counted, FP32, flow), "input reads")["p"] == 4
    assert counts(dataflow.ann(net, counted, FP32, flow), "output writes")["p"] == 1


def test_a_comparison_tells_middles_and_ends() -> None:
    found = Comparison((2.0, 4.0), (1.0, 4.0))
    assert found.snn_over_ann == approx(3 / 2.5)
    assert found.ends == approx((1.0, 2.0))
    assert Comparison((1.0, 1.0), (0.0, 0.0)).snn_over_ann is None


def test_counts_are_priced_as_the_ann_of_their_bits_that_skips_zeros() -> None:
    """Counts 3, 3, 0 of at most 3 are activations of two bits; a third of the second layer's products is skipped."""
    own = {"threshold": f32(1), "multi_spike": True, "cap": 3}
    net = program(
        start((2,)),
        linear("a", "in", np.array([[1, 1], [1, 1], [-1, -1]])),
        Neuron(name="hidden", shape=(3,), operands=(Operand("a"),), decay=None, **own),
        linear("b", "hidden", np.ones((2, 3))),
    )
    report = measure_energy(net, f32([[[1, 2]]]), input_coding="analog")

    def word(bits: int, words: int) -> float:
        return middle(word_access(INT8, bits, -(-words * bits // 8)))

    multiply, add = (middle((INT8.terms[term].low, INT8.terms[term].high)) for term in ("mul", "ac"))
    saved = 2 * (multiply + add + word(8, 6)) + 4 * multiply * (1 - 2 / 8)  # two MACs and weights, and six bits of four
    saved += 3 * 2 * (word(8, 3) - word(2, 3))  # hidden written and read; outputs are sums
    dense = quoted(report.comparisons)
    assert dense is not None
    assert ann_joules_of_counts(net, report.counts) == approx(middle(dense.energy.ann_J) - saved)


def test_a_number_behind_spikes_costs_no_bits() -> None:
    """It goes into the weights behind; a sum of spikes in different units is as wide as weights."""
    scale = {"shape": (1, 4, 4), "scale": f32(0.3)}
    spikes = lif("n", "in", (1, 4, 4))
    last = conv("l", "p", np.ones((1, 1, 1, 1)), (1, 2, 2))
    plain = program(start((1, 4, 4)), spikes, pool("p", "n", (1, 4, 4)), last)
    scaled = Scale(name="s", operands=(Operand("n"),), **scale)
    behind = program(start((1, 4, 4)), spikes, scaled, pool("p", "s", (1, 4, 4)), last)
    both = replace(pool("p", "s", (1, 4, 4)), operands=(Operand("s"), Operand("n")))
    mixed = program(start((1, 4, 4)), spikes, scaled, both, last)
    read = [
        (wide["p"].read, wide["l"].read)
        for net in (plain, behind, mixed)
        for wide in [widths(net, measure_energy(net, np.ones((1, 1, 1, 4, 4), np.float32)).counts, INT8)]
    ]
    assert read == [(1, 3), (1, 3), (8, 8)]  # sums of four spikes are 0 to 4
