"""Which axis of a batch is time: what the module does decides, and each advice leads on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy import verbs

Steps = Callable[["Loop", Tensor], Iterable[Tensor]]
X = (torch.rand(9, 5, 4, generator=torch.Generator().manual_seed(0)) < 0.5).float()  # [B, T, ...] where T is 5


class Loop(nn.Module):
    """Neurons written by hand in a loop over ``steps``; puts out every step, ``[T, B, 3]``."""

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.steps, self.weights, self.num_steps = steps, nn.Linear(4, 3), 5

    def forward(self, x: Tensor) -> Tensor:
        v, spikes = torch.zeros(()), []
        for now in self.steps(self, x):
            v = 0.5 * v + self.weights(now)
            spikes.append((v > 0.05).float())
            v = v * (1 - spikes[-1])
        return torch.stack(spikes)


def second(net: Loop, x: Tensor) -> Iterable[Tensor]:
    return (x[:, t] for t in range(x.shape[1]))


def fixed_second(net: Loop, x: Tensor) -> Iterable[Tensor]:
    return (x[:, t] for t in range(net.num_steps))


def first(net: Loop, x: Tensor) -> Iterable[Tensor]:
    return x


def fixed_first(net: Loop, x: Tensor) -> Iterable[Tensor]:
    return (x[t] for t in range(net.num_steps))


@pytest.mark.parametrize("steps", [second, fixed_second])
def test_a_loop_over_the_second_axis_is_asked_about(steps: Steps) -> None:
    with pytest.raises(stl.CaptureError, match=r"read as 9 steps of 5 samples, .* give time='second', with which"):
        stl.capture(Loop(steps), X)
    assert stl.capture(Loop(steps), X, time="second", verify=False).sample.shape[:2] == (5, 9)


class Images(nn.Module):
    """A residual network that shows the same image in every step of a loop of its own; ``[B, 1, 6, 6]``."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        v, w, total = torch.zeros(()), torch.zeros(()), torch.zeros(())
        for _ in range(3):
            v = 0.5 * v + self.first(x)
            spikes = (v > 0.2).float()
            v = v * (1 - spikes)
            w = 0.5 * w + self.second(spikes) + spikes
            out = (w > 0.4).float()
            w = w * (1 - out)
            total = total + out.flatten(1)
        return total / 3


def test_a_batch_of_images_for_a_module_that_loops_itself_is_asked_about() -> None:
    images = torch.rand(7, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    with pytest.raises(stl.CaptureError, match=r"forward loops over time itself, give time='inside', with which"):
        stl.capture(Images(), images)
    assert stl.capture(Images(), images, time="inside", verify=False).sample.shape[1] == 7


class Vectors(nn.Module):
    """Shows the same values in every step of a loop of its own; takes any number of axes before them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weights = nn.Linear(4, 3)
        nn.init.constant_(self.weights.bias, 0.4)

    def forward(self, x: Tensor) -> Tensor:
        v, total = torch.zeros(()), torch.zeros(())
        for _ in range(3):
            v = 0.75 * v + self.weights(x)
            spikes = (v > 0.2).float()
            v = v * (1 - spikes)
            total = total + spikes
        return total / 3


def test_values_for_a_module_that_loops_itself_are_asked_about_and_never_taken_for_steps() -> None:
    """Each step of x would make three of its own: neurons without memory, in a graph of as many steps as samples."""
    with pytest.raises(stl.CaptureError, match="forward loops over time itself, give time='inside', with which"):
        stl.capture(Vectors(), X[0])
    with pytest.warns(UserWarning, match="forward makes steps of its own of each. .* give time='inside'"):
        stl.capture(Vectors(), X)
    (neuron,) = stl.capture(Vectors(), X[0], time="inside").program.spiking
    assert neuron.decay is not None


class Step(nn.Module):
    """Takes one step, ``[B, 1, 6, 6]``, and keeps its potentials, as single-step layers of frameworks do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weights, self.v = nn.Linear(36, 5), torch.zeros(())

    def reset(self) -> None:
        self.v = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        self.v = 0.5 * self.v + self.weights(x.flatten(1))
        spikes = (self.v > 0.2).float()
        self.v = self.v * (1 - spikes)
        return spikes


def test_a_module_of_one_step_is_asked_about() -> None:
    x = (torch.rand(4, 6, 1, 6, 6, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    for given in (x, x[0]):
        with pytest.raises(stl.CaptureError, match=r"give x as \[T, B, \.\.\.\] and time='step', with which"):
            stl.capture(Step(), given)
    assert stl.capture(Step(), x, time="step", verify=False).sample.shape[:2] == (4, 6)


@pytest.mark.parametrize("shape", [None, (3,)])
@pytest.mark.parametrize("time", ["first", "second"])
def test_our_own_neurons_of_one_step_are_asked_about(shape: tuple[int, ...] | None, time: Any) -> None:
    """They took the batch for one of their axes, kept it, and the sentence named time='second'."""
    model = nn.Sequential(nn.Linear(4, 3), stl.LIF(shape, threshold=0.05, stateful=True))
    with pytest.raises(stl.CaptureError, match=r"give x as \[T, B, \.\.\.\] and time='step'"):
        stl.capture(model, X, time=time)
    found = stl.capture(model, X.transpose(0, 1), time="step")  # the same module, unchanged
    assert found.proof is not None
    assert found.proof.replay_differing == 0


def test_our_own_neurons_of_one_step_may_be_looped_over() -> None:
    class Looped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(4, 3), stl.LIF(threshold=0.2, stateful=True))

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.layers(step) for step in x])

    assert stl.capture(Looped(), X.transpose(0, 1), verify=False).sample.shape[:2] == (5, 9)


def test_a_loop_over_fewer_steps_than_x_has_is_asked_about() -> None:
    with pytest.raises(stl.CaptureError, match=r"if x is .*, give x\.transpose\(0, 1\), with which"):
        stl.capture(Loop(fixed_first), X)
    assert stl.capture(Loop(fixed_first), X.transpose(0, 1), verify=False).sample.shape[:2] == (5, 9)


def test_an_output_of_the_first_steps_is_refused_before_the_order_is_asked_about() -> None:
    class First(Loop):
        def forward(self, x: Tensor) -> Tensor:
            made: Tensor = super().forward(x)
            return made[:5]

    with pytest.raises(
        stl.CaptureError, match=r"py:\d+: expected a model that runs each of 9 .* found 5 outputs.*; x, \["
    ):
        stl.capture(First(first), X)


def test_a_model_s_own_number_of_steps_contradicts_x() -> None:
    """The loop takes what x has; that the model says 5 steps, as many as samples, is all that shows the mistake."""
    with pytest.warns(UserWarning, match=r"9 steps of 5 samples, and the model's num_steps is 5: .*x\.transpose"):
        stl.capture(Loop(first), X)
    assert stl.capture(Loop(first), X.transpose(0, 1)).sample.shape[:2] == (5, 9)  # without a warning


def _coded(steps: int, samples: int) -> Tensor:
    """Images as random spikes, ``[T, B, 4]``: steps of one sample are as alike as their rates, samples are not."""
    draw = torch.Generator().manual_seed(0)
    rates = torch.rand(samples, 4, generator=draw) ** 3
    return (torch.rand(steps, samples, 4, generator=draw) < rates).float()


@pytest.mark.parametrize("time", ["first", "step"])
def test_samples_as_alike_as_steps_are_asked_about(time: Any) -> None:
    model: nn.Module = nn.Sequential(nn.Linear(4, 3), stl.LIF((3,), threshold=0.05, stateful=time == "step"))
    x = _coded(12, 40)
    assert "12 steps of 40 samples" in repr(stl.capture(model, x, time=time))  # without a warning
    with pytest.warns(UserWarning, match=r"40 steps of 12 samples, and its neighbouring .*, x\.transpose\(0, 1\)"):
        stl.capture(model, x.transpose(0, 1), time=time)


def test_an_order_that_the_module_alone_takes_is_not_asked_about() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.weights, self.lif = nn.Linear(4, 3), stl.LIF((3,), threshold=0.1)

        def forward(self, x: Tensor) -> Tensor:
            assert len(x) >= 20
            return self.lif(self.weights(x))

    stl.capture(Fixed(), _coded(12, 40).transpose(0, 1))  # without a warning


def test_a_fixed_number_of_steps_is_held_on_that() -> None:
    """A loop over ``num_steps`` makes no more of a longer x: it is captured, and says so."""
    with pytest.warns(UserWarning, match=r"the model makes 5 steps of any longer x, .* give the graph 5 steps"):
        net = stl.capture(Loop(fixed_first), X.transpose(0, 1))
    model, x = Loop(fixed_first), X.transpose(0, 1)
    np.testing.assert_array_equal(net.simulate(x).y, model(x).detach())


@pytest.mark.parametrize("time", ["first", "second"])
def test_square_batches_are_asked_about_at_evaluation(time: str) -> None:
    steps = first if time == "first" else second
    x = X[:5] if time == "second" else X[:5].transpose(0, 1)
    net = stl.capture(Loop(steps), x, time=time)  # type: ignore[arg-type]
    labels = torch.arange(5) % 3
    if time == "first":  # a module of [B, T, ...] answers it
        with pytest.raises(stl.InputError, match="either axis may be time; say which: time='first' or time='second'"):
            net.evaluate([(X[:5], labels)])
    else:
        assert net.evaluate([(X[:5], labels)]).differing == 0
    assert net.evaluate([(X[:5], labels)], time="second").differing == 0
    assert net.evaluate([(X, torch.arange(9) % 3)]).differing == 0  # 9 samples of 5 steps: labels tell


class Pictures(nn.Module):
    """Pictures in a loop over steps, ``[T, B, 1, 4, 4]``; puts out every step."""

    def __init__(self, samples_first: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weights, self.samples_first = nn.Conv2d(1, 2, 3), samples_first

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(0, 1) if self.samples_first else x
        v, spikes = torch.zeros(()), []
        for now in x:
            v = 0.5 * v + self.weights(now).flatten(1)
            spikes.append((v > 0.05).float())
            v = v * (1 - spikes[-1])
        return torch.stack(spikes)


@pytest.mark.parametrize(
    ("model", "time", "shape", "give"),
    [
        (Pictures(), "first", (6, 1, 4, 4), "x[:, None]"),
        (Pictures(samples_first=True), "second", (6, 1, 4, 4), "x[None]"),
        (nn.Sequential(nn.Linear(64, 4), stl.LIF((4,), threshold=0.1)), "first", (8, 64), "x[:, None]"),
    ],
)
def test_a_missing_axis_of_samples_is_named(model: nn.Module, time: str, shape: tuple[int, ...], give: str) -> None:
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    with pytest.raises(stl.CaptureError, match=rf"x is one sample, which .* give {re.escape(give)}, with which"):
        stl.capture(model, x, time=time)  # type: ignore[arg-type]
    whole = x[:, None] if give == "x[:, None]" else x[None]
    assert stl.capture(model, whole, time=time, verify=False).sample.shape[:2] == (shape[0], 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("own", ["9", "x.shape[1]"])
@pytest.mark.parametrize("time", ["first", "second", "step"])
def test_a_number_of_samples_written_into_forward_is_named(time: Any, own: str) -> None:
    """An axis of samples more would be captured as neurons of 9 samples; the remedy is the number from the input."""

    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.weights, self.v = nn.Linear(4, 8), torch.zeros(9, 8)

        def step(self, now: Tensor) -> Tensor:
            self.v = 0.7 * self.v + self.weights(now)
            spikes = (self.v > 0.1).float()
            self.v = self.v * (1 - spikes)
            return spikes

        def reset(self, samples: int = 9) -> None:
            self.v = torch.zeros(samples, 8)

        def forward(self, x: Tensor) -> Tensor:
            if time == "step":
                if own != "9" and self.v.shape[0] != x.shape[0]:
                    self.reset(x.shape[0])
                return self.step(x)
            x = x.transpose(0, 1) if time == "second" else x
            self.reset(9 if own == "9" else x.shape[1])
            spikes = torch.stack([self.step(now) for now in x])
            return spikes.transpose(0, 1) if time == "second" else spikes

    x = X.transpose(0, 1).repeat(2, 1, 1)  # 10 steps of 9 samples
    x = x.transpose(0, 1).contiguous() if time == "second" else x
    if own == "9":
        place = {"first": 1, "second": 0, "step": 0}[time]
        with pytest.raises(stl.CaptureError, match=rf"it has 9 samples written into it; .*, x\.shape\[{place}\] \("):
            stl.capture(Written(), x, time=time)
    else:
        assert stl.capture(Written(), x, time=time).program.inputs[0].shape == (4,)


@pytest.mark.parametrize("wrapped", [[X], (X,), [X.numpy()]])
def test_one_array_in_a_list_is_no_step(wrapped: Any) -> None:
    with pytest.raises(stl.CaptureError, match=r"found a (list|tuple) of one array, \[9, 5, 4\].*itself, x\[0\]$"):
        stl.capture(Loop(second), wrapped, time="second")
    assert stl.capture(Loop(second), wrapped[0], time="second", verify=False).sample.shape[:2] == (5, 9)


def test_two_steps_are_too_few_before_their_axes_are_in_doubt() -> None:
    with pytest.raises(stl.CaptureError, match=r"^x: expected at least 3 time steps.*: if x is \[B, T, \.\.\.\], give"):
        stl.capture(Loop(first), X[:2])
    assert stl.capture(Loop(first), X[:3], verify=False).sample.shape[:2] == (3, 5)


def test_a_proof_says_on_a_line_of_its_own_how_x_was_read() -> None:
    """A batch in the wrong order is captured where nothing contradicts it; this line is what shows it."""
    x = X.transpose(0, 1)
    with pytest.warns(UserWarning, match="num_steps"):
        assert str(stl.capture(Loop(first), X).proof).splitlines()[1] == "x read as [T, B, ...]: 9 steps of 5 samples"
    proof = stl.capture(Loop(first), x).proof
    assert proof.as_dict()["time"] == "first"
    assert "<br/>x read as [T, B, ...]: 5 steps of 9 samples" in proof._repr_html_()
    assert str(stl.capture(Loop(second), X, time="second").proof).endswith("as [B, T, ...]: 5 steps of 9 samples")


def test_a_square_batch_for_a_file_of_a_module_of_batches_first_is_warned_of(tmp_path: Path) -> None:
    """The file's graph takes [T, B, ...]; x in the module's order was transposed without a word."""
    net = stl.capture(Loop(second), X, time="second")
    net.export(tmp_path / "net.nir")
    read = stl.read(tmp_path / "net.nir")
    square = X[:5]
    assert square.shape[:2] == (5, 5)
    with pytest.warns(UserWarning, match=r"5 steps of 5 samples; this graph's module takes \[B, T, ...\]") as said:
        read.simulate(square)
    assert [each.filename for each in said] == [__file__]
    with pytest.warns(UserWarning, match="captured from a module on 5 steps: if x is"):
        read.simulate(X)
    read.simulate(X.transpose(0, 1))  # a warning would be an error
    np.savez(tmp_path / "x.npz", x=square.numpy())
    with pytest.warns(UserWarning, match=r"x.npz: x is read as .* this graph's module takes \[B, T, ...\]"):
        verbs.simulate(tmp_path / "net.nir", tmp_path / "x.npz", "reference", tmp_path / "y.npz")


@pytest.mark.parametrize("form", ["module", "quantised"])
def test_modules_of_a_graph_warn_of_the_captured_module_s_order(form: str) -> None:
    """They take [T, B, ...], whatever the captured one took; other spikes came out in silence."""
    net = stl.capture(Loop(second), X, time="second")
    with pytest.warns(UserWarning, match=r"this module and its graph take \[T, B, ...\], not \[B, T, ...\]"):
        module = getattr(net, form)().eval()
    with pytest.warns(UserWarning, match=r"captured from a module on 5 steps: if x is \[B, T, ...\], swap") as said:
        module(X)
    assert [each.filename for each in said] == [__file__]
    np.testing.assert_array_equal(module(X.transpose(0, 1)).detach(), Loop(second)(X).detach())
    graph = module.graph() if form == "quantised" else stl.SpikingGraph(module.program())
    with pytest.warns(UserWarning, match="captured from a module on 5 steps: if x is"):
        graph.simulate(X)


def test_numbers_that_a_module_would_cast_are_refused() -> None:
    """The graph of a module that casts its input, captured on integers, took fractions as they are."""

    class Casts(Loop):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.int().float())

    x = X.transpose(0, 1)
    with pytest.warns(UserWarning, match="the model makes its input int32, which leaves x as it is"):
        net = stl.capture(Casts(first), x)
    np.testing.assert_array_equal(net.simulate(3 * x).y, Casts(first)(3 * x).detach().numpy())
    with pytest.raises(
        stl.InputError, match="expected x that stays the same as int32, which the captured module makes"
    ):
        net.simulate(0.5 * x)
