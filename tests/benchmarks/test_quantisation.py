"""The table of threshold forms: one command, kept row by row, and what Lava says stands in it."""

import json

import pytest
import torch

from benchmarks import quantisation
from benchmarks.agreement import Agreement
from benchmarks.quantisation_report import HEADER
from stl_deploy.exporters.lava.environment import LavaStatus


@pytest.fixture(scope="module")
def first(digits_run, tmp_path_factory):
    """The command's output folder after a run with a stand-in for Lava, and what Lava was asked."""
    out, asked = tmp_path_factory.mktemp("docs"), []

    def lava(model, path, x, labels, *, deadline, progress):
        asked.append((path.name, x.shape[1], model.thresholds))
        progress(1, 2)
        return Agreement(x.shape[1], x.shape[0], 1000, 3 if path.name == "per-layer.net" else 0, 0.5, 7.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantisation, "against_lava", lava)
        ready = LavaStatus(True, out, out, "0.6.0", None)
        patch.setattr(quantisation.environment, "status", lambda: ready)
        assert call(digits_run, out) == 0
    return out, asked


def call(run, out, *more):
    return quantisation.main([str(run), "-o", str(out), "--images", "60", "--epochs", "1", "--lava-images", "5", *more])


def test_rows_from_float_to_trained_with_lavas_word(first):
    out, asked = first
    (table,) = json.loads((out / "quantisation.json").read_text())["tables"]
    rows = table["rows"]
    assert [(row["stage"], row["form"]) for row in rows] == [
        ("float", "as trained"),
        ("graph", "as folded"),
        ("post-training", "folded"),
        ("post-training", "per-neuron"),
        ("post-training", "per-layer"),
        ("quantisation-aware", "folded"),
    ]
    assert all(0 <= row["accuracy"] <= 1 for row in rows)
    assert (table["test_images"], table["epochs"]) == (60, 1)
    assert [name for name, *_ in asked] == ["folded.net", "per-neuron.net", "per-layer.net", "net.net"]
    assert {count for _, count, _ in asked} == {5}
    assert rows[4]["lava"]["differing"] == 3
    text = (out / "quantisation.md").read_text()
    assert f"| {HEADER[0]} |" in text
    assert "3 of 1,000 (5 images)" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_a_device_that_is_not_there_is_told_at_once(tmp_path, capsys):
    assert call(tmp_path / "no run", tmp_path, "--device", "cuda") == 2
    assert capsys.readouterr().err == "error: --device: expected cpu; found 'cuda' and 0 CUDA devices\n"


def test_the_same_command_again_does_nothing_anew(first, digits_run, tmp_path, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("done before")

    ready = LavaStatus(True, tmp_path, tmp_path, "0.6.0", None)
    monkeypatch.setattr(quantisation.environment, "status", lambda: ready)
    for name in ("against_lava", "quantise", "before_training", "quantise_forms"):
        monkeypatch.setattr(quantisation, name, never)
    assert call(digits_run, tmp_path) == 0
    assert (tmp_path / "quantisation.md").read_text() == (first[0] / "quantisation.md").read_text()


def test_other_options_are_computed_anew(first, digits_run, tmp_path, monkeypatch):
    class Asked(Exception):
        pass

    def asked(*args, **kwargs):
        raise Asked

    monkeypatch.setattr(quantisation, "quantise", asked)
    with pytest.raises(Asked):
        call(digits_run, tmp_path, "--epochs", "2")
    monkeypatch.setattr(quantisation, "before_training", asked)
    with pytest.raises(Asked):
        call(digits_run, tmp_path, "--images", "61")


def test_a_folder_without_a_network_is_one_sentence(tmp_path, capsys):
    assert quantisation.main([str(tmp_path / "none")]) == 2
    assert "none: no trained network; make one with: stl-deploy train" in capsys.readouterr().err
