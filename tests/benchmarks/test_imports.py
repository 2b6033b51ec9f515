"""On a push: every benchmark can be imported; what they measure and write is tested nightly."""

from __future__ import annotations

from importlib import import_module
from pkgutil import walk_packages

import pytest

import benchmarks


@pytest.mark.push(1)
def test_every_benchmark_can_be_imported() -> None:
    """But for those that run in the environment of another framework."""
    names = [module.name for module in walk_packages(benchmarks.__path__, "benchmarks.")]
    assert len(names) > 40
    for name in names:
        if not name.startswith("benchmarks.peers."):
            import_module(name)
