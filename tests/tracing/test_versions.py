"""Frameworks in versions that captures are not held with are said, and captured all the same."""

from importlib.metadata import PackageNotFoundError

import pytest
import torch
from torch import nn

import stl_deploy as stl
from stl_deploy.tracing.recording import remedies
from tests.tracing.stand_ins import Leaky


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lif = Leaky(0.9, 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mem, out = torch.zeros_like(x[0]), []
        for step in x:
            spk, mem = self.lif(step, mem)
            out.append(spk)
        return torch.stack(out)


def installed(monkeypatch: pytest.MonkeyPatch, number: str | None) -> None:
    """Make ``Leaky`` a module of snnTorch in this version."""

    def version(name: str) -> str:
        assert name == "snntorch"
        if number is None:
            raise PackageNotFoundError(name)
        return number

    monkeypatch.setattr(Leaky, "__module__", "snntorch._neurons.leaky")
    monkeypatch.setattr(remedies, "version", version)


@pytest.mark.parametrize("number", remedies.PROVED["snntorch"])
def test_proved_versions_are_not_mentioned(monkeypatch: pytest.MonkeyPatch, number: str) -> None:
    installed(monkeypatch, number)
    assert remedies.version_warnings(Wrapped()) == ()


@pytest.mark.parametrize(("number", "said"), [("0.5.0", "0.5.0"), (None, "of no known version")])
def test_other_versions_are_warned_of(monkeypatch: pytest.MonkeyPatch, number: str | None, said: str) -> None:
    installed(monkeypatch, number)
    with pytest.warns(UserWarning, match=f"held with snntorch 0.8.0 and 1.0.0; found {said}"):
        net = stl.capture(Wrapped(), torch.rand(6, 3, 4))
    assert net.proof.replay_differing == 0
