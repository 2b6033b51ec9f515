"""A network before its training: check says what a target will not hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

SOFT = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        v, spikes = torch.zeros(x.shape[1], 4), []
        for step in x:
            v = 0.5 * v + self.fc(step)
            s = (v >= 1.0).float()
            v = RESET
            spikes.append(s)
        return torch.stack(spikes)
"""


def test_a_preset_is_checked_before_it_is_trained(cli: Any) -> None:
    found = cli("check", "digits", "--target", "netx", "--json")
    assert found.code == 0
    assert found.json["targets"] == {"netx": "approximate"}
    assert "digits: untrained, with its initial weights" in found.err
    assert cli("check", "digits", "--input", "x.npz").code == 2


@pytest.mark.parametrize(
    ("reset", "code", "slugs"), [("v - s", 1, {"soft-reset"}), ("v * (1.0 - s)", 0, set())], ids=["soft", "hard"]
)
def test_a_module_is_checked_before_it_is_trained(
    reset: str, code: int, slugs: set[str], cli: Any, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(SOFT.replace("RESET", reset))
    np.savez(tmp_path / "x.npz", x=(np.random.default_rng(0).random((5, 3, 6)) < 0.4).astype(np.float32))
    found = cli("check", f"{tmp_path / 'own.py'}:Net", "--target", "netx", "--input", tmp_path / "x.npz", "--json")
    assert found.code == code
    assert {f["slug"] for f in found.json["findings"] if f["severity"] == "error"} == slugs
    assert cli("check", f"{tmp_path / 'own.py'}:Net").code == 2
