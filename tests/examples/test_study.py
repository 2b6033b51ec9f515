"""examples/study: its statistics by hand, its noise, and a tiny study from settings to page."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from examples.study import __main__ as study
from examples.study import noise, plan, work
from examples.study.claims import answers
from examples.study.comparisons import Row, compare
from examples.study.publish import BEGIN, END
from examples.study.statistics import holm, mean, paired
from examples.study.tables import tables
from stl_deploy.data.idx import read_idx
from stl_deploy.data.sources import Raw

SETTINGS = """
{T: 2, encoder: direct, batch_size: 64, lr: 0.01, lr_decay: 0.9, tl_multiplier: 2.0, threshold: 1.0, hidden: 12,
 modes: {datasets: [digits], seeds: 2, epochs: 4, images: null, validation: 0.1},
 noise: {levels: [0.5]},
 thresholds: {datasets: [digits], seeds: 1, epochs: 1, images: null, validation: 0.1, initial: [0.5, 2.0]},
 granularity: {datasets: [digits], seeds: 1, epochs: 1, images: null, validation: 0.1, channels: [2, 3]},
 depth: {datasets: [digits], seeds: 1, epochs: 1, images: null, validation: 0.1, layers: [1, 2], counted: 5}}
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
