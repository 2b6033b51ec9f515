"""A small hunt, nightly: 100 mutants a format, a few kills, one verb in all bad surroundings; and the hunt itself."""

from __future__ import annotations

import os
from importlib import import_module
from itertools import islice
from pathlib import Path

import pytest

from tests.hunt.captures import Model, hunt_captures, judge
from tests.hunt.formats import FORMATS
from tests.hunt.kills import hunt_kills
from tests.hunt.mutant import write_mutant
from tests.hunt.mutants import hunt
from tests.hunt.surroundings import hunt_surroundings

SEED = int(os.environ.get("STL_DEPLOY_HUNT_SEED", "0"))


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", FORMATS)
def test_mutants_are_read_or_refused(name: str, tmp_path: Path) -> None:
    pytest.importorskip(FORMATS[name].needs)
    count = 100
    found = hunt(name, count, SEED, tmp_path)
    assert found.failures == []
    assert found.read + found.refused == count
    assert found.refused > count / 10


def test_a_mutant_is_the_same_again(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    for number in range(8):
        one, two = (write_mutant(FORMATS["npz"], number, 3, tmp_path / folder) for folder in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_a_failure_is_found_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that raises, one that ends the process, one that is past its time: seen from another process."""
    for wrong, said in (
        ("1 / 0", "ZeroDivisionError"),
        ("import os; os._exit(7)", "ends the process (7)"),
        ("import os; os.kill(os.getpid(), 14)", "hangs: Current thread"),
    ):
        (tmp_path / "sitecustomize.py").write_text(
            "import stl_deploy.data.sources as idx\n"
            "real = idx._read\n"
            "def read(*arguments):\n"
            "    found = real(*arguments)\n"
            f"    {wrong}\n"
            "    return found\n"
            "idx._read = read\n"
        )
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        found = hunt("idx", 6, SEED, tmp_path / "kept")
        assert found.read == 0
        assert found.failures
        assert all(said in one for one in found.failures), found.failures
        assert found.refused + len(found.failures) == 6
        assert list((tmp_path / "kept").glob("idx-0-*.gz"))


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("verb", ["export", "train"])
def test_killed_verbs_resume_to_the_same_bits(verb: str) -> None:
    _, _, wrong = hunt_kills(verb, 2, SEED)
    assert wrong == []


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_bad_surroundings_end_in_a_sentence() -> None:
    _, wrong = hunt_surroundings(("show",))
    assert wrong == []


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_random_models_are_captured_as_they_are_or_refused() -> None:
    ended, failures, _ = hunt_captures(16, SEED)
    assert failures == []
    assert ended["captured"] + ended["refused"] == 16
    assert ended["captured"] >= 2


def test_a_model_that_is_captured_wrongly_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("stl_deploy.tracing.layers.builder"), "require_exact_types", lambda steps: None)
    monkeypatch.setattr(import_module("stl_deploy.tracing.capture"), "within", lambda x, axis: x)
    monkeypatch.setattr(import_module("stl_deploy.tracing.capture"), "beyond", lambda x, axis: x)
    monkeypatch.setattr("tests.hunt.captures.HAZARDS", {"int": lambda x: (x * 4).int().float() / 4})
    drawn = ((seed, str(Model(seed).drawn.words)) for seed in range(1000))
    plain = (s for s, words in drawn if "hazard" in words and "quarters" in words and "join: s" in words)
    assert "wrong" in [judge(seed)[0] for seed in islice(plain, 4)]
