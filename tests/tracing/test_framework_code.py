"""What the code of Rockpool's and Sinabs' modules does beside computing: it enters by rule, without these packages."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.errors import CaptureError
from stl_deploy.graph.program import Neuron


class Lif(nn.Module):
    """LIF over ``[B, T, features]``, with states that stay between calls and noise that is off."""

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        self.linear, self.noise = nn.Linear(6, 5), torch.tensor(noise)
        self.v = torch.zeros(1)

    def modules(self, remove_duplicate: bool = True) -> Any:  # type: ignore[override]
        """Return a dict, as Rockpool's modules do."""
        return {"linear": self.linear}

    def parameters(self, recurse: bool = True) -> Iterator[Any]:
        """Return a dict, as Rockpool's modules do."""
        return {"weight": self.linear.weight}  # type: ignore[return-value]

    def reset_states(self) -> None:
        """Bring it to rest, as Sinabs' modules do."""
        self.v = torch.zeros(1)

    def forward(self, x: Tensor) -> Tensor:
        current, v, out = copy.copy(self.linear(x)), self.v, []
        noise = self.noise * torch.randn(current.shape)
        for t in range(x.shape[1]):
            v = 0.75 * v + current[:, t] + noise[:, t]
            spikes = (v > 0) * torch.div(v, 0.5, rounding_mode="trunc")
            v = v - spikes * 0.5
            out.append(spikes)
        self.v = v
        return torch.stack(out, 1)


def test_a_module_with_own_walks_resets_copies_and_noise_that_is_off_enters() -> None:
    torch.manual_seed(1)
    model, x = Lif(), torch.rand(4, 7, 6)
    net = stl.capture(model, x, time="second")
    fresh = torch.rand(3, 9, 6) * 2
    model.reset_states()
    want = model(fresh).detach().numpy()
    assert np.array_equal(net.simulate(fresh.numpy()).y.swapaxes(0, 1), want)
    assert want.max() > 1


class Copies(Lif):
    """LIF that subtracts a deep copy of its last spikes: alone, in a list, or beside a view of them."""

    def __init__(self, copied: Any) -> None:
        super().__init__()
        self.copied = copied

    def forward(self, x: Tensor) -> Tensor:
        last, out = torch.zeros(len(x), 5), []
        v = copy.deepcopy(last)
        for t in range(x.shape[1]):
            before = self.copied(last)
            v = 0.75 * v + self.linear(x[:, t]) - before
            last.copy_((v > 0.1).float())  # of which the copy knows nothing
            out.append(last - 0.5 * before)
        return torch.stack(out, 1)


def _with_view(spikes: Tensor) -> Tensor:
    copied, part = copy.deepcopy((spikes, spikes[:, :2]))
    part.zero_()
    return copied


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda s: copy.deepcopy([s, s])[1]])
def test_deep_copies_are_followed(copied: Any) -> None:
    torch.manual_seed(1)
    model, fresh = Copies(copied), torch.rand(3, 9, 6) * 2
    net = stl.capture(model, torch.rand(4, 7, 6), time="second")
    with torch.no_grad():
        want = model(fresh).numpy()
    assert np.array_equal(net.simulate(fresh.numpy()).y.swapaxes(0, 1), want)
    assert {*np.unique(want)} == {-0.5, 0, 0.5, 1}


def test_deep_copies_that_share_memory_are_refused() -> None:
    with pytest.raises(CaptureError, match="set_"):
        stl.capture(Copies(_with_view), torch.rand(4, 7, 6), time="second")


@pytest.mark.parametrize("read", [lambda noise: noise, lambda noise: noise.data, lambda noise: noise[:]])
def test_noise_that_is_on_is_refused(read: Any) -> None:
    class Noisy(Lif):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + 0.1 * read(torch.randn(x.shape)))

    with pytest.raises(CaptureError) as raised:
        stl.capture(Noisy(), torch.rand(4, 7, 6), time="second")
    assert raised.value.slug == "random-numbers"


def test_noise_of_a_parameter_that_is_not_0_is_refused() -> None:
    with pytest.raises(CaptureError) as raised:
        stl.capture(Lif(noise=0.1), torch.rand(4, 7, 6), time="second")
    assert raised.value.slug == "random-numbers"


class KeepsBatch(nn.Module):
    """A counting integrator with a lower bound; for another number of samples it draws which kept states go on."""

    def __init__(self, *, rests: bool = True) -> None:
        super().__init__()
        self.linear, self.rests = nn.Linear(6, 500), rests
        self.v = torch.zeros(0)

    def reset_states(self) -> None:
        """Set the states to rest, of as many samples as before."""
        self.v = torch.zeros_like(self.v) + torch.arange(len(self.v))[:, None] * (not self.rests)

    def forward(self, x: Tensor) -> Tensor:
        current, out = self.linear(x), []
        if not self.v.numel():
            self.v = torch.zeros_like(current[:, 0])
        if len(self.v) != len(x):
            self.v = torch.index_select(self.v, 0, torch.randint(0, len(self.v), (len(x),)))
        for t in range(x.shape[1]):
            v = self.v + current[:, t]
            spikes = (v > 0) * torch.div(v, 1.0, rounding_mode="trunc")
            self.v = torch.relu(v - spikes + 1.0) - 1.0
            out.append(spikes)
        return torch.stack(out, 1)


def test_states_at_rest_of_another_batch_may_be_drawn_from() -> None:
    torch.manual_seed(1)
    model, x = KeepsBatch().eval(), torch.rand(4, 7, 6) * 3
    model(x[:3])  # it has run before
    net = stl.capture(model, x, time="second")
    (neuron,) = net.program.of(Neuron)
    assert neuron.multi_spike
    assert neuron.v_min == -1
    model.reset_states()
    want = model(x).detach().numpy()
    assert np.array_equal(net.simulate(x).y.swapaxes(0, 1), want)
    assert want.max() > 1


def test_states_that_are_not_at_rest_may_not() -> None:
    model, x = KeepsBatch(rests=False).eval(), torch.rand(4, 7, 6) * 3
    model(x[:3])
    with pytest.raises(CaptureError):
        stl.capture(model, x, time="second")


@pytest.mark.parametrize("seed", range(6))
def test_numbers_that_happen_to_be_drawn_as_0_are_random(seed: int) -> None:
    class Random(Lif):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + 2.0 * torch.randint(0, 2, (1,)))

    model = Random()
    torch.manual_seed(seed)
    with pytest.raises(CaptureError) as raised:
        stl.capture(model, torch.rand(4, 7, 6), time="second")
    assert raised.value.slug == "random-numbers"


@torch.library.custom_op("stl_deploy_tests::gain_of_rate", mutates_args=())
def gain_of_rate(x: Tensor) -> Tensor:
    """Return a gain that code outside of torch finds."""
    return torch.tensor(2.0 if (x.numpy() != 0).mean() < 0.1 else 1.0)


@torch.library.custom_op("stl_deploy_tests::doubled", mutates_args=())
def doubled(x: Tensor) -> Tensor:
    """Return twice the input, and 1 where it is above one half, by torch."""
    return x * 2 + (x > 0.5).float()


class WithOperator(nn.Module):
    def __init__(self, operator: Any) -> None:
        super().__init__()
        self.lif, self.operator = Lif(), operator

    def forward(self, x: Tensor) -> Tensor:
        return self.lif(x * self.operator(x))


def test_values_that_an_operator_of_the_users_reads_are_seen() -> None:
    with pytest.raises(CaptureError, match="'numpy' hands values that depend on the input"):
        stl.capture(WithOperator(gain_of_rate), torch.rand(4, 7, 6), time="second")
    net = stl.capture(WithOperator(doubled), torch.rand(4, 7, 6), time="second")
    assert net.proof is not None
    assert net.proof.replay_differing == 0
