"""Capture without Cells, for tests of why a form is no neuron."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import pytest

from stl_deploy.tracing.layers import CellBuilder
from stl_deploy.tracing.unrolling.steps import Ref, Signal, SignalError


@pytest.fixture
def neurons_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no form be held by a Cell, so that capture says why it is no layer; "a Cell" of what is no neuron."""

    def build(_: CellBuilder, group: Sequence[Signal]) -> NoReturn:
        raise SignalError(group[0], "a Cell")

    def started(_: CellBuilder, ref: Ref) -> NoReturn:
        raise SignalError(ref.signal, "a Cell")

    monkeypatch.setattr(CellBuilder, "_cell", build)
    monkeypatch.setattr(CellBuilder, "started", started)
