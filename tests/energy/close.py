"""Nearly equal, for joules: pytest's own default forgives 1e-12, which is a picojoule."""

from __future__ import annotations

from typing import Any

import pytest


def approx(value: Any, rel: float = 1e-9, abs: float = 0.0) -> Any:
    """Equal to nine digits; no absolute slack unless the test names one."""
    return pytest.approx(value, rel=rel, abs=abs)
