"""Fixtures of the energy tests."""

import pytest

from stl_deploy.energy.chips import lines
from tests.digits_run import digits_run

__all__ = ["any_size", "digits_run"]


@pytest.fixture
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Price microcontrollers for networks smaller than those whose instructions were counted."""
    monkeypatch.setattr(lines, "FEWEST_UPDATES", 0)
