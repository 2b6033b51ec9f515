"""Counts of the ready-made models stay as they were recorded."""

import json
from pathlib import Path

import pytest

from tests.energy.ready_made_counts import FILE, MODELS, counted

RECORDED = json.loads(FILE.read_text(encoding="ascii"))


@pytest.mark.push(1)
@pytest.mark.parametrize("model", MODELS)
def test_counts_of_a_ready_made_model_are_those_that_were_recorded(model: str, tmp_path: Path) -> None:
    assert counted(model, tmp_path / model) == RECORDED[model]
