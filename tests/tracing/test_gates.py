"""torch's own recurrent cells, called for each step, are linear layers and Cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.graph.cell import Cell


class Loop(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell = getattr(nn, kind)(8, 12)
        self.out = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.shape[1], 12)
        state, made = (h, torch.zeros_like(h)), []
        for x_t in x:
            if isinstance(self.cell, nn.LSTMCell):
                state = self.cell(x_t, state)
                h = state[0]
            else:
                h = self.cell(x_t, h)
            made.append(self.out(h))
        return torch.stack(made)


@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell"])
def test_a_cell_of_torch_called_for_each_step(kind: str) -> None:
    model, x = Loop(kind), torch.rand(10, 3, 8, generator=torch.Generator().manual_seed(1))
    net = stl.capture(model, x, progress=False)
    assert any(net.program.of(Cell))
    assert net.proof is not None
    assert net.proof.replay_differing == 0
    assert any(each.measured for each in net.proof.layers)
    np.testing.assert_allclose(net.simulate(x.numpy()).y, model(x).detach().numpy(), rtol=1e-5, atol=1e-6)
