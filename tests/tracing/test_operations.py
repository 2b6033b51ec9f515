"""Single operations before, inside and behind neurons: what they compute is captured, or refused in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import stl_deploy as stl
from stl_deploy.errors import CaptureError

T, B = 5, 3
ONES, UP = torch.ones(8), torch.arange(8.0) / 4
SIX = torch.arange(24.0).reshape(4, 6) / 20
WIDE, NARROW = torch.arange(30.0).reshape(6, 5) / 30, torch.arange(24.0).reshape(6, 4) / 24
library = torch.library.Library("stl_deploy_tests", "DEF")
library.define("halved(Tensor x) -> Tensor")
library.impl("halved", lambda x: x * 0.5, "CPU")


class Net(nn.Module):
    """6 inputs and two layers of 8 spiking neurons beside each other; ``body`` makes the output of them and x."""

    def __init__(self, body: Callable[..., Any]) -> None:
        super().__init__()
        self.fc, self.fc2 = nn.Linear(6, 8), nn.Linear(6, 8)
        self.lif, self.lif2 = stl.LIF((8,), threshold=0.3), stl.LIF((8,), threshold=0.5)
        self.head, self.body = nn.Linear(8, 3), body
        self.register_buffer("count", torch.ones(8))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Any:
        return self.body(self, x)

    def spikes(self, x: Tensor) -> Tensor:
        """[T, B, 8]."""
        found: Tensor = self.lif(self.fc(x))
        return found

    def others(self, x: Tensor) -> Tensor:
        """Spikes of the second layer."""
        found: Tensor = self.lif2(self.fc2(x))
        return found


def captured(body: Callable[..., Any], x: Tensor | None = None, **options: Any) -> tuple[Any, Any]:
    """The graph, and what the module itself returns, of ``body(net, x)``."""
    torch.manual_seed(0)
    model, x = Net(body).eval(), torch.rand(T, B, 6) * 2 if x is None else x
    return stl.capture(model, x, **options), model(x).detach().numpy()


def require_same(body: Callable[..., Any], x: Tensor | None = None, **options: Any) -> Any:
    net, expected = captured(body, x, **options)
    assert net.sample is not None
    found = net.simulate(net.sample)
    assert (net.proof.replay_differing, net.proof.end_to_end["differing"]) == (0, 0)
    result = found.y if net.readout.over_time is None else found.readout
    np.testing.assert_allclose(result.reshape(expected.shape), expected, rtol=1e-5, atol=1e-6)
    return net


def refused(body: Callable[..., Any], reason: str, x: Tensor | None = None, **options: Any) -> None:
    with pytest.raises(CaptureError, match=reason):
        captured(body, x, **options)


def steps(body: Callable[[Net, Tensor], Tensor]) -> Callable[[Net, Tensor], Tensor]:
    """``body`` on each step of the input."""
    return lambda net, x: torch.stack([body(net, step) for step in x])


def of_spikes(body: Callable[[Net, Tensor], Tensor]) -> Callable[[Net, Tensor], Tensor]:
    """``body`` on all spikes, and linear weights behind it."""
    return lambda net, x: net.head(body(net, net.spikes(x)))


def written(write: Callable[[Tensor, Tensor], Any]) -> Callable[[Net, Tensor], Tensor]:
    """``write(out, spikes)`` into zeros at each step, and linear weights behind them."""

    def body(net: Net, x: Tensor) -> Tensor:
        found = []
        for spikes in net.spikes(x):
            out = torch.zeros(spikes.shape[0], 8)
            write(out, spikes)
            found.append(net.head(out))
        return torch.stack(found)

    return body


def wrote(write: Callable[[Tensor], Any]) -> Callable[[Net, Tensor], Tensor]:
    """``write`` into all spikes."""

    def body(net: Net, x: Tensor) -> Tensor:
        spikes = net.spikes(x) * 1
        write(spikes)
        return net.head(spikes)

    return body


@pytest.mark.parametrize(
    "body",
    [
        written(lambda out, s: out[:, :4].copy_(s[:, :4])),
        wrote(lambda s: s[:, :, 0].fill_(0)),
        wrote(lambda s: s[:, :, 0].copy_(s[:, :, 1])),
        of_spikes(lambda net, s: s.repeat(1, 1, 1)),
        of_spikes(lambda net, s: s.unsqueeze(-1).repeat(1, 1, 1, 2).sum(-1)),
        lambda net, x: net.spikes(x).unsqueeze(2).repeat(1, 1, 2, 1).flatten(2),
        lambda net, x: net.spikes(x)[..., 1].unsqueeze(-1),
        of_spikes(lambda net, s: s.narrow(2, 0, 8)),
        of_spikes(lambda net, s: s + s[..., :1]),
        of_spikes(lambda net, s: s - s.split([1, 7], -1)[0]),
        of_spikes(lambda net, s: torch.cat(s.split(2, 0), 0)),
        of_spikes(lambda net, s: s.split(8, -1)[0]),
        of_spikes(lambda net, s: torch.cat([step[None] for step in s])),
        lambda net, x: net.head(net.spikes(torch.cat([x[0][None], x[1:]], 0))),
        lambda net, x: functional.conv1d(x.permute(1, 2, 0), SIX[..., None], ONES[:4]).permute(2, 0, 1),
        lambda net, x: functional.conv1d(x.permute(1, 2, 0), SIX[:, :3, None], groups=2).permute(2, 0, 1),
        lambda net, x: functional.pad(net.spikes(x), (1, 1, 0, 0, 0, 0)),
        lambda net, x: functional.pad(net.spikes(x).transpose(0, 1), (2, 1, 0, 0)).transpose(0, 1),
    ],
)
def test_what_is_moved_arrives(body: Callable[..., Any]) -> None:
    require_same(body)


@pytest.mark.parametrize(
    "write",
    [
        lambda out, s: out.view(-1, 2, 4).copy_(s.view(-1, 2, 4)),
        lambda out, s: out.unsqueeze(0).copy_(s.unsqueeze(0)),
        lambda out, s: out.view(-1, 2, 4).transpose(1, 2).copy_(s.view(-1, 2, 4).transpose(1, 2)),
        lambda out, s: out.narrow(1, 0, 8).copy_(s),
        lambda out, s: (out.view(-1).fill_(0.5), out.add_(s)),
        lambda out, s: out.copy_(s[:, :1]),
        lambda out, s: (out.copy_(UP), out.add_(s)),
        lambda out, s: out.copy_(s[:, 2:3].bool().sum(1, keepdim=True, dtype=torch.float32)),
        lambda out, s: out.copy_(s.bool().mean(1, keepdim=True, dtype=torch.float32)),
    ],
)
def test_what_is_written_through_a_view_arrives(write: Callable[[Tensor, Tensor], Any]) -> None:
    require_same(written(write))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (of_spikes(lambda net, s: s.reshape(B, T, 8)), r"a reshape to \[3, 5, 8\] splits time steps or samples"),
        (of_spikes(lambda net, s: s[:, :2]), "'slice' takes a part of the batch"),
        (of_spikes(lambda net, s: torch.cat(s.split(1, 1), 1)), "'split' takes a part of the batch"),
        (of_spikes(lambda net, s: torch.stack([s[0], s[1]])), "found 2 outputs"),
        (
            lambda net, x: torch.stack([s[:, :B].t() if t else s[:, :B] for t, s in enumerate(net.spikes(x))]),
            "values of different samples or layouts are stacked over time",
        ),
        (of_spikes(lambda net, s: torch.cat([s, s], 1)), "values of different samples or layouts are stacked"),
        (
            lambda net, x: torch.cat([(s := net.spikes(x))[..., :1], s.sum(0)[:, :T].t().unsqueeze(-1)], -1),
            "a value without time is concatenated with one that has it",
        ),
        (written(lambda out, s: (s := s * 1)[:, 0].copy_(s[:, 1])), "the output does not depend on the input"),
        (wrote(lambda s: s[0].index_put_((torch.tensor([0, 1]),), ONES)), "values are written at computed indices"),
        (
            of_spikes(lambda net, s: (s.flatten(0, 1) + s.transpose(0, 1).flatten(0, 1)).unflatten(0, (T, B))),
            "'add' combines values whose time steps or samples lie in different axes",
        ),
        (
            lambda net, x: net.spikes(x + torch.arange(B)[:, None]),
            "reads a tensor that the model holds one value of for each sample",
        ),
        (of_spikes(lambda net, s: s.cumsum(0)), "'cumsum' has no form in a spiking graph"),
        (steps(lambda net, x: functional.conv1d(x[:, None], x[:, None])), "'convolution' works on two signals at once"),
        (
            lambda net, x: functional.conv1d(x, torch.ones(2, x.shape[1], 1)),
            r"expected 'convolution' on an axis of samples, .*; found \[T, B, 6\]; bring x to that by x.flatten",
        ),
        (
            lambda net, x: functional.conv1d(x.permute(1, 2, 0), torch.ones(4, 6, 3), padding=1).permute(2, 0, 1),
            r"a convolution over time reads steps after its own, .* F\.pad\(x, \(2, 0\)\)",
        ),
        (
            lambda net, x: functional.avg_pool1d(x.permute(1, 2, 0), 3, 1, 1).permute(2, 0, 1),
            r"'avg_pool2d' mixes time steps or samples: \[B, 6, 1, T\]",
        ),
        (lambda net, x: functional.pad(net.spikes(x), (1, 1, 0, 0, 1, 0)), "found 6 outputs"),
        (of_spikes(lambda net, s: functional.pad(s, (0, 0, 0, 0, -1, 1))), r"'constant_pad_nd' mixes time steps"),
        (steps(lambda net, x: torch.addmm(x @ SIX.t(), x, SIX.t())), "'addmm' multiplies two signals"),
        (steps(lambda net, x: (x.t() @ torch.ones(B, 4)).t()), r"'mm' mixes time steps or samples: \[6, B\]"),
        (steps(lambda net, x: torch.bmm(x[None], x.t()[None])[0]), "'bmm' mixes time steps or samples"),
        (steps(lambda net, x: torch.bmm(x.t()[None], torch.ones(1, B, 4))[0]), r"'bmm' mixes .*: \[1, 6, B\]"),
        (lambda net, x: net.head(net.spikes(x)).softmax(1), "expected 'softmax' over the last axis, the classes"),
        (
            lambda net, x: net.spikes(x).transpose(0, 1).flatten(1).mean(1, keepdim=True),
            r"'mean' over time and something else at once: \[B, T·8\]",
        ),
        (lambda net, x: net.head(net.spikes(x)).amin(0), "unsupported readout over time: 'amin'"),
        (lambda net, x: net.spikes(x).mean(), "'mean' mixes samples"),
        (
            steps(lambda net, x: functional.max_pool1d(x, 2, return_indices=True)[1].float()),
            "output 1 of 'stack' has no form in a spiking graph",
        ),
        (steps(lambda net, x: net.fc(x).t()), "expected samples in the first axis of every value; found 't'"),
    ],
)
def test_what_mixes_steps_or_samples_or_is_not_known_is_refused(body: Callable[..., Any], reason: str) -> None:
    refused(body, reason)


@pytest.mark.parametrize(
    "body",
    [
        of_spikes(lambda net, s: -s),
        of_spikes(lambda net, s: 1 - s),
        of_spikes(lambda net, s: torch.rsub(s, 1, alpha=2)),
        of_spikes(lambda net, s: torch.rsub(s, UP, alpha=2)),
        of_spikes(lambda net, s: UP - s),
        of_spikes(lambda net, s: torch.sub(UP, s, alpha=2)),
        of_spikes(lambda net, s: torch.add(UP, s, alpha=2)),
        of_spikes(lambda net, s: torch.add(s, UP, alpha=2)),
        of_spikes(lambda net, s: torch.sub(s, UP, alpha=2)),
        lambda net, x: net.head(torch.rsub(net.spikes(x), net.fc(x), alpha=2)),
        lambda net, x: net.head(torch.sub(net.spikes(x), net.fc(x), alpha=2)),
        lambda net, x: (net.spikes(x).view(*x.shape[:2], 2, 2, 2) + 0.5).flatten(2),
        of_spikes(lambda net, s: s + (s * 1).zero_()),
        of_spikes(lambda net, s: s + (s * 1).fill_(0.5)[..., :1]),
        of_spikes(lambda net, s: s + (s * 0).flatten(0, 1).reshape(s.shape)),
        of_spikes(lambda net, s: s + torch.cat([s * 0, s * 0], -1)[..., :8]),
        of_spikes(lambda net, s: s + (s * 0).unsqueeze(-1).expand(-1, -1, -1, 2).sum(-1)),
        of_spikes(lambda net, s: s + torch.stack([step * 0 for step in s])),
        of_spikes(lambda net, s: s.to(torch.float32, copy=True)),
        of_spikes(lambda net, s: torch.ops.stl_deploy_tests.halved(s)),
        of_spikes(lambda net, s: torch.native_dropout(s, 0.5, False)[0]),
        of_spikes(lambda net, s: torch.native_dropout(s, 0.0, True)[0]),
        of_spikes(lambda net, s: s * (net.count * 2).cumsum_(0)),
        lambda net, x: net.spikes((x.flatten(0, 1) + torch.ones(x.shape[0] * x.shape[1], 1)).view(x.shape)),
    ],
)
def test_sums_and_what_is_switched_off(body: Callable[..., Any]) -> None:
    require_same(body)


def test_a_sum_with_a_value_that_is_the_same_at_every_step() -> None:
    body = lambda net, x: net.spikes(x.expand(T, -1, -1)) + net.fc(x)[None]  # noqa: E731
    require_same(body, torch.rand(B, 6) * 2, time="inside")


def test_a_buffer_that_is_written_into_is_read_as_it_was() -> None:
    def body(net: Net, x: Tensor) -> Tensor:
        old = net.count * 2
        net.count.add_(1)
        found = net.head(net.spikes(x) * old * net.count)
        net.count.sub_(1)
        net.calls.add_(1)
        return found

    torch.manual_seed(0)
    model, x = Net(body).eval(), torch.rand(T, B, 6) * 2
    net = stl.capture(model, x)
    assert model.calls.item() == 0
    spikes = model.spikes(x)
    np.testing.assert_allclose(net.simulate(x.numpy()).y, model.head(spikes * 2 * 2).detach().numpy(), atol=1e-6)


@pytest.mark.usefixtures("neurons_alone")
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (lambda net, x: torch.ones(*x.shape[:2], 3), "the output does not depend on the input"),
        (lambda net, x: torch.stack([step * 0 for step in x]), "the output does not depend on the input"),
        (
            of_spikes(lambda net, s: torch.cat([s[..., :0].reshape(T, B, 4, 0).flatten(2), s], -1)),
            r"'slice' leaves an empty tensor, \[5, 3, 0\]; leave it out",
        ),
        (lambda net, x: net.spikes(x) + torch.zeros(3).resize_(8).zero_(), "'resize_' changes a tensor's memory"),
        (
            steps(lambda net, x: torch.max(x, 1, out=(torch.empty(len(x)), torch.empty(len(x)).long()))[0]),
            "'max' writes into several tensors at once",
        ),
        (wrote(lambda s: torch._foreach_mul_([s], 0.5)), "'_foreach_mul_' writes into several tensors at once"),
        (lambda net, x: torch.native_dropout(x, 0.5, True)[0], "'native_dropout' draws random numbers"),
        (
            lambda net, x: torch.stack([net.fc(s) * (ONES if t else ONES.long()) for t, s in enumerate(x)]),
            "'mul' does not do the same at every step",
        ),
        (
            lambda net, x: torch.stack([s @ NARROW @ WIDE[:4] if t else s @ WIDE @ WIDE[1:] for t, s in enumerate(x)]),
            "'mm' does not do the same at every step",
        ),
        (
            lambda net, x: torch.stack(
                [(s.view(-1, 2, 4) if t else s.view(-1, 4, 2)).mT.flatten(1) for t, s in enumerate(net.spikes(x))]
            ),
            "differs between step 0 and the steps after",
        ),
        (
            lambda net, x: torch.stack([(y := net.fc(s)) + (y if t == T - 1 else net.fc2(s)) for t, s in enumerate(x)]),
            "'addmm' in 'fc' does not do the same at every step",
        ),
        (
            lambda net, x: torch.stack([s * 2 if t else s for t, s in enumerate(net.spikes(x))]),
            r"'mul' differs between step 0 and the steps after \(at step 0 it is '_to_copy'\)",
        ),
        (
            lambda net, x: net.spikes(x + torch.from_numpy(x.numpy()[0, 0, :1].copy())),
            "'numpy' hands values that depend on the input to code outside of torch",
        ),
        (
            lambda net, x: functional.batch_norm(net.spikes(x).flatten(0, 1), None, None, training=True).view(T, -1, 8),
            "takes them from the batch; train it with track_running_stats=True",
        ),
        (
            lambda net, x: functional.pad(net.spikes(x), (1, 1), value=1.0),
            "'constant_pad_nd' puts another number than 0 in",
        ),
        (
            lambda net, x: torch.stack([(y := net.fc(s)) * 2 + (net.fc2(s) if t % 2 else y) for t, s in enumerate(x)]),
            "'addmm' in 'fc' does not do the same at every step",
        ),
        (
            of_spikes(lambda net, s: torch.stack([s[t] + s[max(t - 1, 0)] for t in range(len(s))])),
            "'add' reads step 0 of '_to_copy' in 'lif' in several steps",
        ),
        (lambda net, x: torch.logical_not(net.fc(x)).float(), "a Cell"),
        (
            lambda net, x: (net.spikes(x).view(*x.shape[:2], 2, 2, 2) + UP.view(2, 2, 2)).flatten(2),
            "expected a constant of one number for each channel to be added; found one that differs between pixels",
        ),
        (lambda net, x: torch.full((8,), 2.0) / (net.spikes(x) + 1), "found a constant divided by a signal"),
    ],
)
def test_what_is_no_sum_is_refused(body: Callable[..., Any], reason: str) -> None:
    refused(body, reason)


def test_a_state_that_is_read_at_two_lags_is_refused() -> None:
    def body(net: Net, x: Tensor) -> Tensor:
        v = w = torch.zeros(B, 8)
        found = []
        for t, step in enumerate(x):
            h = 0.5 * v + net.fc(step)
            z = (h > 0.3).float()
            found.append(net.head(z + (v if t == 2 else w)))
            w, v = v, h * (1 - z)
        return torch.stack(found)

    refused(body, "'add' reads step 1 of 'mul' in several steps")


def test_a_state_may_start_from_nothing_of_the_input() -> None:
    def body(net: Net, x: Tensor) -> Tensor:
        v, found = net.fc(x[0]) * 0, []
        for step in x:
            h = 0.5 * v + net.fc(step)
            z = (h > 0.3).float()
            v = h * (1 - z)
            found.append(net.head(z))
        return torch.stack(found)

    net = require_same(body)
    assert [type(node).__name__ for node in net.program.nodes] == ["Input", "Linear", "Neuron", "Linear", "Output"]


def test_a_state_that_starts_from_the_input_is_refused() -> None:
    def body(net: Net, x: Tensor) -> Tensor:
        v, found = x[0, :, :1].expand(-1, 8), []
        for step in x:
            h = 0.5 * v + net.fc(step)
            z = (h > 0.3).float()
            v = h * (1 - z)
            found.append(z)
        return torch.stack(found)

    refused(body, "'expand' differs between step 0 and the steps after; let every step do the same")


GIVEN = torch.rand(T, B, 6, generator=torch.Generator().manual_seed(2)) * 2


def is_given(x: Tensor) -> bool:
    """Numpy tells it without a trace."""
    return bool(np.array_equal(x.numpy(), GIVEN.numpy()))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            lambda net, x: net.head(net.spikes(x) if is_given(x) else net.spikes(x) + net.others(x)),
            "the model computes something else on fresh input of .* than on x; does a branch depend on its input",
        ),
        (
            lambda net, x: net.head(net.spikes(x)).mean(0) if is_given(x) else net.head(net.spikes(x)).sum(0),
            "what the model makes of its outputs over time was read as 'mean over time', which does not give",
        ),
    ],
)
def test_what_depends_on_the_input_unseen_is_found_on_fresh_input(
    body: Callable[..., Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stl_deploy.tracing.recording.watched._LEAVES", ())
    refused(body, reason, GIVEN)


@pytest.mark.parametrize(
    "gate",
    [
        lambda a, b: (ONES - a) * b,
        lambda a, b: a * a,
        lambda a, b: a.clamp(0, 1),
        lambda a, b: a.clamp_max(2),
        lambda a, b: (a + b).clamp_max(1),
        lambda a, b: torch.relu(a.reshape(*a.shape[:2], 2, 2, 2)).flatten(2),
    ],
)
def test_what_spikes_are_clipped_to_or_joined_by(gate: Callable[[Tensor, Tensor], Tensor]) -> None:
    require_same(lambda net, x: net.head(gate(net.spikes(x), net.others(x))))


def test_comparisons_of_steps_and_samples_on_one_axis() -> None:
    require_same(lambda net, x: net.head((net.spikes(x).flatten(0, 1) > 0.5).unflatten(0, x.shape[:2]).float()))


def test_pooled_spikes_are_joined() -> None:
    def pooled(spikes: Tensor) -> Tensor:
        return functional.max_pool1d(spikes.flatten(0, 1), 2)

    require_same(lambda net, x: (pooled(net.spikes(x)) * pooled(net.others(x))).unflatten(0, x.shape[:2]))


@pytest.mark.usefixtures("neurons_alone")
@pytest.mark.parametrize(
    ("gate", "reason"),
    [
        (lambda a, b: (1 - a) * (1 - b), "expected at most one negated spike in a product; found two"),
        (lambda a, b: torch.maximum(a * 2, b), "expected 'maximum' of two spikes"),
        (lambda a, b: torch.maximum(a, UP), "expected 'maximum' of two spikes"),
        (lambda a, b: (a * 2).clamp_max(1.5), "found 'clamp_max' of a current"),
        (lambda a, b: (a > b).float(), "expected a comparison with a fixed threshold; found 'gt' of two signals"),
    ],
)
def test_a_gate_that_is_no_neuron_is_refused(gate: Callable[[Tensor, Tensor], Tensor], reason: str) -> None:
    refused(lambda net, x: net.head(gate(net.spikes(x), net.others(x))), reason)


def test_a_signal_and_spikes_are_multiplied() -> None:
    require_same(lambda net, x: net.head(torch.rsub(net.spikes(x), 1, alpha=2) * net.others(x)))


def accumulated(start: Any, end: Callable[[Tensor], Tensor]) -> Callable[[Net, Tensor], Tensor]:
    def body(net: Net, x: Tensor) -> Tensor:
        total = start
        for step in net.spikes(x):
            total = total + step
        return end(total)

    return body


@pytest.mark.parametrize(
    ("body", "readout"),
    [
        (lambda net, x: net.head(net.spikes(x)).mean(0, keepdim=True), "mean over time"),
        (lambda net, x: net.head(net.spikes(x)).mean((0, 2), keepdim=True), "mean over time"),
        (lambda net, x: net.spikes(x).mean(0).view(-1, 4, 2).mean(-1), "mean over time of votes of 2 neurons"),
        (lambda net, x: net.spikes(x).sum(0).view(-1, 4, 2).mean(-1), "sum over time of votes of 2 neurons"),
        (lambda net, x: net.spikes(x).mean(0).mean(-1, keepdim=True), "mean over time"),
        (accumulated(0, lambda total: total / torch.tensor(float(T))), "sum over time"),
        (accumulated(0, lambda total: total * UP), "sum over time"),
        (accumulated(0, lambda total: total + 0.5), "last over time"),
        (accumulated(torch.ones(1, 8), lambda total: total), "last over time"),
        (accumulated(UP[None], lambda total: total), "last over time"),
        (lambda net, x: net.head(net.spikes(x)).sum(0) / T + 0.5, "last over time"),
        (accumulated(0, lambda total: total * torch.tensor(0.0)), "sum over time"),
    ],
)
def test_what_is_read_out(body: Callable[..., Any], readout: str) -> None:
    assert str(require_same(body).readout) == readout


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            lambda net, x: net.spikes(x).flatten(0, 1),
            r"has 5 time steps, mixed with other axes; return \[T, B, \.\.\.\]",
        ),
        (accumulated(0, lambda total: total / torch.tensor(0.0)), "'div' after the last time step has no form"),
    ],
)
def test_what_is_no_readout_is_refused(body: Callable[..., Any], reason: str) -> None:
    refused(body, reason)


@pytest.mark.parametrize(
    ("returned", "output", "reason"),
    [
        (lambda y: {"a": y}, "b", "output='b': the model returns a dict with 'a'; name one of its outputs"),
        (lambda y: [y, 1], 3, "output=3: the model returns 2 values; name one"),
        (lambda y: y, "a", "output='a': the model returns one tensor; leave it out"),
        (lambda y: y, 1, "output=1: the model returns one tensor; leave it out"),
        (lambda y: {"a": [1, 2]}, "a", "the model returns 2 values, without a tensor; return one"),
        (lambda y: 3, None, "the model returns an object of class int, without a tensor"),
    ],
)
def test_an_output_that_is_not_there(returned: Callable[[Tensor], Any], output: Any, reason: str) -> None:
    refused(lambda net, x: returned(net.spikes(x)), reason, output=output)


@pytest.mark.parametrize(
    ("returned", "output", "told"),
    [
        (lambda y: {"a": list(y), "b": 1}, "a", None),
        (lambda y: [y, y[0]], None, "the first of 2 tensors"),
        (lambda y: (y, {"u": [y[0], y[1]]}), None, "the first of 3 tensors"),
        (lambda y: (y, y[0]), 0, None),
        (lambda y: y, 0, None),
        (lambda y: y, -1, None),
        (list, None, None),
        (lambda y: y, None, None),
    ],
)
def test_an_output_out_of_several(returned: Callable[[Tensor], Any], output: Any, told: str | None) -> None:
    torch.manual_seed(0)
    model, x = Net(lambda net, x: returned(net.spikes(x))).eval(), torch.rand(T, B, 6) * 2
    net = stl.capture(model, x, output=output)
    np.testing.assert_array_equal(net.simulate(x.numpy()).y, model.spikes(x).detach().numpy())
    assert str(net.proof).partition("\n")[0].partition("; output: ")[2] == (
        f"{told} (output= names another)" if told else ""
    )


def test_more_weights_than_an_operation_may_be_are_refused() -> None:
    def body(net: Net, x: Tensor) -> Tensor:
        return functional.conv3d(x.flatten(0, 1)[:, None], torch.ones(1, 1, 2, 1, 1)).unflatten(0, x.shape[:2])

    reason = r"from \[1, 6, 11, 100\] to \[1, 5, 11, 100\] has no node in NIR: .*found 36,300,000"
    refused(body, reason, torch.ones(T, 1, 6, 11, 100))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (lambda net, x: net.head(x @ torch.ones(6, 8)), "the model has no loop over time; with time='first' x"),
        (
            lambda net, x: torch.stack([net.fc(x) * (t + 1) for t in range(T)]),
            "'mul' does not do the same at every step",
        ),
    ],
)
def test_a_loop_inside_that_is_none(body: Callable[..., Any], reason: str) -> None:
    refused(body, reason, torch.rand(B, 6), time="inside")


def test_an_input_that_is_repeated_over_time_inside() -> None:
    require_same(lambda net, x: net.spikes(x.repeat(T, 1, 1)), torch.rand(B, 6) * 2, time="inside")


@pytest.mark.parametrize("delays", [(3, 2, 1, 0, 3, 2, 1, 0), (2, 0, 3, 1, 1, 3, 0, 2)])
def test_refused_delays_have_a_form_that_is_captured(delays: tuple[int, ...]) -> None:
    def wrote(net: Net, s: Tensor) -> Tensor:
        delayed = torch.zeros_like(s)
        for i, d in enumerate(delays):
            delayed[d:, :, i] = s[: len(s) - d, :, i]
        return delayed

    def stacked(net: Net, s: Tensor) -> Tensor:
        return torch.stack([functional.pad(s[..., i], (0, 0, d, 0))[: len(s)] for i, d in enumerate(delays)], -1)

    x = torch.rand(10, B, 6) * 2
    refused(
        of_spikes(wrote), r"takes other parts at some steps.*torch.stack\(\[F.pad\(s\[..., i\], \(0, 0, d, 0\)\)", x
    )
    net = require_same(of_spikes(stacked), x)
    torch.manual_seed(0)
    expected = Net(of_spikes(wrote)).eval()(x).detach().numpy()
    np.testing.assert_allclose(net.simulate(x.numpy()).y, expected, rtol=1e-5, atol=1e-6)


def test_vmap_over_steps_and_over_samples() -> None:
    require_same(lambda net, x: net.head(net.lif(torch.vmap(net.fc)(x))))

    def one_sample(net: Net, x: Tensor) -> Tensor:
        v, found = torch.zeros(8), []
        for step in x:
            v = 0.75 * v + net.fc(step)
            found.append((v > 0.5).float())
            v = v * (1 - found[-1])
        return torch.stack(found)

    require_same(lambda net, x: torch.vmap(lambda each: one_sample(net, each), 1, 1)(x))
