"""Every verb's exit code, JSON, text and files, as recorded by `tests.pipeline.golden_verbs`."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from stl_deploy.cli.app import app
from tests.pipeline.golden_verbs import CALLS, FILE, outcomes

GOLDEN = json.loads(FILE.read_text())


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return outcomes(Path(tmp_path_factory.mktemp("golden")))


@pytest.mark.parametrize("call", [f"{number}: {call}" for number, call in enumerate(CALLS)])
def test_a_verb_leaves_what_was_recorded(call: str, found: dict[str, Any]) -> None:
    assert found[call] == GOLDEN[call]


def test_every_verb_has_a_recorded_call() -> None:
    verbs = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    of_the_machine = {"datasets", "doctor", "lava", "models", "targets", "witness"}
    assert verbs - {call.split()[0] for call in CALLS} == of_the_machine
