"""examples/study: its statistics by hand, its noise, and a tiny study from settings to page."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from examples.study import __main__ as study
from examples.study import noise, plan, work
from examples.study.claims import answers, deep_answers
from examples.study.comparisons import Row, compare
from examples.study.publish import BEGIN, END, published, write_results
from examples.study.statistics import holm, mean, paired
from examples.study.tables import tables
from examples.study.when import advice, conditions, hidden_synops, levels
from stl_deploy.data.sources import Raw, read_idx

SETTINGS = """
{T: 2, encoder: direct, batch_size: 64, lr: 0.01, lr_decay: 0.9, tl_multiplier: 2.0, threshold: 1.0, hidden: 12,
 modes: {datasets: [digits], seeds: 2, epochs: 4, images: null, validation: 0.1},
 noise: {levels: [0.5]},
 thresholds: {datasets: [digits], seeds: 1, epochs: 1, images: null, validation: 0.1, initial: [0.5, 2.0]},
 granularity: {datasets: [digits], seeds: 1, epochs: 1, images: null, validation: 0.1, channels: [2, 3]},
 depth: {datasets: [digits], seeds: 1, epochs: 1, images: null, validation: 0.1, layers: [1, 2], counted: 5},
 when: {datasets: [digits], seeds: 1, epochs: 1, images: null, validation: 0.1, batch_size: 64, lr: 0.01, lr_decay: 1.0,
  initial: [1.0], steps: [1], deep: 2, few: [2], budgets: {digits: 900.0}, channels: [2, 3], integers: 5},
 deep: {datasets: [digits], seeds: 1, epochs: 1, images: null, validation: 0.1, T: 2, layers: [4], channels: [2, 3],
  batch_size: 64, lr: 0.01, test: null, counted: 5}}
"""


def test_mean_and_interval_by_hand():
    found = mean([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.value == 3
    assert found.half == pytest.approx(2.776445 * np.sqrt(2.5 / 5), rel=1e-6)
    assert mean([7.0]).half is None
    with pytest.raises(ValueError, match="no values"):
        mean([])


def test_paired_tests_by_hand():
    found = paired([3.0, 5.0, 7.0], [2.0, 3.0, 4.0])
    t = 2 * np.sqrt(3)
    assert found.p_t == pytest.approx(1 - t / np.sqrt(t**2 + 2))
    assert found.p_wilcoxon == pytest.approx(2 / 2**3)
    assert found.effect == pytest.approx(2)
    assert paired([2.0, 1.0], [1.0, 2.0]).p_t == pytest.approx(1)


def test_pairs_without_spread_or_partner():
    same = paired([1.0, 2.0], [1.0, 2.0])
    assert (same.p_t, same.p_wilcoxon, same.effect) == (None, 1.0, None)
    assert paired([0.3, 0.6, 0.9], [0.2, 0.5, 0.8]).p_t is None  # alike but for rounding
    assert paired([1.0], [2.0]).p_wilcoxon is None
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        paired([1.0, 2.0], [1.0])


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.9]) == pytest.approx([0.04, 0.09, 0.09, 0.9])


def _accuracies(*percent: float) -> dict[int, dict[str, dict[str, float]]]:
    return {seed: {"test": {"accuracy": value / 100}} for seed, value in enumerate(percent)}


def test_findings_say_higher_lower_or_noise():
    rows = [
        Row("up", _accuracies(90.0, 91.1, 92.0), _accuracies(80.0, 81.0, 82.1)),
        Row("down", _accuracies(80.0, 81.0, 82.1), _accuracies(90.0, 91.1, 92.0)),
        Row("noise", _accuracies(90.0, 91.0, 92.0), _accuracies(91.0, 90.0, 92.5)),
        Row("alone", _accuracies(90.0), _accuracies(80.0)),
        Row("no pair", _accuracies(90.0), {}),
    ]
    found = compare(rows)
    assert [(c.label, c.finding) for c in found] == [
        ("up", "higher"),
        ("down", "lower"),
        ("noise", "within noise"),
        ("alone", "untested"),
    ]
    assert found[0].adjusted == pytest.approx(3 * found[0].pair.p_t)


def _noisy(mode: str, clean: list[float], noisy: float) -> list[dict[str, object]]:
    label = {"dataset": "digits", "labels": {"mode": mode}}
    return [
        label | {"seed": seed, "clean": one, "noise": {"gaussian": {"0.5": noisy - 0.001 * seed}}}
        for seed, one in enumerate(clean)
    ]


def test_a_claim_holds_where_its_sign_does():
    stl, sl = [0.9, 0.9, 0.901], [0.8, 0.8, 0.8]
    (lost,) = answers({"noise": _noisy("stl", stl, 0.5) + _noisy("sl", sl, 0.5)})
    assert lost.comparison.pair.difference.value == pytest.approx(10, abs=0.1)
    assert lost.verdict == "the opposite"
    (kept,) = answers({"noise": _noisy("stl", stl, 0.7) + _noisy("sl", sl, 0.5)})
    assert kept.verdict == "holds"


def _when(gains: dict[tuple[float, bool], list[float]]) -> list[dict[str, object]]:
    """SL is at 80 percent at every start, STL better by so many points for each seed."""
    network = [{"kind": kind} for kind in ("linear", "lif", "linear", "lif", "linear", "lif")]
    records = []
    for (initial, norm), of_seeds in gains.items():
        for seed, gain in enumerate(of_seeds):
            for mode, points in (("sl", 80.0), ("stl", 80.0 + gain)):
                labels = {"mode": mode, "factor": "start", "initial": initial, "T": 1, "epochs": 2, "budget": 0}
                record = {"dataset": "digits", "seed": seed, "labels": labels | {"norm": norm}}
                records.append(record | {"config": {"network": network}, "test": {"accuracy": points / 100}})
    return records


def test_a_level_is_the_mean_of_its_conditions_seed_by_seed():
    records = _when({(1.0, False): [1.0, 2.0, 9.0], (1.0, True): [3.0, 6.0], (4.0, True): [5.0, 5.0]})
    found = conditions(records)
    assert [condition.row.label for condition in found] == [
        "θ₀ = 1, T = 1, no batch norm",
        "θ₀ = 1, T = 1, batch norm",
        "θ₀ = 4, T = 1, batch norm",
    ]
    assert found[1].accuracies == pytest.approx((80.0, 84.5))
    means = {
        row.label: [row.value(row.first[seed]) - row.value(row.second[seed]) for seed in row.first]
        for row in levels(found)
    }
    assert means["θ₀ = 1"] == pytest.approx([2.0, 4.0])
    assert means["T = 1"] == pytest.approx([3.0, 13 / 3])
    assert means["no batch norm"] == pytest.approx([1.0, 2.0, 9.0])


def test_advice_needs_a_significant_half_point():
    gains = {
        (1.0, False): [0.3, 0.31, 0.32, 0.3],
        (4.0, False): [3.0, 3.1, 3.2, 3.1],
        (8.0, False): [-2.0, -2.1, -2.2, -2.1],
        (0.5, False): [2.0, -2.0, 1.0, 0.5],
    }
    learn, little, not_to, unshown, single = advice(_when(gains)).splitlines()
    assert learn == "- **Learn thresholds:** θ₀ = 4 (+3.10 points, +2.97 to +3.23)."
    assert "θ₀ = 1 (+0.31 points" in little
    assert "θ₀ = 8 (-2.10 points" in not_to
    assert "θ₀ = 0.5" in unshown
    assert "T = 1 (" in unshown
    assert single.count("higher") == 2
    assert single.count("lower") == 1


def test_advice_says_what_a_bad_start_costs():
    records = _when({(1.0, True): [0.0, 0.1], (4.0, True): [1.0, 1.1]})
    for record in records:
        if record["labels"]["initial"] == 4.0:
            record["test"] = {"accuracy": record["test"]["accuracy"] - 0.1}
    other = _when({(1.0, True): [0.0, 0.1]})
    for record in other:
        record["labels"]["factor"] = "few"
    last = advice(records + other).splitlines()[-1]
    assert "θ₀ = 4 instead of 1 costs SL 10.00 points" in last
    assert "regains +1.05" in last


def test_hidden_synops_by_hand():
    network = [{"kind": "flatten"}, *({"kind": "linear", "features": n} for n in (10, 20, 5))]
    rates = {"lif1": 0.5, "lif2": 0.1, "lif3": 0.9}
    record = {"config": {"network": network}, "labels": {"T": 4}, "test": {"rates": rates}}
    assert hidden_synops(record) == pytest.approx(4 * (0.5 * 10 * 20 + 0.1 * 20 * 5))


def _counted(mode: str, layers: int, seed: int, snn: float, ann: float) -> dict[str, object]:
    cell = {"dataflow": "per_step", "sums": "registers", "prices": "p", "snn_joules": snn, "ann_joules": ann}
    counts = {"synops_AC": 10.0, "synops_MAC": 0.0, "grid": [cell | {"quoted": False, "snn_joules": 7.0}]}
    counts["grid"].append(cell | {"quoted": True})
    labels = {"mode": mode, "layers": layers}
    accuracy = {"accuracy": 0.5 + 0.001 * seed}
    return {"dataset": "cifar10", "labels": labels, "seed": seed, "counts": counts, "test": accuracy}


def test_energy_over_depth_is_told_from_the_quoted_cell():
    records = [
        _counted(mode, layers, seed, (2.0 + 0.01 * seed) * ratio, 2.0)
        for layers, ratio in ((2, 1.5), (8, 1.2))
        for seed in range(3)
        for mode in ("stl", "sl", "ann")
    ]
    found = {answer.comparison.label.split(", ", 1)[1]: answer for answer in deep_answers(records)}
    beside = found["2 convolutions: modelled energy, STL / ANN - 1"]
    assert beside.comparison.pair.difference.value == pytest.approx(50.75, abs=0.01)
    assert beside.verdict == "the opposite"
    growth = found["2 to 8 convolutions: growth of modelled energy, STL / ANN"]
    assert growth.comparison.pair.difference.value == pytest.approx(-30.15, abs=0.01)
    assert growth.verdict == "holds"
    assert found["8 convolutions: modelled energy, STL / SL - 1"].comparison.pair.difference.value == 0


@pytest.mark.parametrize("layers", [2, 4, 8, 12])
def test_deep_nets_have_as_many_convolutions_as_they_say(layers):
    def convolutions(of):
        return sum(1 if spec["kind"] == "conv" else convolutions(spec.get("layers", ())) for spec in of)

    assert convolutions(plan.deep(layers, [8, 16])) == layers


def test_a_reduced_split_takes_the_first_of_each_class_in_turn():
    labels = np.array([0, 0, 0, 2, 2, 1, 1, 2])
    assert work.first_of_each_class(labels, 5).tolist() == [0, 5, 3, 1, 6]


def test_what_is_published_is_read_back(tmp_path):
    write_results({"when": [{"name": "one", "seed": 0, "epochs": [1]}], "deep": []}, tmp_path)
    assert published("when", tmp_path) == [{"name": "one", "seed": 0}]
    assert published("deep", tmp_path) == []


def test_noise_does_what_its_name_says():
    draws = torch.Generator().manual_seed(0)
    spikes = (torch.rand(4, 5000, generator=draws) < 0.5).float()
    lost, more = noise.deletion(spikes, 0.3, draws), noise.insertion(spikes, 0.3, draws)
    assert not lost[spikes == 0].any()
    assert float(lost[spikes == 1].mean()) == pytest.approx(0.7, abs=0.02)
    assert more[spikes == 1].all()
    assert float(more[spikes == 0].mean()) == pytest.approx(0.3, abs=0.02)
    grey = torch.full((20_000,), 0.4)
    salted = noise.salt_and_pepper(grey, 0.2, draws)
    shares = [float((salted == value).double().mean()) for value in (0.0, 1.0)]
    assert shares == pytest.approx([0.1, 0.1], abs=0.01)
    blurred = noise.gaussian(grey, 0.1, draws)
    assert float(blurred.std()) == pytest.approx(0.1, abs=0.01)
    assert 0 <= blurred.min() < blurred.max() <= 1


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    (folder / "tiny.yaml").write_text(SETTINGS)
    assert study.main([str(folder / "tiny.yaml"), "-o", str(folder / "out")]) == 0
    return folder


def test_a_study_writes_records_results_figures_and_tables(tiny):
    out = tiny / "out"
    settings = plan.read_settings(tiny / "tiny.yaml")
    for part in plan.PARTS:
        names = [task.name for task in plan.tasks(settings, part)]
        assert [record["name"] for record in json.loads((out / f"{part}.json").read_text())] == names
        assert len(set(names)) == len(names)
        assert (out / f"{part}.svg").stat().st_size < 200_000
    text = (out / "tables.md").read_text()
    assert "digits: STL - SL" in text
    assert "one per channel" in text
    assert "the rule drawn from its levels" in text
    assert "integers, one threshold a layer" in text
    assert "of 24" in text
    assert (out / "trajectories.svg").is_file()


def test_what_is_recorded_is_not_done_again(tiny, monkeypatch):
    def refuse(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(study, "do", refuse)
    before = (tiny / "out" / "tables.md").read_text()
    assert study.main([str(tiny / "tiny.yaml"), "-o", str(tiny / "out")]) == 0
    assert (tiny / "out" / "tables.md").read_text() == before


def test_other_settings_make_a_record_void(tiny):
    other = plan.read_settings(tiny / "tiny.yaml").model_copy(update={"lr": 0.02})
    same = plan.read_settings(tiny / "tiny.yaml")
    assert work.recorded(plan.tasks(same, "modes")[0], tiny / "out") is not None
    assert work.recorded(plan.tasks(other, "modes")[0], tiny / "out") is None


def test_without_time_nothing_is_begun(tiny, tmp_path):
    assert study.main([str(tiny / "tiny.yaml"), "-o", str(tmp_path), "--time-budget", "-1"]) == 0
    assert not (tmp_path / "records").exists()


def test_two_processes_find_what_one_does(tiny, tmp_path):
    arguments = [str(tiny / "tiny.yaml"), "--part", "modes", "--jobs", "2", "-o", str(tmp_path)]
    assert study.main(arguments) == 0
    one, two = (json.loads((folder / "modes.json").read_text()) for folder in (tiny / "out", tmp_path))
    assert [record["test"] for record in one] == [record["test"] for record in two]


def test_modes_learn_what_they_say_and_noise_hurts(tiny):
    records = json.loads((tiny / "out" / "modes.json").read_text())
    moved = {
        record["labels"]["mode"]: record["test"]["thresholds"]["lif1"]["mean"] != 1.0
        for record in records
        if record["labels"]["mode"] != "ann"
    }
    assert moved == {"stl": True, "sl": False, "tl": True}
    for record in json.loads((tiny / "out" / "noise.json").read_text()):
        if record["labels"]["mode"] != "tl":
            assert {kind for kind in noise.KINDS if record["noise"][kind]["0.5"] < record["clean"]} == set(noise.KINDS)


def test_published_tables_stand_between_the_markers(tiny, tmp_path):
    page = tmp_path / "study.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    records = {part: json.loads((tiny / "out" / f"{part}.json").read_text()) for part in plan.PARTS}
    study.publish(records, tables(records), tmp_path / "results", page)
    text = (tiny / "out" / "tables.md").read_text()
    assert page.read_text() == f"before\n{BEGIN}\n{text}{END}\nafter\n"
    assert (tmp_path / "results" / "depth.svg").is_file()


def test_the_first_images_are_cut_out(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 1, 28, 28), dtype=np.uint8)
    labels = np.arange(7) % 3
    monkeypatch.setitem(work.READERS, "mnist", lambda _: Raw(pixels, labels, pixels[:2], labels[:2], 255))
    folder = work.data_folder("mnist", 4, tmp_path, None)
    np.testing.assert_array_equal(read_idx(folder / "train-images-idx3-ubyte", shape=(4, 28, 28)), pixels[:4, 0])
    np.testing.assert_array_equal(read_idx(folder / "t10k-labels-idx1-ubyte", shape=(2,)), labels[:2])


def test_a_missing_dataset_is_one_sentence(tmp_path, capsys):
    (tmp_path / "other.yaml").write_text(SETTINGS.replace("digits", "mnist"))
    arguments = [str(tmp_path / "other.yaml"), "--data-dir", str(tmp_path), "-o", str(tmp_path / "out")]
    assert study.main(arguments) == 2
    assert "train-images-idx3-ubyte" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["full", "small"])
def test_the_committed_settings_are_read(name):
    settings = plan.read_settings(Path(study.HERE) / f"{name}.yaml")
    assert all(plan.tasks(settings, part) for part in plan.PARTS)
