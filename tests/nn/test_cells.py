"""Cells as torch modules: the reference's bits forward, the original module's gradients backward."""

import numpy as np
import pytest
import torch
from torch import nn

import stl_deploy as stl
from stl_deploy.graph import program as ir
from stl_deploy.graph.run import run
from stl_deploy.nn.program_module import ProgramModule
from tests.graph.cells import cell, counting, drive, feed_forward, recurrent


@pytest.mark.parametrize("net", [feed_forward(), recurrent()], ids=["feed-forward", "recurrent"])
def test_the_module_has_the_reference_spikes(net):
    x = drive()
    module = ProgramModule(net)
    y, kept = module.record(torch.from_numpy(x))
    names = [node.name for node in net.compared]
    expected = run(net, x, record=names)
    assert list(kept) == names
    for name in names:
        np.testing.assert_array_equal(kept[name].detach().numpy(), expected.recorded[name])
    np.testing.assert_allclose(y.detach().numpy(), expected.y, rtol=1e-5, atol=1e-6)


def test_integers_beyond_floats_are_exact():
    net, x = counting(), drive()
    made = ProgramModule(net)(torch.from_numpy(x))
    assert made.dtype == torch.float32
    np.testing.assert_array_equal(made.detach().numpy(), run(net, x).y)


def test_numbers_go_out_and_come_back():
    net = feed_forward()
    module = ProgramModule(net)
    assert {name for name, _ in module.named_parameters()} == {"layers.w_in.weight", "layers.cell.constant_2"}
    with torch.no_grad():
        module.layers["cell"].constant_2.mul_(0.5)
    made = {constant.name: constant.value for constant in module.program().by_name["cell"].constants}
    np.testing.assert_array_equal(made["rho"], np.array([0.4, 0.35, 0.475], np.float32))
    assert made["beta"] == np.float32(0.9)


class Fire(torch.autograd.Function):
    """1 where v > 0, with the arctan surrogate."""

    @staticmethod
    def forward(ctx, v):
        ctx.save_for_backward(v)
        return (v > 0).float()

    @staticmethod
    def backward(ctx, grad):
        (v,) = ctx.saved_tensors
        return grad / (1 + (torch.pi * v) ** 2)


class Adaptive(nn.Module):
    """adLIF with parameters by neuron; recurrent if asked; quantised drive if asked."""

    def __init__(self, recurrent=False, rounded=False):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.out = nn.Linear(6, 10), nn.Linear(10, 3)
        self.back = nn.Linear(10, 10, bias=False) if recurrent else None
        self.alpha, self.beta = nn.Parameter(torch.rand(10) * 0.3 + 0.6), nn.Parameter(torch.rand(10) * 0.2 + 0.7)
        self.a, self.b = nn.Parameter(torch.rand(10) * 0.5), nn.Parameter(torch.rand(10))
        self.rounded = rounded

    def forward(self, x):
        u = w = s = torch.zeros(x.shape[1], 10)
        out = []
        for x_t in x:
            i = self.fc(x_t)
            if self.back is not None:
                i = i + self.back(s)
            if self.rounded:
                q = i * 8
                i = (q + (q.round() - q).detach()) / 8
            w = self.beta * w + self.a * u + self.b * s
            u = self.alpha * (u - s) + (1 - self.alpha) * (i - w)
            s = Fire.apply(u - 0.1)
            out.append(self.out(s))
        return torch.stack(out)


@pytest.mark.parametrize("recurrent", [False, True])
def test_gradients_are_the_original_modules(recurrent):
    model = Adaptive(recurrent)
    x = (torch.rand(12, 4, 6, generator=torch.Generator().manual_seed(1)) < 0.4).float()
    net = stl.capture(model, x, progress=False)
    module = net.module()
    model(x).square().sum().backward()
    module(x).square().sum().backward()
    twins = list(module.parameters())

    def grad(values):
        (twin,) = [each for each in twins if each.shape == values.shape and torch.equal(each, values)]
        return twin.grad

    def close(found, expected):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)

    for name, parameter in model.named_parameters():
        if name != "alpha":
            close(grad(parameter), parameter.grad)
    close(grad(model.alpha) - grad(1 - model.alpha), model.alpha.grad)  # 1 - alpha is an array of its own


def test_a_rounding_passes_its_gradient_straight_through():
    model = Adaptive(rounded=True)
    x = (torch.rand(12, 4, 6, generator=torch.Generator().manual_seed(1)) < 0.4).float()
    module = stl.capture(model, x, progress=False).module()
    model(x).square().sum().backward()
    module(x).square().sum().backward()
    torch.testing.assert_close(module.layers["fc"].weight.grad, model.fc.weight.grad, rtol=1e-4, atol=1e-5)


def test_a_cast_to_bool_is_0_or_1() -> None:
    lines = ["b:bool = cast x", "y = cast b"]
    both = cell("c", [("x", ir.Operand("in"), (4,))], lines, outputs=["y"])
    nodes = (
        ir.Input(name="in", shape=(4,), operands=()),
        both,
        ir.Output(name="out", shape=(4,), operands=(ir.Operand("c"),)),
    )
    net, x = ir.Program(nodes, 1.0), np.float32([[[2, -1, 0, 1]]])
    np.testing.assert_array_equal(run(net, x).y, [[[1, 1, 0, 1]]])
    np.testing.assert_array_equal(ProgramModule(net)(torch.from_numpy(x)).numpy(force=True), run(net, x).y)


def test_a_rounded_infinity_is_infinity() -> None:
    """It was NaN here, so that a count that a cell limits to 3 was none at all."""
    lines = ["ratio = div x step", "whole = floor ratio", "y = min whole most"]
    constants = [("step", np.float32(1e-30)), ("most", np.float32(3))]
    limited = cell("c", [("x", ir.Operand("in"), (1,))], lines, constants=constants, outputs=["y"])
    ends = (
        ir.Input(name="in", shape=(1,), operands=()),
        ir.Output(name="out", shape=(1,), operands=(ir.Operand("c"),)),
    )
    net, x = ir.Program((ends[0], limited, ends[1]), 1.0), np.float32([[[1e10]]])
    assert run(net, x).y == 3
    assert ProgramModule(net)(torch.from_numpy(x)) == 3
