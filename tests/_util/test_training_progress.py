"""Progress within an epoch: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import io

import pytest

from stl_deploy._util import training_progress
from stl_deploy._util.console import Console
from stl_deploy._util.training_progress import Lines, Pace, duration, epoch_line

RECORD = {
    "epoch": 29,
    "epochs": 30,
    "loss": 0.0123,
    "train_accuracy": 0.9889,
    "validation_accuracy": 0.9888,
    "rates": {"lif1": 0.1, "lif2": 0.25, "lif3": 0.11},
    "thresholds": {"lif1": {"min": 0.9, "max": 1.1}},
    "seconds": 1.26,
}


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(training_progress.time, "perf_counter", lambda: now[0])
    return now


def test_the_pace_and_what_is_left(clock: list[float]) -> None:
    pace = Pace()
    assert pace(1, 2, 10, 100) == (0, 0)
    clock[0] += 2
    assert pace(1, 2, 30, 100) == (10, 17)
    clock[0] += 7
    assert pace(1, 2, 100, 100) == (10, 10)


def test_a_line_only_where_an_epoch_takes_long(clock: list[float]) -> None:
    said: list[str] = []
    lines = Lines(said.append)
    clock[0] += 30  # compiling
    lines(1, 2, 100, 1000, 0.5)
    clock[0] += 5
    lines(1, 2, 200, 1000, 0.4)
    assert said == []
    clock[0] += 5
    lines(1, 2, 300, 1000, 0.25)
    assert said == ["epoch 1/2: 300 of 1,000 samples, 20 samples/s, loss 0.2500, 1:25 min left"]
    clock[0] += 50
    lines(1, 2, 1000, 1000, 0.2)
    assert len(said) == 1


def test_a_bar_on_a_terminal_and_silence_when_quiet() -> None:
    stream = _Terminal()
    with Console(stream=stream).training() as batch:
        batch(1, 3, 50, 100, 0.5)
        batch(1, 3, 100, 100, 0.4)
    assert "epoch 1/3" in stream.getvalue()
    assert "samples/s" in stream.getvalue()
    quiet = _Terminal()
    with Console(quiet=True, stream=quiet).training() as batch:
        batch(1, 3, 50, 100, 0.5)
    assert quiet.getvalue() == ""


@pytest.mark.parametrize(("seconds", "told"), [(42.4, "42 s"), (185, "3:05 min"), (7800, "2:10 h")])
def test_durations(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_an_epoch_fits_its_terminal() -> None:
    full = epoch_line(RECORD)
    assert "spike rates 0.100 0.250 0.110" in full
    assert "train  98.89%" in full
    narrow = epoch_line(RECORD, 80)
    assert len(narrow) <= 80
    assert "rates 0.10..0.25" in narrow
    assert "train" not in narrow
    assert epoch_line(RECORD, 200) == full


def test_details_are_for_verbose_alone() -> None:
    for verbose, quiet, told in ((False, False, ""), (True, False, "fine print\n"), (True, True, "")):
        stream = io.StringIO()
        Console(verbose=verbose, quiet=quiet, stream=stream).details.say("fine print")
        assert stream.getvalue() == told
