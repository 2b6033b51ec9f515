from typing import Any

import pytest

from stl_deploy.config.schema import RunConfig

TINY: dict[str, Any] = {
    "dataset": {"name": "digits", "T": 3, "validation_fraction": 0.1, "test_fraction": 0.7},
    "network": [
        {"kind": "conv", "channels": 4, "padding": 1},
        {"kind": "norm"},
        {"kind": "lif"},
        {"kind": "pool"},
        {"kind": "dropout", "p": 0.2},
        {"kind": "flatten"},
        {"kind": "linear", "features": 20},
        {"kind": "lif"},
        {"kind": "vote", "population": 2},
    ],
    "train": {"epochs": 3, "batch_size": 32, "lr": 0.01, "device": "cpu", "matmul": "highest"},
}


@pytest.fixture
def tiny() -> RunConfig:
    """A configuration that trains in well under a second."""
    return RunConfig.model_validate(TINY)
