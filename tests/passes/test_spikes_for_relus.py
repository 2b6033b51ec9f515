"""ReLUs become spiking neurons: equal to the quantised ReLU in every bit where floats are exact."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.graph import program as ir
from stl_deploy.graph.run import run
from stl_deploy.passes.spikes_for_relus import heights_in_weights, relus, relus_behind_pools, spikes_for_relus, tied


class Residual(nn.Module):
    """A block with a skip, then channels side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.beside = (
            nn.Conv2d(2, 4, 3, padding=1),
            nn.Conv2d(4, 4, 3, padding=1),
            nn.Conv2d(2, 3, 1),
        )
        self.last = nn.Linear(7 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        kept = torch.relu(self.first(x))
        summed = torch.relu(self.second(kept) + kept)
        joined = torch.cat([summed, torch.relu(self.beside(x))], 1)
        return self.last(nn.functional.avg_pool2d(joined, 2).flatten(1))


class Pooled(nn.Module):
    """A sum's maxima, which weights and a skip read."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.beside = (nn.Conv2d(2, 4, 3, padding=1) for _ in range(2))
        self.second, self.last = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        pooled = nn.functional.max_pool2d(torch.relu(self.first(x) + self.beside(x)), 2)
        return self.last(torch.relu(self.second(pooled) + pooled).flatten(1))


class Tokens(nn.Module):
    """Weights over the last axis of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.last = nn.Linear(4, 5), nn.Linear(40, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.embed(x.flatten(1, 2))).flatten(1))


def _plain() -> nn.Module:
    depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
    conv = nn.Conv2d(2, 4, 3, padding=1)
    return nn.Sequential(
        *(conv, nn.ReLU(), nn.MaxPool2d(2), depthwise, nn.ReLU(), nn.Flatten(), nn.Linear(16, 6), nn.ReLU()),
        nn.Linear(6, 3),
    )


NETS = {"plain": _plain, "residual": Residual, "pooled": Pooled, "tokens": Tokens}


def on_grid(model: nn.Module, seed: int) -> nn.Module:
    """Draw weights in eighths, so that float32 sums are exact."""
    drawn = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randint(-12, 13, parameter.shape, generator=drawn) / 8)
    return model.eval()


def quantised(model: nn.Module, heights: dict[int, Tensor], levels: int, x: Tensor) -> Tensor:
    """Run the ANN with each ReLU in order of its calls replaced by u·clamp(floor(x/u + 1/2), 0, D)."""
    calls = iter(range(99))

    def rounded(value: Tensor, *_: object, **__: object) -> Tensor:
        theta = heights[next(calls)]
        unit = theta.reshape(-1, *(1,) * (value.dim() - 2)) / levels if theta.numel() > 1 else theta / levels
        return unit * torch.floor(value / unit + 0.5).clamp(0, levels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "relu", rounded)
        patch.setattr(nn.functional, "relu", rounded)
        return model(x)


def converted(model: nn.Module, x: Tensor, levels: int, powers: list[float], form: str = "counts") -> ir.Program:
    program = relus_behind_pools(stl.capture(model, x, time="none", verify=False).program)
    thresholds = {}
    for relu, power in zip(relus(program), powers, strict=True):
        thresholds[relu.name] = np.full(relu.shape[-1] if len(relu.shape) == 2 else relu.shape[0], power, np.float32)
    return spikes_for_relus(program, thresholds, levels, form)


@pytest.mark.parametrize("levels", [1, 4, 16])
@pytest.mark.parametrize("net", NETS)
def test_counts_are_the_quantised_relus_bit_for_bit(net: str, levels: int) -> None:
    x = torch.randint(-8, 9, (6, 2, 4, 4), generator=torch.Generator().manual_seed(1)) / 4
    model = on_grid(NETS[net](), 7)
    powers = [8.0, 8.0, 4.0][: len(relus(stl.capture(model, x, time="none", verify=False).program))]
    program = converted(model, x, levels, powers)
    wanted = quantised(model, {k: torch.tensor(power) for k, power in enumerate(powers)}, levels, x)
    for each in (program, heights_in_weights(program)):
        assert np.array_equal(run(each, x[None].numpy()).y[0], wanted.detach().numpy())


def test_a_height_lost_on_a_skip_would_show() -> None:
    x = torch.randint(-8, 9, (6, 2, 4, 4), generator=torch.Generator().manual_seed(1)) / 4
    model = on_grid(Residual(), 7)
    program = converted(model, x, 4, [8.0, 8.0, 4.0])
    wanted = quantised(model, {0: torch.tensor(8.0), 1: torch.tensor(8.0), 2: torch.tensor(4.0)}, 4, x).detach().numpy()
    lost = tuple(
        ir.Scale(name=node.name, shape=node.shape, operands=node.operands, scale=np.ones_like(node.scale))
        if isinstance(node, ir.Scale)
        else node
        for node in program.nodes
    )
    assert not np.array_equal(run(ir.Program(lost, program.dt), x[None].numpy()).y[0], wanted)


def test_a_skip_and_what_it_reaches_share_thresholds_and_spikes_skip_unscaled() -> None:
    x = torch.rand(2, 2, 4, 4)
    program = stl.capture(on_grid(Residual(), 3), x, time="none", verify=False).program
    groups = tied(program)
    assert [len(names) for names in groups] == [2, 1]
    spiking = heights_in_weights(converted(on_grid(Residual(), 3), x, 4, [8.0, 8.0, 8.0]))
    behind = spiking.by_name[groups[0][1]]
    assert groups[0][0] in [operand.node for operand in behind.operands]
    assert np.all(behind.threshold == 1)
    unlike = heights_in_weights(converted(on_grid(Residual(), 3), x, 4, [8.0, 4.0, 8.0]))
    assert groups[0][0] not in [operand.node for operand in unlike.by_name[groups[0][1]].operands]


def test_maxima_skip_unscaled() -> None:
    model, x = on_grid(Pooled(), 3), torch.rand(2, 2, 4, 4)
    assert [len(names) for names in tied(stl.capture(model, x, time="none", verify=False).program)] == [2]
    program = heights_in_weights(converted(model, x, 4, [8.0, 8.0]))
    pool, last = next(iter(program.of(ir.MaxPool))).name, [*program.of(ir.Neuron)][-1]
    assert pool in [operand.node for operand in last.operands]
    assert np.all(last.threshold == 1)
    assert not list(program.of(ir.Scale))


def test_a_rate_of_many_steps_is_the_relu() -> None:
    x = torch.randint(0, 9, (6, 2, 4, 4), generator=torch.Generator().manual_seed(2)) / 8
    model = on_grid(Residual(), 5)
    program = heights_in_weights(converted(model, x, 256, [16.0, 16.0, 16.0], "rates"))
    y = run(program, x[None].expand(256, *x.shape).numpy()).y.mean(0)
    with torch.no_grad():
        wanted = model(x).numpy()
    assert np.abs(y - wanted).max() < 0.03 * np.abs(wanted).max()
