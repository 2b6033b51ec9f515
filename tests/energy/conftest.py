"""Fixtures of the energy tests."""

import pytest

from stl_deploy.energy.chips import lines


@pytest.fixture
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Price microcontrollers for networks smaller than those whose instructions were counted."""
    monkeypatch.setattr(lines, "FEWEST_UPDATES", 0)
