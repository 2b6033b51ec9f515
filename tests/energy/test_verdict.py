"""The verdict: both numbers to quote in two to four short sentences, and what stands beside it on the page."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from stl_deploy._util.console import Console
from stl_deploy.config.options import EnergyOptions
from stl_deploy.energy import AnnTwin, measure_energy
from stl_deploy.energy.models.grid import LAYER_BY_LAYER, quoted
from stl_deploy.energy.models.ratios import number
from stl_deploy.energy.models.sensitivity import with_state_bits
from stl_deploy.energy.models.verdict import MOST_WORDS, Findings, range_of_ratios
from stl_deploy.energy.paired import compare
from stl_deploy.energy.prices.chip import OnChip
from stl_deploy.energy.prices.load import load_prices
from stl_deploy.energy.prices.price_list import leak_multiply, middle, state_multiply
from stl_deploy.graph.program import Operand
from stl_deploy.pipeline.energy import energy
from stl_deploy.report.energy_page import page
from stl_deploy.report.text.energy import show
from tests.energy.close import approx
from tests.energy.nets import f32, lif, linear, program, start
from tests.energy.test_dataflow import X, two_layers

TWIN = AnnTwin(macs_nonzero=30, macs=120, samples=10, source="twin")
STILL = program(start((2,)), linear("a", "in", np.ones((3, 2))))


def test_the_verdict_says_both_numbers_to_quote() -> None:
    """It gave one number of one dataflow in a sentence of 70 words."""
    report = measure_energy(two_layers(), X)
    streaming, batched = quoted(report.comparisons), quoted(report.comparisons, LAYER_BY_LAYER)
    assert streaming is not None
    assert batched is not None
    assert report.verdict.startswith(
        f"The SNN costs {number(streaming.ratio)} times its ANN twin streaming (weights once per step) and "
        f"{number(batched.ratio)} times layer by layer (once per inference); modelled, int8, 45 nm, the ANN dense."
    )
    data = report.as_dict()
    assert data["verdict"] == report.verdict
    assert data["quoted"] == streaming.as_dict()
    assert data["quoted_layer_by_layer"] == batched.as_dict()


def test_what_fits_the_input_leads() -> None:
    still = measure_energy(two_layers(), np.repeat(X[:1], 2, 0))
    streaming, batched = quoted(still.comparisons), quoted(still.comparisons, LAYER_BY_LAYER)
    assert streaming is not None
    assert batched is not None
    assert still.verdict.startswith(
        f"The SNN costs {number(batched.ratio)} times its ANN twin layer by layer (weights once per inference) and "
        f"{number(streaming.ratio)} times streaming (once per step); modelled, int8, 45 nm, the ANN dense."
    )
    leads = [each.as_dict()["leads"] for each in (still, measure_energy(two_layers(), X))]
    assert leads == ["layer_by_layer", "streaming"]


def sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.]) (?=[A-Z])", text)


def verdicts() -> list[str]:
    tested = {
        "equal": (np.ones(2000, bool), np.ones(2000, bool)),
        "less": (np.arange(2000) > 150, np.ones(2000, bool)),
        "cannot tell": (np.arange(20) > 2, np.arange(20) > 1),
    }
    report = measure_energy(two_layers(), X, twin=TWIN)
    found = {key: compare(*each, 0.005) for key, each in tested.items()}
    assert {key: each.verdict for key, each in found.items()} == {key: key for key in tested}
    others = [
        measure_energy(two_layers(), X),
        measure_energy(two_layers(), X, chip=OnChip("Loihi 1", reason="'p' cannot be placed on Loihi 1")),
        measure_energy(two_layers(), X, step_time={"loihi1": 1e-3}),
        measure_energy(two_layers(), 0 * X),
        measure_energy(two_layers(), X, labels=np.zeros((X.shape[1], X.shape[0]), np.int64)),
        measure_energy(program(start((3,)), lif("n", "in", (3,))), f32(np.ones((2, 1, 3)))),
        measure_energy(STILL, X),
    ]
    return [*(replace(report, accuracy=each).verdict for each in found.values()), *(each.verdict for each in others)]


def test_a_verdict_is_two_or_three_short_sentences() -> None:
    for found in verdicts():  # that of a sequence says, beside them, that its twin makes one pass
        of_sequence = "summed in one frame" in found
        assert 2 <= len(sentences(found)) <= 3 + of_sequence, found
        assert "SNN" in found
        for sentence in sentences(found):
            assert len(sentence.split()) <= MOST_WORDS, sentence


def test_the_range_is_over_the_whole_page() -> None:
    """It left out the published models, whose range stood on the same page."""
    report = measure_energy(two_layers(), X, twin=TWIN)
    ratios = [c.ratio for c in report.comparisons if c.ann_zeros == "skipped"]
    ratios += [end for model in report.models for end in model.comparison.ends or ()]
    assert f"it costs {number(min(ratios))} to {number(max(ratios))} times; " in report.spread
    low, high = report.as_dict()["model_range"]["snn_over_ann_range"]
    assert min(ratios) <= low < high <= max(ratios)


def test_the_range_includes_models_beyond_the_grid() -> None:
    report = measure_energy(two_layers(), X, twin=TWIN)
    cell = quoted(report.comparisons)
    assert cell is not None
    alone = Findings(cells=(cell,), break_even=report.break_even, models=report.models)
    low, high = report.as_dict()["model_range"]["snn_over_ann_range"]
    assert low < cell.ratio or high > cell.ratio
    assert range_of_ratios(alone) == (min(low, cell.ratio), max(high, cell.ratio))
    assert " to ".join(map(number, range_of_ratios(report._findings))) in report.spread


def test_every_item_of_the_numbers_to_quote_is_in_the_json() -> None:
    """Only the sums were there, so that nobody could rebuild them."""
    data = measure_energy(two_layers(), X, twin=TWIN).as_dict()
    for flow, cell in (("streaming", data["quoted"]), ("layer_by_layer", data["quoted_layer_by_layer"])):
        for side in ("snn", "ann"):
            joules = [middle(item["joules"]) for item in data["itemised"][flow][side]]
            assert sum(joules) == approx(cell[f"{side}_J"])


def test_a_silent_network_gets_no_number() -> None:
    """It was quoted as costing so many times its twin, for doing nothing."""
    report = measure_energy(two_layers(), 0 * X)
    data = report.as_dict()
    assert "silent" in report.verdict
    assert not any(character.isdigit() for character in report.verdict)
    assert (data["quoted"], data["quoted_layer_by_layer"], report.spread) == (None, None, "")


def test_a_network_without_spiking_neurons_gets_no_number() -> None:
    """An ANN was quoted as an SNN that costs so many times its ANN twin."""
    report = measure_energy(STILL, X)
    assert report.verdict.startswith("The network has no spiking neuron, so there is no number to quote.")
    assert (report.as_dict()["quoted"], report.spread) == (None, "")


def test_a_silent_network_is_printed_without_a_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    show(measure_energy(two_layers(), 0 * X), Console())
    printed = "".join(capsys.readouterr())
    assert "silent" in printed
    assert " times" not in printed
    assert "Loihi" not in printed


def test_the_page_of_a_silent_network_has_no_joules_and_no_ratio() -> None:
    """Its first line said silent; a table of chips and 27 ratios followed."""
    html = page(measure_energy(two_layers(), 0 * X))
    assert "silent" in html
    for part in ("chip-table", "price-table", "convention-table", "break-even-table", "grid-table"):
        assert f'id="{part}"' not in html
        assert f'id="{part}"' in page(measure_energy(two_layers(), X))
    assert 'id="layer-table"' in html


@pytest.mark.parametrize(("threshold", "word"), [(100.0, "silent"), (-100.0, "saturated")])
def test_a_network_whose_output_never_or_always_fires_gets_no_number(threshold: float, word: str) -> None:
    net = program(
        start((2,)), linear("l", "in", [[1, 1]]), lif("hidden", "l", (1,), 0.5),
        linear("m", "hidden", [[1]]), lif("out_", "m", (1,), threshold),
    )  # fmt: skip
    report = measure_energy(net, np.concatenate([X, X], axis=1))
    data = report.as_dict()
    assert report.counts.neurons["hidden"].spikes
    assert f"output is {word}" in report.verdict
    assert (data["quoted"], data["quoted_layer_by_layer"], report.spread) == (None, None, "")


def test_the_first_row_of_the_sensitivity_is_as_quoted_and_one_assumption_moves_in_each_other() -> None:
    data = measure_energy(two_layers(), X, twin=TWIN).as_dict()
    rows = {row["assumption"]: row for row in data["sensitivity"]}
    assert rows["as quoted"]["streaming"]["snn_over_ann"] == approx(data["quoted"]["snn_over_ann"])
    batched = data["quoted_layer_by_layer"]["snn_over_ann"]
    assert rows["as quoted"]["layer_by_layer"]["snn_over_ann"] == approx(batched)
    dense = next(c for c in data["comparisons"] if {**c, "ann_zeros": "skipped"}.items() >= _place(data).items())
    assert rows["the ANN computes its zeros"]["streaming"]["snn_over_ann"] == approx(dense["snn_over_ann"])
    narrow, quote = rows["16-bit states of the SNN"]["streaming"], rows["as quoted"]["streaming"]
    assert narrow["snn_J"] < quote["snn_J"]
    assert narrow["ann_J"] == quote["ann_J"]


def test_half_as_wide_states_halve_a_leak_and_quarter_a_product_of_states() -> None:
    """A decay keeps its 12 bits."""
    prices = load_prices("horowitz45_int8_acc32")
    half = with_state_bits(prices, 16)
    assert middle(leak_multiply(half).ends) == approx(middle(leak_multiply(prices).ends) / 2)
    assert middle(state_multiply(half).ends) == approx(middle(state_multiply(prices).ends) / 4)


def _place(data: dict[str, object]) -> dict[str, object]:
    cell = data["quoted"]
    assert isinstance(cell, dict)
    return {key: cell[key] for key in ("dataflow", "sums", "prices")}


@pytest.mark.usefixtures("any_size")
def test_the_same_microcontroller_is_told_for_both_sides() -> None:
    """The strongest comparison, SNN and ANN on one board, was never made."""
    chips = {c["chip"]: c for c in measure_energy(two_layers(), X).as_dict()["chips"]}
    board = chips["stm32l4r5"]
    assert board["ann_J"][0] > 0
    assert board["snn_over_ann"] == approx(
        [board["total_J"][0] / board["ann_J"][1], board["total_J"][1] / board["ann_J"][0]]
    )
    assert chips["loihi1"]["ann_J"] is None
    assert chips["loihi1"]["snn_over_ann"] is None


@pytest.mark.parametrize("batch", [1, 4])
def test_a_silent_layer_that_cuts_the_output_off_leaves_no_number(batch: int) -> None:
    """The last layer fired by its bias alone, and the energy of a network that decides nothing was quoted."""
    net = program(
        start((2,)),
        linear("a", "in", -np.ones((3, 2))),
        lif("hidden", "a", (3,)),
        linear("b", "hidden", np.ones((2, 3)), bias=np.full(2, 0.7)),
        lif("last", "b", (2,)),
    )
    report = measure_energy(net, np.ones((6, batch, 2), np.float32))
    assert report.verdict.startswith(
        "Silent or saturated layers keep the input from the output on this input, so there is no number"
    )
    assert (report.as_dict()["quoted"], report.spread) == (None, "")


def test_a_saturated_layer_that_cuts_the_output_off_leaves_no_number() -> None:
    """It fired at every step whatever came, the last layer by its leak, and 0.84 times was quoted."""
    net = program(
        start((2,)),
        linear("a", "in", np.ones((3, 2))),
        lif("hidden", "a", (3,), -100.0),
        linear("b", "hidden", np.ones((2, 3)) * 0.2),
        lif("last", "b", (2,), decay=0.9),
    )
    report = measure_energy(net, np.ones((6, 4, 2), np.float32))
    assert 0 < report.counts.neurons["last"].events < report.counts.neurons["last"].neuron_updates
    assert report.verdict.startswith("Silent or saturated layers keep the input from the output on this input, so")
    assert (report.as_dict()["quoted"], report.spread) == (None, "")


def test_a_silent_branch_is_named_before_the_numbers() -> None:
    net = program(
        start((2,)),
        linear("a", "in", -np.ones((2, 2))),
        lif("still", "a", (2,)),
        linear("b", "in", np.ones((2, 2))),
        lif("live", "b", (2,)),
        replace(linear("c", "still", np.ones((2, 2))), operands=(Operand("still"), Operand("live"))),
        lif("last", "c", (2,), decay=0.9),
    )
    report = measure_energy(net, X)
    first, second, *_ = sentences(report.verdict)
    assert first == "Layer 'still' is silent on this input: the numbers may not hold for others."
    assert second.startswith("The SNN costs ")


def with_twin(right: list[bool], *, summed: bool = False) -> AnnTwin:
    macs = measure_energy(two_layers(), X).counts.totals.ann_macs_exact // X.shape[1]
    decided = np.array(right)
    return AnnTwin(macs // 2, macs, 1, "twin", float(decided.mean()), right=decided, summed=summed)


def test_a_twin_at_chance_is_no_ann_to_compare_with() -> None:
    x, labels = np.concatenate([X[:, :1]] * 40, axis=1), np.arange(40) % 2
    x[:, 0] = 0
    chance, able = ([i < share for i in range(40)] for share in (22, 38))
    lost = measure_energy(two_layers(), x, labels=labels, twin=with_twin(chance))
    assert lost.verdict.startswith("There is no ANN to compare with: the twin decides 55.00 % right, no better")
    assert " times its ANN twin" not in lost.verdict
    assert lost.spread == ""
    assert measure_energy(two_layers(), x, labels=labels, twin=with_twin(able)).verdict.startswith("The SNN costs ")
    few = measure_energy(two_layers(), x[:, :4], labels=labels[:4], twin=with_twin(chance[:4]))
    assert few.verdict.startswith("The SNN costs ")  # four samples show nothing of a twin


def test_advice_does_not_compare_with_a_twin_at_chance() -> None:
    x, labels = np.concatenate([X[:, :1]] * 40, axis=1), np.arange(40) % 2
    x[:, 0] = 0
    chance, able = (with_twin([i < share for i in range(40)]) for share in (22, 38))
    lost, kept = (energy(two_layers(), x, EnergyOptions(), labels=labels, twin=twin) for twin in (chance, able))
    assert kept.advice is not None
    assert lost.advice is None


def test_a_twin_of_summed_frames_is_said_beside_an_ann_of_every_step() -> None:
    one, summed = (measure_energy(two_layers(), X, twin=with_twin([True], summed=s)) for s in (False, True))
    steps = len(X)
    ratio = quoted(summed.comparisons)
    assert ratio is not None
    assert f"The twin sees all {steps} steps summed in one frame" in summed.verdict
    untrained, still = (measure_energy(two_layers(), x).verdict for x in (X, np.repeat(X[:1], steps, 0)))
    assert ["summed in one frame" in verdict for verdict in (untrained, still)] == [True, False]
    assert f"the SNN {number(ratio.ratio / steps)} times that" in summed.verdict
    assert "summed" not in one.verdict
    assert "sum of all steps" in summed.as_dict()["ann_twin"]["text"]
