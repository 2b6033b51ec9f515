"""No name of a layer meets one that the product gives to nodes of its own."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.graph import program as ir
from stl_deploy.graph.run import Stream, run


class Named(nn.Module):
    """Spikes of a linear layer, seen as an image by a convolution of some name, which becomes a matrix."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.first, self.lif = nn.Linear(6, 32), stl.LIF((32,), threshold=0.3)
        self.add_module(name, nn.Conv2d(2, 3, 3, padding=1))
        self.last = stl.LIF((3, 4, 4), threshold=0.1)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.lif(self.first(x))
        image = self.get_submodule(self.name)(spikes.reshape(-1, 2, 4, 4))
        out: Tensor = self.last(image.reshape(*x.shape[:2], 3, 4, 4))
        return out


@pytest.mark.parametrize("name", ["x", "y", "input", "output", "layer", "arriving"])
def test_a_convolution_of_any_name_is_captured(name: str) -> None:
    torch.manual_seed(0)
    model, x = Named(name), (torch.rand(6, 4, 6) < 0.5).float()
    net = stl.capture(model, x, progress=False)
    fresh = (torch.rand(7, 3, 6) < 0.5).float()
    with torch.no_grad():
        wanted = model(fresh).numpy()
    assert wanted.any()
    np.testing.assert_array_equal(net.simulate(fresh.numpy()).y.reshape(wanted.shape), wanted)


def test_a_stream_holds_neither_what_it_is_given_nor_what_it_returns() -> None:
    nodes = (
        ir.Input(name="x", shape=(1,), operands=()),
        ir.Delay(name="late", shape=(1,), operands=(ir.Operand("x"),), steps=np.asarray(1)),
        ir.Output(name="y", shape=(1,), operands=(ir.Operand("late"), ir.Operand("x", 2))),
    )
    program, buffer = ir.Program(nodes, 1.0), np.zeros((1, 1), np.float32)
    x = np.arange(1, 6, dtype=np.float32).reshape(5, 1, 1)
    session, made = Stream(program), []
    for frame in x:
        buffer[:] = frame
        y = session.step(buffer)
        made.append(y.copy())
        y[:] = 99
    np.testing.assert_array_equal(np.stack(made), run(program, x).y)
