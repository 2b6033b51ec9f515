"""Tables for papers: the numbers of energy.json, in LaTeX that no name breaks, and BibTeX of their sources."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stl_deploy.energy.chips.model import chip_models
from stl_deploy.energy.models.ratios import number
from stl_deploy.energy.prices.load import list_prices
from stl_deploy.errors import InputError
from stl_deploy.report.paper_tables import _CITED, ENTRIES, cited, papers
from stl_deploy.verbs.whole_way import RunResult


def test_several_runs_side_by_side(small_run: RunResult, tmp_path: Path, cli: Callable[..., Any]) -> None:
    other = tmp_path / "50%_of_it&more"
    shutil.copytree(small_run.run_dir, other)
    out = tmp_path / "paper"
    done = cli("report", small_run.run_dir, other, "--latex", "--bib", "--csv", "-o", out, "--json")
    assert done.code == 0, done.err
    energy = json.loads((small_run.run_dir / "energy.json").read_text())
    rows = list(csv.DictReader((out / "report.csv").read_text().splitlines()))
    assert [row["run"] for row in rows] == [small_run.run_dir.name, other.name]
    assert float(rows[0]["streaming"]) == energy["quoted"]["snn_over_ann"]
    assert float(rows[0]["layer_by_layer"]) == energy["quoted_layer_by_layer"]["snn_over_ann"]
    equal = energy["frontier"]["at_equal_accuracy"]
    for flow in ("streaming", "layer_by_layer"):
        assert rows[0][f"equal_{flow}_ann"] == equal[flow]["ann"]
        assert float(rows[0][f"equal_{flow}_ratio"]) == equal[flow]["ratio"]
    tex = (out / "report.tex").read_text()
    both = (f"{number(equal[flow]['ratio'])}$\\times$" for flow in ("streaming", "layer_by_layer"))
    assert f" & {' / '.join(both)} & " in tex
    assert r"50\%\_of\_it\&more" in tex
    assert f"{number(energy['quoted']['snn_over_ann'])}$\\times$" in tex
    assert tex.count("\\\\\n") == 1 + len(rows)
    keys = re.search(r"cite\{([^}]*)\}", tex)
    assert keys is not None
    bib = (out / "report.bib").read_text()
    for key in keys[1].split(","):
        assert re.search(rf"^@\w+\{{{key},$", bib, re.M), key
    assert "modelled by stl-deploy" in done.err


def test_a_table_is_of_finished_runs(small_run: RunResult, tmp_path: Path, cli: Callable[..., Any]) -> None:
    assert cli("report", small_run.run_dir, small_run.run_dir).code == 2
    assert cli("report", small_run.run_dir, small_run.run_dir, "--csv").code == 2
    with pytest.raises(InputError, match=r"that stl_deploy\.verbs\.run has finished; found no energy\.json"):
        papers([tmp_path], output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_prices_that_are_cited_exist() -> None:
    names = {entry.name for entry in list_prices()} | {chip.name for chip in chip_models()}
    assert set(_CITED) <= names
    assert set(cited(names)) == set(ENTRIES)
    for key, entry in ENTRIES.items():
        assert re.match(rf"@\w+\{{{key},", entry)
        assert entry.count("{") == entry.count("}")
