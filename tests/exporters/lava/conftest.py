from __future__ import annotations

import os
from pathlib import Path

import pytest

from stl_deploy.exporters.lava import environment


@pytest.fixture(scope="session")
def lava_python() -> Path:
    """The side environment's Python; without it the test is skipped, or fails where Lava is required."""
    now = environment.status()
    if now.ready:
        return now.python
    if os.environ.get("STL_DEPLOY_REQUIRE_LAVA") == "1":
        pytest.fail(f"STL_DEPLOY_REQUIRE_LAVA is 1, but {now.reason}")
    pytest.skip(f"{now.reason} (recorded golden vectors stand in)")
