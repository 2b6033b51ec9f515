"""Joules by hand for small nets; brackets of what has no price; conventions; break-even."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np
import pytest

from stl_deploy.energy import EnergyReport, load_prices, measure_energy
from stl_deploy.energy.counts.neuron_ops import neuron_ops
from stl_deploy.energy.models.break_even import crossing
from stl_deploy.energy.prices.events import event_bill
from stl_deploy.energy.prices.price_list import state_multiply
from stl_deploy.graph.program import Adaptation, Neuron, Operand, Program, Scale, Synapse
from tests.energy.close import approx
from tests.energy.nets import conv, f32, lif, linear, pool, program, start

PJ = 1e-12


def two_layers() -> Program:
    """2 inputs, 3 hidden LIF neurons that fire at every event, 2 outputs; hidden biases."""
    return program(
        start((2,)),
        linear("a", "in", np.ones((3, 2)), bias=np.zeros(3)),
        lif("hidden", "a", (3,)),
        linear("b", "hidden", np.ones((2, 3))),
        lif("out_", "b", (2,)),
    )


X = f32([[[1, 0]], [[0, 0]]])  # one sample, two steps, one event
# a: 1 event x 3 synops; hidden: 3 spikes at step 0; b: 3 x 2 = 6 synops; out_: 2 spikes


def report(prices: str, net: Program | None = None, x: np.ndarray = X, **options: str) -> EnergyReport:
    return measure_energy(net or two_layers(), x, prices=(prices,), **options)  # type: ignore[arg-type]


def test_arithmetic_joules_by_hand() -> None:
    entry = report("horowitz45_fp32").energy[0]
    # AC 9, bias adds 3 x 2 steps, updates 5 x 2: 1 leak multiply, 1 add and 1 compare each
    snn = 9 * 0.9 + 6 * 0.9 + 10 * 3.7 + 10 * 2 * 0.9
    # ANN: 6 + 6 MACs, 3 biases, 5 ReLUs
    ann = 12 * 4.6 + 3 * 0.9 + 5 * 0.9
    assert entry.snn is not None
    assert entry.ann is not None
    assert entry.snn.total == approx((snn * PJ, snn * PJ))
    assert entry.ann.total == approx((ann * PJ, ann * PJ))
    assert entry.comparison is not None
    assert entry.comparison.snn_over_ann == approx(snn / ann)


def test_joules_are_for_one_inference() -> None:
    one, two = report("horowitz45_fp32"), report("horowitz45_fp32", x=np.concatenate([X, X], axis=1))
    assert two.counts.totals.synops == 2 * one.counts.totals.synops
    assert two.energy[0].as_dict()["snn"] == one.energy[0].as_dict()["snn"]


def test_loihi_by_hand_davies() -> None:
    snn = report("loihi1_davies2018").energy[0].snn
    assert snn is not None
    # touched: the hidden neurons and outputs at step 0; zero biases do not touch
    priced = 9 * 23.6 + 5 * 81 + 5 * 52 + 5 * 1.7
    assert snn.priced == approx((priced * PJ, priced * PJ))
    # hops: at most across two chips' meshes, 7 columns and 3 rows each, for each of at most 9 messages
    assert snn.total == approx((priced * PJ, (priced + 9 * 2 * (7 * 3 + 3 * 4)) * PJ))
    assert [u.what for u in snn.unpriced] == ["hops between cores: no placement is known"]


def test_loihi_by_hand_sanafe() -> None:
    snn = report("loihi1_sanafe").energy[0].snn
    assert snn is not None
    priced = 9 * 35.5 + 10 * 51.2 + 5 * 21.6 + 5 * 69.3
    assert snn.priced[0] == approx(priced * PJ)
    # at most one message for each of 9 synaptic events, each over two chips' meshes
    assert snn.total == approx((priced * PJ, (priced + 9 * 111 + 9 * 2 * (7 * 3 + 3 * 4.2)) * PJ))


def test_an_all_in_price_is_never_added_to() -> None:
    snn = report("truenorth_allin").energy[0].snn
    assert snn is not None
    assert [line.term for line in snn.lines] == ["synop"]
    assert snn.total == approx((9 * 26 * PJ, 9 * 26 * PJ))


def test_a_published_range_stays_a_range() -> None:
    snn = report("odin").energy[0].snn
    assert snn is not None
    assert snn.total == approx((9 * 12.7 * PJ, 9 * 54 * PJ))


def test_a_machine_that_runs_anns_prices_the_ann_only() -> None:
    entry = report("gpu_titan_black_mac").energy[0]
    assert entry.snn is None
    assert entry.ann is not None
    assert entry.ann.total == approx((12 * 300 * PJ, 12 * 300 * PJ))
    assert entry.comparison is None


def test_a_list_of_whole_tasks_prices_no_count() -> None:
    entry = report("xylo_audio2").energy[0]
    assert (entry.snn, entry.ann, entry.comparison) == (None, None, None)


def test_analog_input_has_no_price_in_events() -> None:
    x = f32([[[0.5, 0]], [[0.5, 0]]])
    snn = report("loihi1_davies2018", x=x).energy[0].snn
    assert snn is not None
    graded = next(u for u in snn.unpriced if u.what == "6 synops per inference on graded or analog values at 'a'")
    assert graded.bounds == approx((0, 6 * 8 * 23.6 * PJ))  # computed by the host, or a spike for each of 8 bits
    assert snn.total[0] == approx(snn.priced[0])
    assert snn.total[1] >= snn.priced[1] + graded.bounds[1]


def test_a_sum_pool_of_spikes_is_priced_as_folded_on_event_chips() -> None:
    net = program(
        start((1, 2, 2)),
        pool("p", "in", (1, 2, 2)),
        conv("c", "p", np.ones((3, 1, 1, 1)), (1, 1, 1)),
        lif("n", "c", (3, 1, 1)),
    )
    x = f32([[[[[1, 1], [0, 1]]]]])
    snn = report("loihi1_davies2018", net, x).energy[0].snn
    assert snn is not None
    events = next(line for line in snn.lines if line.term == "synop")
    assert events.count == 9  # 3 events, 3 synapses each; the pool itself costs nothing
    assert [u.what for u in snn.unpriced] == ["hops between cores: no placement is known"]


def test_a_pool_that_nothing_reads_is_paid_for_on_event_chips() -> None:
    net = program(start((1, 2, 2)), lif("n", "in", (1, 2, 2)), pool("p", "n", (1, 2, 2)), lif("m", "n", (1, 2, 2)))
    counts = measure_energy(net, np.ones((1, 1, 1, 2, 2), np.float32)).counts
    bill = event_bill(net, counts, load_prices("loihi1_davies2018"))
    assert [line.count for line in bill.lines if line.term == "synop"] == [4]


@pytest.mark.parametrize(("prices", "terms"), [("loihi1_davies2018", ["synop"]), ("loihi1_sanafe", ["synop_sparse"])])
def test_a_scale_of_spikes_is_one_synapse_each(prices: str, terms: list[str]) -> None:
    scale = Scale(name="s", shape=(3,), operands=(Operand("n"),), scale=f32([2, 3, 4]))
    net = program(start((3,)), lif("n", "in", (3,)), scale, lif("m", "s", (3,)))
    snn = report(prices, net, f32([[[1, 0, 1]]])).energy[0].snn
    assert snn is not None
    events = [line for line in snn.lines if line.what == "synaptic events, one to one"]
    assert [(line.term, line.count) for line in events] == [(term, 2) for term in terms]


def test_a_max_pool_does_not_fold_into_the_addressing_of_event_chips() -> None:
    net = program(
        start((1, 4, 4)),
        lif("n", "in", (1, 4, 4)),
        pool("p", "n", (1, 4, 4)),
        lif("max", "p", (1, 2, 2), decay=None),
        pool("q", "max", (1, 2, 2)),
        conv("c", "q", np.ones((3, 1, 1, 1)), (1, 1, 1)),
    )
    snn = report("loihi1_davies2018", net, np.ones((1, 1, 1, 4, 4), np.float32)).energy[0].snn
    assert snn is not None
    assert "3 synops per inference on graded or analog values at 'c'" in [u.what for u in snn.unpriced]


def test_a_missing_price_is_bracketed_and_named(tmp_path: object) -> None:
    path = tmp_path / "bare.toml"  # type: ignore[operator]
    path.write_text(
        'title="t"\nscope="arithmetic"\nnode="n"\nyear=2020\nevidence="unverified"\nsource="s"\n'
        '[terms]\nac={value=1,unit="pJ"}\nmac={value=2,unit="pJ"}\nadd={value=1,unit="pJ"}\n'
    )
    entry = report(str(path)).energy[0]
    assert entry.snn is not None
    missing = "10 multiplies and shifts of neuron updates per inference: the list has no price 'mul'"
    assert [u.what for u in entry.snn.unpriced] == [missing]
    assert entry.snn.total == approx(((9 + 6 + 20) * PJ, (9 + 6 + 20 + 10 * 31 * 2) * PJ))
    assert report(str(path)).break_even.models[0].scale is None


@pytest.mark.parametrize(
    ("fields", "muls", "adds", "compares", "per_spike"),
    [
        ({"decay": f32(0.9), "threshold": f32(1)}, 1, 1, 1, 0),
        ({"decay": f32(0.5), "threshold": f32(1)}, 0, 1, 1, 0),
        ({"decay": f32(1), "threshold": f32(1)}, 0, 1, 1, 0),
        ({"decay": None, "threshold": f32(1)}, 0, 0, 1, 0),
        ({"decay": f32(0.9), "threshold": None}, 1, 1, 0, 0),
        ({"decay": f32(0.9), "threshold": f32(1), "reset": "subtract"}, 1, 1, 1, 1),
        ({"decay": f32(0.9), "threshold": f32(1), "offset": f32(0.1), "gain": f32(3)}, 2, 2, 1, 0),
        ({"decay": f32(0.9), "threshold": f32(1), "v_min": f32(-1), "offset": f32(0)}, 1, 1, 2, 0),
        ({"decay": f32(0.9), "threshold": f32(1), "synapse": Synapse("euler", f32(0.9), f32(1))}, 2, 2, 1, 0),
        ({"decay": f32(0.9), "threshold": f32(1), "multi_spike": True, "reset": "subtract"}, 2, 1, 1, 1),
        ({"decay": f32(0.9), "threshold": f32(1), "adaptation": Adaptation(f32(0.9), f32(1))}, 2, 2, 1, 1),
    ],
)
def test_update_operations_come_from_the_equations(
    fields: dict[str, object], muls: int, adds: int, compares: int, per_spike: int
) -> None:
    node = Neuron(name="n", shape=(1,), operands=(Operand("in"),), **fields)  # type: ignore[arg-type]
    ops = neuron_ops(node)
    assert (ops.leak_muls + ops.other_muls, ops.adds, ops.compares, ops.adds_per_spike) == (
        muls,
        adds,
        compares,
        per_spike,
    )


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        ([0.5], (0, 1, 0)),
        ([0.25, 0.5], (0, 1, 0)),
        ([1.0, 0.125], (0, 1, 0)),
        ([0.75], (0, 1, 1)),
        ([0.9375, 0.75], (0, 1, 1)),
        ([0.5, 0.75], (0, 1, 1)),
        ([0.5, 0.875], (0, 1, 1)),
        ([0.25, 0.875], (1, 0, 0)),
        ([0.9], (1, 0, 0)),
        ([2.0], (1, 0, 0)),
        ([1.0], (0, 0, 0)),
    ],
)
def test_a_decay_of_a_power_of_two_is_a_shift(decay: list[float], expected: tuple[int, int, int]) -> None:
    node = Neuron(name="n", shape=(len(decay),), operands=(Operand("in"),), decay=f32(decay), threshold=f32(1))
    ops = neuron_ops(node)
    assert (ops.leak_muls, ops.leak_shifts, ops.shift_adds) == expected


def test_a_leak_is_priced_at_the_widths_of_decay_and_state() -> None:
    net = two_layers()
    tenth = tuple(replace(n, decay=f32(0.9)) if isinstance(n, Neuron) else n for n in net.nodes)
    ann = (12 * 0.3 + 3 * 0.1 + 5 * 0.1 + 5 * (3.1 + 0.1)) * PJ, (12 * 0.3 + 3 * 0.1 + 5 * 0.1 + 5 * 3.3) * PJ
    rest = 9 * 0.1 + 6 * 0.1 + 20 * 0.1
    for nodes, low, high in ((net.nodes, 0.0, 0.1), (tenth, 3.1 * 12 / 32, 3.1 * 12 / 32)):  # a shift; 12 bits times 32
        entry = report("horowitz45_int8_acc32", replace(net, nodes=nodes)).energy[0]
        assert entry.snn is not None
        assert entry.ann is not None
        assert entry.snn.total == approx(((rest + 10 * low) * PJ, (rest + 10 * high) * PJ))
        assert entry.ann.total == approx(ann)  # each of 5 activations is requantised


def test_without_its_price_a_wider_multiply_lies_between_r_and_r_squared(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'title="t"\nscope="arithmetic"\nnode="n"\nyear=2020\nevidence="unverified"\nsource="s"\n'
        "weight_bits=8\naccumulator_bits=32\n[terms]\n"
        + "".join(f'{op}={{value=1,unit="pJ"}}\n' for op in ("ac", "mac", "mul", "add"))
    )
    price = state_multiply(load_prices(path))
    assert (price.low, price.high) == approx((4 * PJ, 16 * PJ))


def test_sigmas_of_prices_reach_the_total(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'title="t"\nscope="marginal"\nnode="n"\nyear=2020\nevidence="measured"\nsource="s"\n[terms]\n'
        'synop={value=10,unit="pJ",sigma=3}\nneuron_active={value=5,unit="pJ",sigma=2}\n'
    )
    snn = report(str(path)).energy[0].snn
    assert snn is not None
    # 9 events move together, 10 updates move together, the two apart: sqrt(27² + 20²)
    assert snn.sigma == approx((27**2 + 20**2) ** 0.5 * PJ)
    assert report("loihi1_davies2018").energy[0].snn.sigma is None  # type: ignore[union-attr]


def test_pruned_weights_have_forms_of_their_own() -> None:
    net = program(start((2,)), linear("a", "in", [[1, 0], [0, 0], [1, 1]]), lif("n", "a", (3,)))
    entry = report("loihi1_sanafe", net, f32([[[1, 1]]])).energy[0]
    assert entry.snn is not None
    rest = 3 * 51.2 + 3 * 21.6 + 2 * 69.3  # the two that reach their thresholds
    assert entry.snn.priced[0] == approx((6 * 35.5 + rest) * PJ)
    assert {form: bill.priced[0] for form, bill in entry.forms.items()} == approx(
        {"sparse": (3 * 33.6 + rest) * PJ, "compressed": (3 * 35.5 + rest) * PJ}
    )
    full = report("loihi1_sanafe").energy[0]
    assert full.forms == {}


def test_the_convention_table_by_hand() -> None:
    x = f32([[[0.5, 0]], [[0.5, 0]]])  # analog and constant: 2 x 3 MACs
    result = report("horowitz45_fp32", x=x)
    # v = 0.5, then 0.75: no spikes. The second layer is silent.
    assert result.counts.totals.spikes == 0
    rows = {row.name: row.comparison for row in result.conventions if row.comparison is not None}
    assert rows["first layer ignored"].snn_J[0] == 0
    assert rows["first layer ignored"].snn_over_ann == 0
    assert rows["all synops as AC"].snn_J[0] == approx(6 * 0.9 * PJ)
    assert rows["graded and analog synops as MAC"].snn_over_ann == approx(6 * 4.6 / (12 * 4.6))
    full = 6 * 4.6 + 6 * 0.9 + 10 * 3.7 + 20 * 0.9
    assert rows["+ bias adds and neuron updates"].snn_J[0] == approx(full * PJ)
    once = 3 * 4.6 + 3 * 0.9 + 10 * 3.7 + 20 * 0.9
    assert rows["constant first layer computed once"].snn_J[0] == approx(once * PJ)
    twin = 12 * 4.6 + 3 * 0.9 + 5 * 0.9
    assert rows["ANN runs once per time step"].ann_J[0] == approx(2 * twin * PJ)
    # the decay is 1/2: a shift, 0.05 in the middle of its range
    shifted = 6 * 0.3 + 6 * 0.1 + 10 * 0.05 + 20 * 0.1
    assert rows["8-bit integers, 32-bit accumulators"].snn_J[0] == approx(shifted * PJ)
    kinds = {row.name: row.kind for row in result.conventions}
    assert {name for name, kind in kinds.items() if kind == "bookkeeping"} == {
        "first layer ignored",
        "all synops as AC",
        "all synops as AC, padded ANN",
        "graded and analog synops as MAC",
        "+ bias adds and neuron updates",
        "constant first layer computed once",
    }


def test_a_changing_input_has_no_constant_first_layer() -> None:
    rows = {row.name: row for row in report("horowitz45_fp32").conventions}
    assert rows["constant first layer computed once"].comparison is None


def test_padding_taps_make_the_padded_ann_dearer() -> None:
    net = program(
        start((1, 2, 2)),
        conv("c", "in", np.ones((1, 1, 3, 3)), (1, 2, 2), padding=((1, 1), (1, 1))),
        lif("n", "c", (1, 2, 2)),
    )
    rows = {row.name: row for row in report("horowitz45_fp32", net, np.ones((1, 1, 1, 2, 2), np.float32)).conventions}
    exact, padded = rows["all synops as AC"], rows["all synops as AC, padded ANN"]
    assert exact.comparison is not None
    assert padded.comparison is not None
    assert (exact.comparison.ann_J[0], padded.comparison.ann_J[0]) == approx((16 * 4.6 * PJ, 36 * 4.6 * PJ))


def low_rate() -> tuple[Program, np.ndarray]:
    """Four inputs, one of them active; of eight neurons one fires once in eight steps, and of 90 none."""
    weight = np.zeros((8, 4))
    weight[0] = 1
    net = program(
        start((4,)),
        linear("a", "in", weight),
        lif("n", "a", (8,)),
        linear("b", "n", np.full((90, 8), 0.1)),
        lif("m", "b", (90,)),
    )
    x = np.zeros((8, 1, 4), np.float32)
    x[0, 0, 0] = 1
    return net, x


def test_at_the_break_even_activity_both_sides_cost_the_same() -> None:
    net, x = low_rate()
    result = report("horowitz45_int8_acc32", net, x)
    model, entry = result.break_even.models[0], result.energy[0]
    assert model.scale is not None
    assert model.spike_rate is not None
    assert entry.snn is not None
    assert entry.ann is not None
    for end, scale in enumerate(sorted(model.scale, reverse=True)):  # dear shifts leave fewer spikes
        moved = (scale - 1) * 90 * 0.1 * PJ
        assert entry.snn.total[end] + moved == approx(entry.ann.total[end], rel=1e-6)
    assert result.break_even.spikes_per_synapse_per_inference == approx((8 + 90) / 752)
    assert model.spike_rate == approx(tuple(result.break_even.spike_rate * s for s in model.scale))  # type: ignore[operator]
    assert model.spikes_per_synapse == approx(tuple((8 + 90 * scale) / 752 for scale in model.scale))


@pytest.mark.parametrize(
    ("ann", "expected"),
    [(0.5, -1.0), (1.0, 1.0), (2.0, 1.5), (3.0, 2.0), (4.0, 3.5), (5.0, 4.0), (5.1, inf)],
)
def test_the_crossing_lies_between_two_bends(ann: float, expected: float) -> None:
    costs = [1.0, 1.0, 3.0, 3.0, 5.0]  # flat, rising, flat, rising
    assert crossing([0.0, 1.0, 2.0, 3.0, 4.0], costs.__getitem__, ann) == approx(expected)


def test_no_rate_beyond_one_spike_per_step_is_told() -> None:
    result = report("horowitz45_fp32", x=X[:1])  # every neuron fires at the one step there is
    model = result.break_even.models[0]
    assert (model.scale, model.verdict) == (None, "below")
    assert model.text == "the SNN costs less at every rate that its neurons can fire at"
    for each in result.break_even.models:
        assert each.spike_rate is None or 0 <= each.spike_rate[0] <= each.spike_rate[1] <= 1


def test_an_event_of_several_spikes_crosses_a_synapse_several_times() -> None:
    many = Neuron(name="n", shape=(1,), operands=(Operand("in"),), decay=None, threshold=f32(1), multi_spike=True)
    result = measure_energy(program(start((1,)), many, linear("l", "n", [[1], [1]])), f32([[[3.5]]]))
    assert result.counts.totals.synops == 2  # one event, two synapses
    assert result.break_even.spikes_per_synapse_per_inference == 3


def test_fixed_costs_above_the_ann_never_break_even() -> None:
    x = np.concatenate([X] * 8)  # many steps: neuron updates alone cost more than one ANN pass
    model = report("horowitz45_fp32", x=x).break_even.models[0]
    assert (model.scale, model.verdict) == (None, "above")


def test_verdicts_against_published_limits() -> None:
    published = report("horowitz45_fp32").break_even.published
    studies = {limit.study.split(" ")[0]: verdict for limit, _, verdict in published}
    # 0.75 spikes per synapse: below 1.72, within 0.15 to 1.38; rate 0.5: above 6 %
    assert studies == {"Davidson": "below", "Dampfhoffer": "within", "Yan": "above"}
