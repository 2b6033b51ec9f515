"""Energy counters of a made-up machine."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from stl_deploy.energy.prices import machine
from stl_deploy.energy.prices.machine import measure_machine
from tests.energy.close import approx


def domain(root: Path, number: str, name: str, value: int, most: int = 9_999_999) -> Path:
    folder = root / f"intel-rapl:{number}"
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text(f"{most}\n")
    (folder / "energy_uj").write_text(f"{value}\n")
    return folder / "energy_uj"


@pytest.fixture(autouse=True)
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LEAST_SECONDS", 0.0)


def test_packages_are_added_up_and_their_parts_left_out(tmp_path: Path) -> None:
    first, second = domain(tmp_path, "0", "package-0", 100), domain(tmp_path, "1", "package-1", 5)
    core = domain(tmp_path, "0:0", "core", 1)

    def work() -> None:
        first.write_text("3000100\n")
        second.write_text("1000005\n")
        core.write_text("999\n")

    found = measure_machine(work, 8, root=tmp_path)
    assert found.joules_per_sample == approx(4 / 8)
    assert found.as_dict()["label"] == "measured"
    assert found.domains == ("package-0", "package-1")


def test_a_counter_that_wraps_round(tmp_path: Path) -> None:
    counter = domain(tmp_path, "0", "package-0", 9_000_000)
    found = measure_machine(lambda: counter.write_text("1000000\n"), 1, root=tmp_path)
    assert found.joules_per_sample == approx(2.0)


def test_short_work_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call of 0.3 s is made again until 1 s has gone by: four times."""
    now = [100.0]
    monkeypatch.setattr(machine, "LEAST_SECONDS", 1.0)
    monkeypatch.setattr(machine, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    counter = domain(tmp_path, "0", "package-0", 0)

    def work() -> None:
        now[0] += 0.3
        counter.write_text(f"{int(counter.read_text()) + 1}\n")

    found = measure_machine(work, 10, root=tmp_path)
    assert found.samples == 40
    assert found.seconds == approx(1.2)
    assert found.joules_per_sample == approx(1e-7)


@pytest.mark.parametrize("case", ["no counters", "unreadable", "not a number", "did not move"])
def test_what_cannot_be_measured_is_never_0(case: str, tmp_path: Path) -> None:
    if case != "no counters":
        counter = domain(tmp_path, "0", "package-0", 7)
    if case == "unreadable":
        counter.unlink()
    if case == "not a number":
        counter.write_text("?")
    found = measure_machine(lambda: None, 4, root=tmp_path)
    assert found.joules_per_sample is None
    assert found.as_dict()["label"] == "not measured"
    assert found.reason
