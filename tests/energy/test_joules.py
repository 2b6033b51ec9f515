"""Joules by hand for small nets; withheld totals; conventions; break-even."""

from __future__ import annotations

import numpy as np
import pytest

from stl_deploy.energy import EnergyReport, measure_energy
from stl_deploy.energy.counts.neuron_ops import neuron_ops
from stl_deploy.graph.program import Neuron, Program, Source, Synapse
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
    assert entry.ratio == approx((ann / snn, ann / snn))


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
    assert snn.total is None
    assert snn.unpriced == ("hops between cores: no placement is known",)


def test_loihi_by_hand_sanafe() -> None:
    snn = report("loihi1_sanafe").energy[0].snn
    assert snn is not None
    priced = 9 * 35.5 + 10 * 51.2 + 5 * 21.6 + 5 * 69.3
    assert snn.priced[0] == approx(priced * PJ)
    assert snn.total is None


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
    assert entry.ratio is None


def test_a_list_of_whole_tasks_prices_no_count() -> None:
    entry = report("xylo_audio2").energy[0]
    assert (entry.snn, entry.ann, entry.ratio) == (None, None, None)


def test_analog_input_has_no_price_in_events() -> None:
    x = f32([[[0.5, 0]], [[0.5, 0]]])
    snn = report("loihi1_davies2018", x=x).energy[0].snn
    assert snn is not None
    assert snn.total is None
    assert "6 synops per inference on graded or analog values at 'a'" in snn.unpriced


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
    assert snn.unpriced == ("hops between cores: no placement is known",)


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
    assert "3 synops per inference on graded or analog values at 'c'" in snn.unpriced


def test_a_missing_price_withholds_the_total(tmp_path: object) -> None:
    path = tmp_path / "bare.toml"  # type: ignore[operator]
    path.write_text(
        'title="t"\nscope="arithmetic"\nnode="n"\nyear=2020\nevidence="unverified"\nsource="s"\n'
        '[terms]\nac={value=1,unit="pJ"}\nmac={value=2,unit="pJ"}\nadd={value=1,unit="pJ"}\n'
    )
    entry = report(str(path)).energy[0]
    assert entry.snn is not None
    assert entry.snn.total is None
    assert entry.snn.unpriced == ("10 multiplies of neuron updates per inference: the list has no price 'mul'",)
    assert entry.snn.priced[0] == approx((9 + 6 + 20) * PJ)
    assert entry.ratio is None
    assert report(str(path)).break_even.models[0].scale is None


@pytest.mark.parametrize(
    ("fields", "muls", "adds", "compares", "per_spike"),
    [
        ({"decay": f32(0.5), "threshold": f32(1)}, 1, 1, 1, 0),
        ({"decay": f32(1), "threshold": f32(1)}, 0, 1, 1, 0),
        ({"decay": None, "threshold": f32(1)}, 0, 0, 1, 0),
        ({"decay": f32(0.5), "threshold": None}, 1, 1, 0, 0),
        ({"decay": f32(0.5), "threshold": f32(1), "reset": "subtract"}, 1, 1, 1, 1),
        ({"decay": f32(0.5), "threshold": f32(1), "leak": f32(0.1), "gain": f32(2)}, 2, 2, 1, 0),
        ({"decay": f32(0.5), "threshold": f32(1), "v_min": f32(-1), "leak": f32(0)}, 1, 1, 2, 0),
        ({"decay": f32(0.5), "threshold": f32(1), "synapse": Synapse("euler", f32(0.9), f32(1))}, 2, 2, 1, 0),
        ({"decay": f32(0.5), "threshold": f32(1), "many": True, "reset": "subtract"}, 2, 1, 1, 1),
    ],
)
def test_update_operations_come_from_the_equations(
    fields: dict[str, object], muls: int, adds: int, compares: int, per_spike: int
) -> None:
    node = Neuron(name="n", shape=(1,), sources=(Source("in"),), **fields)  # type: ignore[arg-type]
    ops = neuron_ops(node)
    assert (ops.leak_muls + ops.other_muls, ops.adds, ops.compares, ops.adds_per_spike) == (
        muls,
        adds,
        compares,
        per_spike,
    )


def test_the_convention_table_by_hand() -> None:
    x = f32([[[0.5, 0]], [[0.5, 0]]])  # analog and constant: 2 x 3 MACs
    result = report("horowitz45_fp32", x=x)
    # v = 0.5, then 0.75: no spikes. The second layer is silent.
    assert result.counts.totals.spikes == 0
    rows = {row.name: row for row in result.conventions}
    assert rows["first layer ignored"].snn_J == 0
    assert rows["first layer ignored"].ratio_ann_over_snn is None
    assert rows["all synops as AC"].snn_J == approx(6 * 0.9 * PJ)
    assert rows["graded and analog synops as MAC"].ratio_ann_over_snn == approx(12 * 4.6 / (6 * 4.6))
    full = 6 * 4.6 + 6 * 0.9 + 10 * 3.7 + 20 * 0.9
    assert rows["+ bias adds and neuron updates"].snn_J == approx(full * PJ)
    once = 3 * 4.6 + 3 * 0.9 + 10 * 3.7 + 20 * 0.9
    assert rows["constant first layer computed once"].snn_J == approx(once * PJ)
    twin = 12 * 4.6 + 3 * 0.9 + 5 * 0.9
    assert rows["ANN runs once per time step"].ann_J == approx(2 * twin * PJ)
    assert rows["8-bit integers, 32-bit accumulators"].snn_J == approx((6 * 0.3 + 6 * 0.1 + 10 * 0.2 + 20 * 0.1) * PJ)


def test_a_changing_input_has_no_constant_first_layer() -> None:
    rows = {row.name: row for row in report("horowitz45_fp32").conventions}
    assert rows["constant first layer computed once"].ratio_ann_over_snn is None


def test_padding_taps_make_the_padded_ann_dearer() -> None:
    net = program(
        start((1, 2, 2)),
        conv("c", "in", np.ones((1, 1, 3, 3)), (1, 2, 2), padding=((1, 1), (1, 1))),
        lif("n", "c", (1, 2, 2)),
    )
    rows = {row.name: row for row in report("horowitz45_fp32", net, np.ones((1, 1, 1, 2, 2), np.float32)).conventions}
    exact, padded = rows["all synops as AC"], rows["all synops as AC, padded ANN"]
    assert (exact.ann_J, padded.ann_J) == approx((16 * 4.6 * PJ, 36 * 4.6 * PJ))


def test_at_the_break_even_activity_both_sides_cost_the_same() -> None:
    result = report("horowitz45_fp32", x=X[:1])
    model, entry = result.break_even.models[0], result.energy[0]
    assert model.scale is not None
    assert model.spike_rate is not None
    fixed = entry.snn.total[0] - 6 * 0.9 * PJ  # type: ignore[union-attr,index]
    assert fixed + model.scale * 6 * 0.9 * PJ == approx(entry.ann.total[0])  # type: ignore[union-attr,index]
    assert result.break_even.spikes_per_synapse_per_inference == approx(9 / 12)
    assert result.break_even.spike_rate == approx(5 / 5)
    assert model.spike_rate == approx(model.scale)
    assert model.spikes_per_synapse == approx((3 + 6 * model.scale) / 12)


def test_fixed_costs_above_the_ann_never_break_even() -> None:
    x = np.concatenate([X] * 8)  # many steps: neuron updates alone cost more than one ANN pass
    model = report("horowitz45_fp32", x=x).break_even.models[0]
    assert (model.scale, model.verdict) == (None, "above")


def test_verdicts_against_published_limits() -> None:
    published = report("horowitz45_fp32").break_even.published
    studies = {limit.study.split(" ")[0]: verdict for limit, _, verdict in published}
    # 0.75 spikes per synapse: below 1.72, within 0.15 to 1.38; rate 0.5: above 6 %
    assert studies == {"Davidson": "below", "Dampfhoffer": "within", "Yan": "above"}
