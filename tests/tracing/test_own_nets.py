"""Nets as people write them: each is captured and held against the module on input that capture never saw."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import stl_deploy as stl
from stl_deploy.errors import CaptureError

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def reset_to_zero(current: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    v = 0.8 * v + current
    spikes = (v > 0.2).float()
    return spikes, v * (1 - spikes)


class Neurons(nn.Module):
    """Neurons along the first axis, each step by ``step``."""

    def __init__(self, step: Step = reset_to_zero) -> None:
        super().__init__()
        self.step = step

    def forward(self, currents: Tensor) -> Tensor:
        v, found = torch.zeros_like(currents[0]), []
        for current in currents:
            spikes, v = self.step(current, v)
            found.append(spikes)
        return torch.stack(found)


class Plain(nn.Module):
    def __init__(self, step: Step = reset_to_zero) -> None:
        super().__init__()
        self.enter, self.neurons, self.leave = nn.Linear(10, 12), Neurons(step), nn.Linear(12, 5)

    def spikes(self, x: Tensor) -> Tensor:
        found: Tensor = self.neurons(self.enter(x))
        return found

    def forward(self, x: Tensor) -> Any:
        return self.leave(self.spikes(x))


class Dense(nn.Module):
    """Every layer reads all that was before it: concatenations of concatenations."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(n, 8) for n in (10, 18, 26))
        self.neurons = nn.ModuleList(Neurons() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for layer, neurons in zip(self.layers, self.neurons, strict=True):
            x = torch.cat([x, neurons(layer(x))], -1)
        return x


class DenseCurrents(nn.Module):
    """A linear layer reads a concatenation and is itself part of another."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(10, 6), nn.Linear(16, 8), nn.Linear(18, 4)
        self.neurons = nn.ModuleList(Neurons() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        first = self.neurons[0](self.a(x))
        current = self.b(torch.cat([x, first], -1))
        found: Tensor = self.neurons[1](self.c(torch.cat([current, x], -1)))
        return found


class Einsum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.neurons = nn.Parameter(torch.randn(12, 10) * 0.5), Neurons()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.neurons(torch.einsum("tbi,oi->tbo", x, self.weight))
        return found


class BFloat16(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter, self.neurons = nn.Linear(10, 12), Neurons()
        self.bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.neurons(self.enter(x.bfloat16())).float()
        return found


class Inference(Plain):
    @torch.inference_mode()
    def forward(self, x: Tensor) -> Any:
        return super().forward(x)


@dataclass
class Found:
    logits: Tensor
    spikes: Tensor


class GivesDataclass(Plain):
    def forward(self, x: Tensor) -> Any:
        spikes = self.spikes(x)
        return Found(self.leave(spikes), spikes)


class NormOverTime(nn.Module):
    """``[B, T, C, H, W]`` with one norm over ``[B, C, T, H, W]``, and a convolution over space alone in 3 axes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv3d(2, 4, (1, 3, 3), padding=(0, 1, 1)), nn.BatchNorm3d(4)
        nn.init.normal_(self.norm.running_mean, 0, 0.1)
        nn.init.uniform_(self.norm.running_var, 0.3, 2)
        self.neurons, self.leave = Neurons(), nn.Linear(4 * 36, 5)

    def forward(self, x: Tensor) -> Tensor:
        currents = self.norm(self.conv(x.transpose(1, 2))).permute(2, 0, 1, 3, 4)
        found: Tensor = self.leave(self.neurons(currents).flatten(2)).transpose(0, 1)
        return found


class CatLoop(nn.Module):
    """Recurrence by concatenation, from zeros at first, and spikes of three steps ago."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(22, 12), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        v = torch.zeros(x.shape[1], 12)
        past, found = [v, v, v], []
        for step in x:
            spikes, v = reset_to_zero(self.enter(torch.cat([step, past[-1]], 1)), v)
            past.append(spikes)
            found.append(self.leave(torch.cat([past[-4], spikes], 1)))
        return torch.stack(found)


class OnlyLate(nn.Module):
    """The output is that of two steps ago; before, it is what zeros give."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(10, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        v = torch.zeros(x.shape[1], 12)
        past, found = [v, v], []
        for step in x:
            spikes, v = reset_to_zero(self.enter(step), v)
            past.append(spikes)
            found.append(self.leave(past[-3]))
        return torch.stack(found)


class Shortcut(nn.Module):
    """A shortcut without weights: every second pixel, and zeros for the channels that it has not, in both spellings."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.neurons, self.leave = Neurons(), nn.Linear(8 * 9, 5)

    def forward(self, x: Tensor) -> Any:
        spikes = self.neurons(self.first(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
        small = spikes[..., ::2, ::2]
        wide = torch.cat([small, torch.zeros_like(small)], 2)
        padded = nn.functional.pad(small, (0, 0, 0, 0, 2, 2))
        current = self.second(spikes.flatten(0, 1)).unflatten(0, x.shape[:2])
        return self.leave(self.neurons(current + wide + padded).flatten(2))


class SpyTorch(nn.Module):
    """As in SpyTorch's tutorials: einsum, a current and a potential that act a step late, behind the start's value."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Parameter(torch.randn(n) * 0.4) for n in ((10, 20), (20, 4)))

    def forward(self, x: Tensor) -> Tensor:
        currents = torch.einsum("abc,cd->abd", x, self.first)
        syn, mem, spikes = torch.zeros(len(x), 20), torch.zeros(len(x), 20), []
        for t in range(x.shape[1]):
            spikes.append((mem - 0.3 > 0).float())
            syn, mem = 0.8 * syn + currents[:, t], (0.9 * mem + syn) * (1 - spikes[-1])
        currents = torch.einsum("abc,cd->abd", torch.stack(spikes, 1), self.second)
        flt, out = torch.zeros(len(x), 4), torch.zeros(len(x), 4)
        outputs = [out]
        for t in range(x.shape[1]):
            flt, out = 0.8 * flt + currents[:, t], 0.9 * out + flt
            outputs.append(out)
        return self.end(torch.stack(outputs, 1))

    def end(self, outputs: Tensor) -> Tensor:
        return outputs[:, 1:]


class Largest(SpyTorch):
    """The largest potential of the start and of all steps, as SpyTorch's tutorials train it."""

    def end(self, outputs: Tensor) -> Tensor:
        return outputs.max(1).values


class WrittenInPlace(nn.Module):
    """States in tensors made beforehand, ``[T + 2, B, N]``, with recurrence two steps late; a delay by padding."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.loop, self.leave = nn.Linear(10, 12), nn.Linear(12, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Any:
        v, z = (torch.zeros(len(x) + 2, x.shape[1], 12) for _ in range(2))
        late = torch.zeros_like(z[2:])
        for t in range(2, len(x) + 2):
            v[t] = 0.7 * v[t - 1] + self.enter(x[t - 2]) + self.loop(z[t - 2])
            z[t] = v[t] > 0.3
            v[t].masked_fill_(z[t].bool(), 0)
        late[1:] = z[2:-1]
        padded = nn.functional.pad(z[2:], (0, 0, 0, 0, 2, 0))[:-2]
        return self.leave(z[2:] + late + padded)


class Gates(Plain):
    """Or and and of spikes, however they are written."""

    def forward(self, x: Tensor) -> Any:
        a = self.spikes(x)
        b = torch.cat([torch.zeros_like(a[:1]), a[:-1]])
        either = torch.maximum(a, b) + torch.clamp(a + b, max=1) + (a.bool() | b.bool()).float()
        return self.leave(either + torch.minimum(a, b) + torch.logical_and(a, b).float() + torch.maximum(a, a))


class Named(NamedTuple):
    logits: Tensor
    spikes: Tensor


class GivesNamed(Plain):
    def forward(self, x: Tensor) -> Any:
        spikes = self.spikes(x)
        return Named(self.leave(spikes), spikes)


def rests_where_it_does_not_spike(current: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    v = 0.8 * v + current
    return (v > 0.2).float(), v * (v <= 0.2)


def one_minus_below(current: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    v = 0.8 * v + current
    below = (v < 0.2).float()
    return 1 - below, v * below


def not_below(current: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    v = 0.8 * v + current
    below = v < torch.linspace(0.1, 0.3, 12)
    return (~below).float(), torch.where(below, v, torch.zeros_like(v))


class Either(Plain):
    """A sum of spikes above 0, and what does not spike."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(10, 12)

    def forward(self, x: Tensor) -> Any:
        both = self.spikes(x) + self.neurons(self.other(x))
        return self.leave((both > 0).float() + (self.spikes(x) < 0.5).float())


@pytest.mark.parametrize(
    ("make", "time", "shape"),
    [
        *((make, "first", (6, 3, 10)) for make in (Dense, DenseCurrents, Einsum, Inference, GivesDataclass)),
        *((make, "first", (6, 3, 10)) for make in (Either, CatLoop, OnlyLate, WrittenInPlace, Gates)),
        (Shortcut, "first", (5, 2, 2, 6, 6)),
        (SpyTorch, "second", (3, 8, 10)),
        (NormOverTime, "second", (3, 6, 2, 6, 6)),
        (lambda: Plain(rests_where_it_does_not_spike), "first", (6, 3, 10)),
        (lambda: Plain(one_minus_below), "first", (6, 3, 10)),
        (lambda: Plain(not_below), "first", (6, 3, 10)),
    ],
)
def test_the_graph_does_what_the_module_does(make: Callable[[], nn.Module], time: Any, shape: tuple[int, ...]) -> None:
    torch.manual_seed(4)
    model = make().eval()
    net = stl.capture(model, torch.rand(shape).round(), time=time)
    assert net.proof.replay_differing == 0
    assert all(0 < layer.rate < 1 and layer.differing == 0 for layer in net.proof.layers)
    unseen = torch.rand(shape).round()
    own = model(unseen)
    expected = (own.logits if isinstance(own, Found) else own).detach()
    if time == "second":
        expected = expected.transpose(0, 1)
    np.testing.assert_allclose(net.simulate(unseen).y, expected, atol=1e-6)


def test_a_maximum_over_the_start_and_all_steps() -> None:
    torch.manual_seed(4)
    model = Largest()
    net = stl.capture(model, torch.rand(3, 8, 10).round(), time="second")
    for x in (torch.rand(3, 8, 10).round(), torch.zeros(2, 12, 10)):
        expected = model(x).detach()
        assert bool((expected == 0).any())  # all potentials of some outputs are below the start's
        np.testing.assert_allclose(net.simulate(x).readout, expected, atol=1e-6)


@pytest.mark.parametrize("output", ["spikes", 1])
def test_a_named_tuples_outputs_have_names_and_places(output: int | str) -> None:
    torch.manual_seed(4)
    model, x = GivesNamed(), torch.rand(6, 3, 10)
    assert np.array_equal(stl.capture(model, x, output=output).simulate(x).y, model.spikes(x))


def test_a_model_of_coarser_numbers_than_the_graphs_is_warned_of() -> None:
    torch.manual_seed(4)
    with pytest.warns(UserWarning, match=r"computes in bfloat16 and the graph in float32.*model.float\(\)"):
        net = stl.capture(BFloat16(), torch.rand(6, 3, 10))
    assert net.proof.replay_differing == 0


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.loop = nn.RNN(10, 12, nonlinearity="relu")

    def forward(self, x: Tensor) -> Any:
        return (self.loop(x)[0] > 0.2).float()


class NormOfEachStep(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm1d(12) for _ in range(6))
        for norm in self.norms:
            nn.init.uniform_(norm.running_var, 0.5, 2)

    def forward(self, x: Tensor) -> Any:
        currents = [norm(self.enter(step)) for norm, step in zip(self.norms, x, strict=True)]
        return self.leave(self.neurons(torch.stack(currents)))


class LargestSoFar(Plain):
    def forward(self, x: Tensor) -> Any:
        found = v = torch.full((x.shape[1], 5), -1e9)
        v = 0.0 * v
        for step in super().forward(x):
            v = 0.9 * v + step
            found = torch.maximum(found, v)
        return found


class NegativeThreshold(Plain):
    def __init__(self) -> None:
        super().__init__(lambda current, v: ((v + current > -0.1).float(), v + current + 0.1 * (v + current > -0.1)))


class SpikesOfBothStepsInALoop(CatLoop):
    def forward(self, x: Tensor) -> Tensor:
        v = torch.zeros(x.shape[1], 12)
        past, found = [v, v], []
        for step in x:
            spikes, v = reset_to_zero(self.enter(torch.cat([step, past[-1] + past[-2]], 1)), v)
            past.append(spikes)
            found.append(spikes)
        return torch.stack(found)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("lags", [(1, 2), (2, 3), (2,)])
def test_layers_of_their_own_read_the_spikes_of_several_steps(bias: bool, lags: tuple[int, ...]) -> None:
    """As the refusal of one layer that reads their sum says."""

    class OfEachStep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.enter = nn.Linear(10, 8)
            self.own = nn.ModuleList(nn.Linear(8, 8, bias=bias) for _ in lags)

        def forward(self, x: Tensor) -> Tensor:
            v = torch.zeros(x.shape[1], 8)
            past, found = [v] * 3, []
            for step in x:
                v = 0.5 * v + self.enter(step)
                for lag, layer in zip(lags, self.own, strict=True):
                    v = v + layer(past[-lag])
                spikes = (v >= 0.25).float()
                v = v - 0.25 * spikes
                past.append(spikes)
                found.append(spikes)
            return torch.stack(found)

    model = OfEachStep().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((parameter * 16).round() / 16)  # sums are exact, and potentials meet the threshold
    net = stl.capture(model, torch.randint(0, 4, (8, 4, 10)) / 4)
    for steps, samples, scale in ((1, 2, 1), (3, 1, 1), (17, 6, 1), (9, 3, 0), (9, 3, -2)):
        unseen = torch.randint(0, 4, (steps, samples, 10)) / 4 * scale
        np.testing.assert_array_equal(net.simulate(unseen.numpy()).y, model(unseen).detach().numpy())


class InALoop(nn.Module):
    """Two neurons that read each other's spikes, the second those of ``late`` steps ago, 0: of this one."""

    def __init__(self, late: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.late, self.enter, self.also = late, nn.Linear(10, 8), nn.Linear(10, 8)
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_((parameter * 16).round() / 16)

    def forward(self, x: Tensor) -> Tensor:
        v = w = torch.zeros(x.shape[1], 8)
        first, second, found = [v] * 3, [v] * 3, []
        for step in x:
            v = 0.5 * v + self.enter(step) + self.b(second[-3])
            spikes = (v >= 0.25).float()
            v = v - 0.25 * spikes
            first.append(spikes)
            w = 0.5 * w + self.also(step) + self.a(first[-1 - self.late]) + self.c(second[-1])
            spikes = (w >= 0.25).float()
            w = w - 0.25 * spikes
            second.append(spikes)
            found.append(spikes)
        return torch.stack(found)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: InALoop(late=0), None),
        (lambda: InALoop(late=2), r"is read back from NIR with other delays; .* those of this step"),
        (SpikesOfBothStepsInALoop, r"reads spikes of several steps in a loop.*read those of each step: self.a"),
    ],
)
def test_a_loop_whose_late_edges_nir_has_no_place_for_is_a_program(
    tmp_path: Path, make: Callable[[], nn.Module], why: str | None
) -> None:
    """It was refused, though a Program, and what is written of it, holds it."""
    model = make()
    net, unseen = stl.capture(model, torch.randint(0, 4, (8, 4, 10)) / 4), torch.randint(0, 4, (17, 6, 10)) / 4
    with torch.no_grad():
        expected = model(unseen).numpy()
    assert expected.any()
    np.testing.assert_allclose(net.simulate(unseen.numpy()).y, expected, rtol=0, atol=1e-5)
    folded = net.fold()
    np.testing.assert_allclose(folded.simulate(unseen.numpy()).y, expected, rtol=0, atol=1e-5)
    assert folded.export(tmp_path / "net.onnx")["verified"]["runs"][0]["differing"] == 0
    if why is None:
        folded.export(tmp_path / "net.nir")
    else:
        with pytest.raises(stl.UnsupportedError, match=why):
            net.export(tmp_path / "net.nir")


class Missing(Plain):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x.of_another_library())


class DividesByZero(Plain):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x) * (1 / 0)


class Exits(Plain):
    def forward(self, x: Tensor) -> Any:
        raise SystemExit(0)  # an exit of 0 would say that all went well


class ResetsTo(Plain):
    def reset(self, samples: int) -> None:
        raise NotImplementedError


class LastThree(Plain):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x)[3:].mean(0)


class BatchFirst(Plain):
    """It takes [B, T, 10] and loops over T."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(torch.stack([x[:, t] for t in range(x.shape[1])])).transpose(0, 1)


class Fewer(Plain):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x)[1:]


class Ragged(Plain):
    def forward(self, x: Tensor) -> Any:
        return [y[:, : 1 + t % 3] for t, y in enumerate(super().forward(x))]


class WeightsOfSteps(Plain):
    """A matrix from time steps to time steps."""

    def __init__(self) -> None:
        super().__init__()
        self.times = nn.Parameter(torch.rand(6, 6))

    def forward(self, x: Tensor) -> Any:
        spikes = self.spikes(x)
        return (self.times @ spikes.flatten(1)).reshape(spikes.shape)


class Ones(Plain):
    def forward(self, x: Tensor) -> Any:
        return super().forward(torch.cat([x[..., :9], torch.ones(*x.shape[:2], 1)], -1))


def sparse() -> nn.Module:
    model = Plain()
    model.enter.weight = nn.Parameter(model.enter.weight.detach().to_sparse())
    return model


class HalfDouble(Plain):
    """Of doubles, with spikes that are none."""

    def __init__(self) -> None:
        super().__init__()
        self.double()

    def forward(self, x: Tensor) -> Any:
        return super().forward(x.float())


def on_a_card() -> nn.Module:
    """As far as a machine without one can tell."""
    model = Plain()
    with FakeTensorMode():
        model.register_buffer("scale", torch.empty(3, device="cuda"))
    return model


def exported() -> nn.Module:
    return torch.export.export(nn.Linear(10, 2), (torch.zeros(6, 3, 10),)).module()


@pytest.mark.usefixtures("neurons_alone")
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Recurrent, "expected every loop to go through a neuron; found 'relu'"),
        (BatchFirst, r"takes a part of the batch; .* \[B, T, \.\.\.\], say so by time='second'"),
        (NormOfEachStep, "'native_batch_norm' in 'norms.5' does not do the same .* use the same at every step"),
        (LargestSoFar, "a Cell"),
        (
            NegativeThreshold,
            r"test_own_nets.py:[0-9]+: node 'neurons': expected a threshold above 0 here; found -0.1, and to",
        ),
        (Missing, r"test_own_nets.py:[0-9]+: the model fails on an input .*: AttributeError: .*of_another_library"),
        (DividesByZero, r"test_own_nets.py:[0-9]+: the model fails on an input .*: ZeroDivisionError"),
        (Exits, r"test_own_nets.py:[0-9]+: the model fails on an input .*: SystemExit: 0"),
        (ResetsTo, r"ResetsTo.reset\(\), which should bring the model to rest, fails: TypeError: .* give reset="),
        (Ragged, r"expected outputs of one shape at every step; found \[3, 1\] and \[3, 2\]"),
        (WeightsOfSteps, "a matrix whose rows differ, or that reads later steps"),
        (sparse, r"parameter 'enter.weight' is sparse.*to_dense"),
        (lambda: Plain().to("meta"), r"parameter 'enter.weight' has no values .* load its weights first"),
        (on_a_card, r"parameter 'scale' is on cuda:0; capture runs a model on the CPU: give model.cpu\(\)"),
        (lambda: nn.GRU(10, 2), "a Cell"),
        (lambda: "model.py:Net", "a str is not a torch.nn.Module; import the class that it names, and give an object"),
        (lambda: Plain().state_dict(), r"if it is a state dict, load it, model.load_state_dict\(...\), and give the"),
        (lambda: nn.Linear, r"expected a module; found the class Linear; give one: Linear\(...\)"),
        (lambda: HalfDouble(), "'enter.weight' is float64 and x float32: give model.float()"),
        (exported, "cannot be put into eval mode .* capture the module that it was made from"),
    ],
)
def test_refusals_say_what_to_do(make: Callable[[], nn.Module], reason: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.export's own
        model = make()
    with pytest.raises(CaptureError, match=reason):
        stl.capture(model, torch.rand(6, 3, 10))


def test_constants_are_concatenated() -> None:
    torch.manual_seed(0)
    model, fresh = Ones().eval(), torch.rand(6, 5, 10)
    net = stl.capture(model, torch.rand(6, 3, 10))
    np.testing.assert_allclose(net.simulate(fresh).y, model(fresh).detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [LastThree, Fewer])
def test_burn_ins_are_captured(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model, x = make().eval(), torch.rand(6, 3, 10)
    net = stl.capture(model, x)
    fresh = torch.rand(6, 5, 10)
    with torch.no_grad():
        np.testing.assert_allclose(net.simulate(fresh.numpy()).readout, model(fresh).numpy(), atol=1e-6)


class Inside(Plain):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x.expand(5, *x.shape)).mean(0)


def test_a_module_that_loops_itself_is_simulated_on_what_it_takes() -> None:
    torch.manual_seed(0)
    model, x = Inside(), torch.rand(3, 10)
    net = stl.capture(model, x, time="inside")
    np.testing.assert_allclose(net.simulate(x).readout, model(x).detach(), atol=1e-6)


def test_a_module_that_went_to_a_card_after_capture_is_refused() -> None:
    torch.manual_seed(0)
    model, x = Plain(), torch.rand(6, 3, 10)
    net = stl.capture(model, x)
    net.evaluate([(x, [0, 1, 1])])
    with FakeTensorMode():
        model.register_buffer("scale", torch.empty(3, device="cuda"))
    with pytest.raises(CaptureError, match="parameter 'scale' is on cuda:0"):
        net.evaluate([(x, [0, 1, 1])])
