"""Convolution, average pool, perhaps a norm, then neurons: one strided convolution for Loihi."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.graph.program import Conv, Pool


class Pooled(nn.Module):
    def __init__(self, norm: bool) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv, self.pool = nn.Conv2d(1, 4, 3), nn.AvgPool2d(2)
        self.norm: nn.Module = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.fc = nn.Linear(64, 3)
        if norm:
            with torch.no_grad():
                self.norm.weight.normal_()  # type: ignore[operator, union-attr]
                self.norm.bias.normal_(0, 0.2)  # type: ignore[operator, union-attr]
                self.norm.running_mean.normal_(0, 0.2)  # type: ignore[operator, union-attr]

    def forward(self, x: Tensor) -> Tensor:
        v, w = torch.zeros(x.shape[1], 4, 4, 4), torch.zeros(x.shape[1], 3)
        out = []
        for step in x:
            v = 0.875 * v + self.norm(self.pool(self.conv(step)))
            s = (v > 0.25).float()
            v = v * (1 - s)
            w = 0.875 * w + self.fc(s.flatten(1))
            z = (w > 0.25).float()
            w = w * (1 - z)
            out.append(z)
        return torch.stack(out)


@pytest.mark.parametrize("norm", [False, True], ids=["bare", "norm"])
def test_it_is_composed_into_one_convolution_for_loihi(norm: bool, tmp_path: Path) -> None:
    x = torch.bernoulli(torch.full((8, 3, 1, 10, 10), 0.4), generator=torch.Generator().manual_seed(0))
    net = stl.capture(Pooled(norm), x)
    kinds = [type(node).__name__ for node in net.program.nodes]
    assert kinds[:4] == ["Input", "Conv", "Pool", "Neuron"]
    with pytest.raises(stl.UnsupportedError, match=r"compose the two into one strided convolution .*merge_pools=True"):
        net.export(tmp_path / "net.net")
    merged = net.fold(merge_pools=True, thresholds="weights")
    assert not any(merged.program.of(Pool))
    (composed,) = merged.program.of(Conv)
    assert (composed.weight.shape, composed.stride, composed.shape) == ((4, 1, 4, 4), (2, 2), (4, 4, 4))
    a, b = (one.simulate(net.sample).spikes for one in (net, merged))
    assert all(0 < spikes.mean() < 1 for spikes in a.values())
    assert sum(int((a[name] != b[name]).sum()) for name in a) <= 0.005 * sum(s.size for s in a.values())
    done = merged.export(tmp_path / "net.net")
    assert done["verified"]["runs"][0]["agreement"] > 0.9
    assert np.isfinite(merged.energy().totals["synops"])
