"""Capture without Cells, for tests of why a form is no neuron."""

from __future__ import annotations

from typing import NoReturn

import pytest

from stl_deploy.tracing.layers import CellBuilder
from stl_deploy.tracing.lowering import NoFormError


@pytest.fixture
def neurons_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no form be held by a Cell, so that capture says why it is no neuron."""

    def build(_: CellBuilder, __: object) -> NoReturn:
        raise NoFormError

    monkeypatch.setattr(CellBuilder, "_cell", build)
