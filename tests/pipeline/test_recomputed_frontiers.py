"""Both frontiers of a run, recomputed from its files by code that is not the product's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.frontiers import TOLERANCE, coverage, main, recompute
from stl_deploy.verbs.whole_way import RunResult


def test_both_frontiers_are_recomputed_from_raw_files(small_run: RunResult) -> None:
    folder = small_run.run_dir
    energy = json.loads((folder / "energy.json").read_text())
    assert recompute(folder, energy) <= TOLERANCE
    energy["frontier"]["ann"][2]["joules"] *= 1.001
    assert recompute(folder, energy) > TOLERANCE
    with pytest.raises(SystemExit) as stop:
        main([str(folder)])
    assert stop.value.code == 0


def test_a_file_without_frontiers_is_answered_with_the_command_that_makes_them(
    small_run: RunResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A ready-made run's energy.json has none: the answer was a KeyError."""
    energy = json.loads((small_run.run_dir / "energy.json").read_text())
    del energy["frontier"]
    (tmp_path / "energy.json").write_text(json.dumps(energy))
    with pytest.raises(SystemExit) as stop:
        main([str(small_run.run_dir), str(tmp_path / "energy.json")])
    assert stop.value.code == 2
    assert f"stl-deploy energy {small_run.run_dir} --frontier -o OUT" in capsys.readouterr().err


def test_the_simulated_interval_covers_what_it_says() -> None:
    least, mean = coverage(draws=2_000)
    assert least > 0.94  # of 2,000 draws, whose standard error is 0.5 points
    assert mean < 0.975
