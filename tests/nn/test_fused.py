"""The input's convolution, norm, LIF and pool as one block, against the layers one after the other in autograd."""

import itertools
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from stl_deploy.config.load import apply_overrides, load_config
from stl_deploy.errors import InputError
from stl_deploy.nn import fused
from stl_deploy.nn.fused import compile as compile_module
from stl_deploy.nn.fused import kernels, warm
from stl_deploy.nn.fused.block import block
from stl_deploy.nn.fused.input_convolution.convolution import enters, entry_block, window_moments
from stl_deploy.nn.fused.passes import Form
from stl_deploy.nn.fused.plan import stages
from stl_deploy.nn.fused.switch import works
from stl_deploy.nn.layers import StepNorm1d, StepNorm2d
from stl_deploy.nn.network import Network
from stl_deploy.nn.schedule import over_time
from stl_deploy.nn.surrogate import SURROGATES, surrogate

T, B = 4, 19  # more samples than parts, so that sums over parts of different lengths count
MAP, VECTOR = (3, 7, 6), (11,)


def _spike(derivative):
    class Spike(torch.autograd.Function):
        @staticmethod
        def forward(ctx, distance):
            ctx.save_for_backward(distance)
            return (distance >= 0).to(distance.dtype)

        @staticmethod
        def backward(ctx, grad):
            (distance,) = ctx.saved_tensors
            return grad * derivative(distance.clone())

    return Spike.apply


def _one_after_the_other(x, theta, decay, norm, form):
    """Plain loop over time, plain autograd."""
    spike = _spike(surrogate(form.surrogate))
    x = x.expand(form.steps, *x.shape[1:])
    if norm is not None:
        x = norm(x) if form.by_step else norm(x.flatten(0, 1)).unflatten(0, x.shape[:2])
    rest, spikes = 0.0, []
    for current in x:
        u = rest * decay + current
        s = spike(u - theta)
        spikes.append(s)
        rest = (1 - (s.detach() if form.detach else s)) * u
    y = torch.stack(spikes)
    return functional.max_pool2d(y.flatten(0, 1), form.pool).unflatten(0, y.shape[:2]) if form.pool > 1 else y


def _norm(kind, shape):
    if kind is None:
        return None
    kinds = {"folded": (nn.BatchNorm1d, nn.BatchNorm2d), "by step": (StepNorm1d, StepNorm2d)}
    norm = kinds[kind][len(shape) == 3](shape[0]).double()
    torch.manual_seed(3)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.normal_(norm.bias)
    return norm


def _outcome(function, x, theta, norm, form):
    """Spikes, all gradients, and what the norm remembers."""
    x, theta = x.clone().requires_grad_(), theta.clone().requires_grad_()
    decay = torch.tensor(0.625, dtype=x.dtype, requires_grad=True)  # exact in bfloat16
    y = function(x, theta, decay, norm, form)
    (y * torch.randn(y.shape, generator=torch.Generator().manual_seed(5)).bfloat16().to(y.dtype)).sum().backward()
    outcome = [y.detach(), x.grad, theta.grad, decay.grad]
    if norm is not None:
        outcome += [norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var]
        outcome += [norm.num_batches_tracked.double()]
    return outcome


CASES = [
    (shape, granularity, norm, pool, steady)
    for shape, granularity, norm, pool, steady in itertools.product(
        (VECTOR, MAP), ("neuron", "channel", "layer"), (None, "folded", "by step"), (1, 2, 3), (False, True)
    )
    if not (shape is VECTOR and (pool > 1 or granularity == "channel"))
]


@pytest.mark.push(10)
@pytest.mark.parametrize(("shape", "granularity", "norm", "pool", "steady"), CASES)
def test_block_gives_the_spikes_and_gradients_of_plain_autograd(shape, granularity, norm, pool, steady):
    torch.manual_seed(0)
    x = torch.randn(1 if steady else T, B, *shape, dtype=torch.float64) * 1.5 + 0.3
    if steady and norm == "by step":
        x = x.expand(T, *x.shape[1:]).contiguous()
    sizes = {"neuron": shape, "channel": (shape[0], *[1] * (len(shape) - 1)), "layer": ()}
    theta = torch.rand(sizes[granularity], dtype=torch.float64) + 0.5
    _compare(x, theta, norm, Form(T, shape[0], pool, norm == "by step", "arctan", False))


@pytest.mark.parametrize("norm", [None, "folded", "by step"])
@pytest.mark.parametrize("shape", [VECTOR, MAP])
def test_a_single_step(shape, norm):
    torch.manual_seed(0)
    x = torch.randn(1, B, *shape).double() * 1.5
    _compare(x, torch.rand(shape).double() + 0.5, norm, Form(1, shape[0], 1, norm == "by step", "arctan", False))


@pytest.mark.push(8)
@pytest.mark.parametrize("norm", [None, "folded", "by step"])
@pytest.mark.parametrize("granularity", ["neuron", "channel"])
@pytest.mark.parametrize(("pool", "shape"), [(1, (16, 31, 17)), (2, (16, 31, 17)), (3, (8, 50, 19)), (1, (700,))])
def test_maps_of_several_strips_and_vectors_side_by_side(pool, shape, granularity, norm):
    """Strips hold 15, 14 and 24 image rows, the last one fewer; vectors of 700 stand side by side by threes."""
    torch.manual_seed(0)
    x = torch.randn(T, 12 if len(shape) == 1 else 2, *shape).double() * 1.5
    size = shape if granularity == "neuron" else (shape[0], *[1] * (len(shape) - 1))
    _compare(x, torch.rand(size).double() + 0.5, norm, Form(T, shape[0], pool, norm == "by step", "arctan", False))


@pytest.mark.parametrize("kind", ["folded", "by step"])
def test_running_statistics_are_a_mean_over_batches_without_a_momentum(kind):
    torch.manual_seed(0)
    form, norms = Form(T, MAP[0], 1, kind == "by step", "arctan", False), [_norm(kind, MAP) for _ in range(2)]
    for _ in range(3):
        x, theta, decay = torch.randn(T, B, *MAP).double(), torch.ones(MAP).double(), torch.tensor(0.5).double()
        for norm, function in zip(norms, (block, _one_after_the_other), strict=True):
            norm.momentum = None
            function(x, theta, decay, norm, form)
    torch.testing.assert_close(norms[0].state_dict(), norms[1].state_dict())


def test_a_norm_of_one_value_is_refused_and_its_statistics_stay():
    norm, form = nn.BatchNorm1d(3), Form(1, 3, 1, False, "arctan", False)
    with pytest.raises(InputError, match=r"at least two values of each channel .* found 1 "):
        block(torch.rand(1, 1, 3), torch.ones(3), torch.tensor(0.5), norm, form)
    torch.testing.assert_close(norm.state_dict(), nn.BatchNorm1d(3).state_dict())
    for layer, steps in ((norm, 1), (StepNorm1d(3), 2)):
        with pytest.raises(InputError, match=r"at least two values of each channel .* found 1 "):
            over_time(layer, torch.rand(steps, 1, 3))
    over_time(norm, torch.rand(2, 1, 3))


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("name", SURROGATES)
def test_every_surrogate_with_the_reset_attached_or_not(name, detach):
    torch.manual_seed(0)
    x, theta = torch.randn(T, B, *MAP).double() * 1.5, torch.rand(MAP).double() + 0.5
    _compare(x, theta, None, Form(T, MAP[0], 2, False, name, detach))


def _compare(x, theta, norm, form):
    found, expected = (
        _outcome(function, x, theta, _norm(norm, x.shape[2:]), form) for function in (block, _one_after_the_other)
    )
    assert torch.equal(found[0], expected[0])
    for one, other in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_gradients_are_the_same_bits_on_any_number_of_threads():
    torch.manual_seed(0)
    x, theta = torch.randn(T, 64, 8, 16, 16).double(), torch.rand(8, 16, 16).double() + 0.5
    form, before, outcomes = Form(T, 8, 2, False, "arctan", False), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            outcomes.append(_outcome(block, x, theta, _norm("folded", (8, 16, 16)), form))
    finally:
        torch.set_num_threads(before)
    for outcome in outcomes[1:]:
        assert all(torch.equal(one, other) for one, other in zip(outcome, outcomes[0], strict=True))


def test_bfloat16_currents_meet_float32_potentials():
    torch.manual_seed(0)
    narrow = (torch.randn(T, B, *MAP) * 1.5).bfloat16()
    theta, form = torch.rand(MAP) + 0.5, Form(T, MAP[0], 2, False, "arctan", False)
    found, expected = (_outcome(block, x, theta, None, form) for x in (narrow, narrow.float()))
    assert found[0].dtype == torch.bfloat16
    assert torch.equal(found[0].float(), expected[0])
    assert torch.equal(found[1], expected[1].bfloat16())
    torch.testing.assert_close(found[2], expected[2])


def test_a_second_backward_pass_is_refused():
    x = torch.randn(T, 2, *VECTOR, requires_grad=True)
    y = block(x, torch.ones(VECTOR), torch.tensor(0.5), None, Form(T, VECTOR[0], 1, False, "arctan", False)).sum()
    y.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="ran twice"):
        y.backward()


def _behind(conv):
    """A convolution, then the layers behind it one after the other."""

    def run(x, theta, decay, norm, form):
        x = x.expand(form.steps, *x.shape[1:])
        return _one_after_the_other(conv(x.flatten(0, 1)).unflatten(0, x.shape[:2]), theta, decay, norm, form)

    return run


@pytest.mark.push(8)
@pytest.mark.parametrize("steady", [False, True])
@pytest.mark.parametrize("norm", [None, "folded", "by step"])
@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize(("bias", "sparse"), [(False, True), (True, False)])
def test_a_convolution_of_the_input_is_part_of_its_block(bias, sparse, pool, norm, steady):
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 20, (3, 2), padding=(1, 2), bias=bias).double()
    x = torch.randn(1 if steady else T, B, 2, 25, 6).double() * 2
    x = x * (torch.rand(x.shape) < 0.2) if sparse else x
    theta, form = torch.rand(20, 25, 9).double() + 0.5, Form(T, 20, pool, norm == "by step", "arctan", False)

    def entering(x, theta, decay, norm, form):
        return entry_block(x.detach(), conv, theta, decay, norm, form)

    found, expected = [], []
    for function, outcome in ((entering, found), (_behind(conv), expected)):
        conv.zero_grad()
        outcome += _outcome(function, x, theta, _norm(norm, (20, 25, 9)), form)
        outcome += [parameter.grad for parameter in conv.parameters()]
    assert torch.equal(found.pop(0), expected.pop(0))
    assert found.pop(0) is None  # the gradient of the input
    for one, other in zip(found, expected[1:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


def _entered(x, conv, norm, form, theta):
    """Spikes, and the gradients of everything learned, of a convolution in its block."""
    decay = torch.tensor(0.5, requires_grad=True)
    theta = theta.clone().requires_grad_()
    y = entry_block(x, conv, theta, decay, norm, form)
    conv.zero_grad()
    y.square().sum().backward()
    return [y.detach(), conv.weight.grad, conv.bias.grad, theta.grad, decay.grad]


def test_potentials_that_no_cache_would_hold():
    """Above some size they are written past the caches; the map's rows are no multiple of the vectors."""
    torch.manual_seed(0)
    conv, x = nn.Conv2d(1, 12, 3, padding=1), (torch.rand(4, 33, 1, 60, 51) < 0.2).float()
    theta, form = torch.rand(12, 60, 51) + 0.5, Form(4, 12, 2, False, "arctan", False)
    assert 4 * 4 * 33 * theta.numel() > kernels.FAR
    parts = [_entered(x[:, half], conv, None, form, theta) for half in (slice(16), slice(16, 33))]
    whole = _entered(x, conv, None, form, theta)
    assert torch.equal(whole[0], torch.cat([part[0] for part in parts], 1))
    for one, *halves in zip(whole[1:], *(part[1:] for part in parts), strict=True):
        torch.testing.assert_close(one, sum(halves), rtol=1e-3, atol=1e-3)


def test_a_convolution_in_its_block_gives_the_same_bits_on_any_number_of_threads():
    torch.manual_seed(0)
    conv, x = nn.Conv2d(2, 16, 3, padding=1), (torch.rand(T, B, 2, 14, 15) < 0.2).float()
    theta, form, threads = torch.rand(16, 14, 15) + 0.5, Form(T, 16, 2, False, "arctan", False), torch.get_num_threads()
    outcomes = []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            outcomes.append(_entered(x, conv, nn.BatchNorm2d(16), form, theta))
    finally:
        torch.set_num_threads(threads)
    for other in outcomes[1:]:
        assert all(torch.equal(a, b) for a, b in zip(outcomes[0], other, strict=True))


def test_bfloat16_takes_the_spikes_of_float32_from_the_input():
    torch.manual_seed(0)
    conv, x, theta = nn.Conv2d(2, 16, 3), (torch.rand(T, B, 2, 14, 15) < 0.2).float(), torch.ones(())
    form = Form(T, 16, 2, False, "arctan", False)
    exact = _entered(x, conv, nn.BatchNorm2d(16), form, theta)
    with torch.autocast("cpu", torch.bfloat16):
        short = entry_block(x, conv, theta, torch.tensor(0.5), nn.BatchNorm2d(16), form)
    assert short.dtype == torch.bfloat16
    assert torch.equal(short.float(), exact[0])


def test_the_moments_of_windows_are_those_of_all_windows():
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 5, (3, 2), padding=(1, 2)).double()
    x = torch.randn(3, B, 2, 7, 6).double() + 5
    for by_step in (False, True):
        count, mean, covariance = window_moments(x, conv, Form(3, 5, 1, by_step, "arctan", False))
        windows = functional.unfold(x.flatten(0, 1), conv.kernel_size, padding=conv.padding).transpose(0, 1)
        parts = windows.unflatten(1, (3, B)).flatten(2).transpose(0, 1) if by_step else windows.flatten(1)[None]
        assert count.tolist() == [parts.shape[2]] * len(parts)
        torch.testing.assert_close(mean, parts.mean(2))
        torch.testing.assert_close(covariance, torch.stack([torch.cov(part, correction=0) for part in parts]))


@pytest.mark.parametrize(
    ("options", "enters_a_block"),
    [
        ({}, True),
        ({"stride": 2}, False),
        ({"dilation": 2}, False),
        ({"groups": 2}, False),
        ({"padding": "same"}, False),
        ({"padding_mode": "reflect", "padding": 1}, False),
        ({"kernel_size": 5}, False),
    ],
)
def test_which_convolutions_are_part_of_a_block(options, enters_a_block):
    assert enters(nn.Conv2d(2, 4, **{"kernel_size": 3, **options})) is enters_a_block


def test_an_input_with_a_gradient_gets_it(tiny):
    torch.manual_seed(0)
    network = Network(apply_overrides(tiny, ["network.4.p=0.0"]), (1, 8, 8), 10).double()
    grads = []
    for every_layer in (False, True):
        x = torch.rand(3, 6, 1, 8, 8, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
        network(x, every_layer=every_layer).square().sum().backward()
        grads.append(x.grad)
    assert grads[0].abs().sum() > 0
    torch.testing.assert_close(*grads, rtol=1e-8, atol=1e-10)


def _trained(network, x, **options):
    network.zero_grad()
    network(x, **options).square().sum().backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("steady", [False, True])
@pytest.mark.parametrize("change", ["network.3.op=max", "network.3.op=avg", "network.1.per_step=true"])
def test_a_network_trains_alike_in_blocks_and_layer_by_layer(tiny, change, steady):
    torch.manual_seed(0)
    network = Network(apply_overrides(tiny, [change, "network.4.p=0.0"]), (1, 8, 8), 10).double()
    x = torch.rand(1 if steady else 3, 6, 1, 8, 8).double() * 3
    x = x.expand(3, *x.shape[1:])
    blocks = _trained(network, x)
    layers = _trained(network, x, every_layer=True)
    assert blocks.keys() == layers.keys()
    for name, grad in blocks.items():
        torch.testing.assert_close(grad, layers[name], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("steady", [False, True])
@pytest.mark.parametrize("mode", ["stl", "sl"])
@pytest.mark.parametrize("normed", [False, True])
def test_evaluation_agrees_with_the_layers_and_with_observed_blocks(tiny, mode, normed, steady):
    torch.manual_seed(0)
    network = Network(apply_overrides(tiny, [f"train.mode={mode}"]), (1, 8, 8), 10).double().eval()
    if not normed:  # a fixed threshold behind a synapse: no gradient, no trace, and currents that are nobody else's
        network.remove("norm1")
    x = torch.rand(1 if steady else 3, 40, 1, 8, 8).double() * 3
    x = x.expand(3, *x.shape[1:])
    seen = {}
    with torch.no_grad():
        votes = network(x)
        assert torch.equal(votes, network(x, every_layer=True))
        assert torch.equal(votes, network(x, lambda name, y: seen.setdefault(name, y)))
    assert {name: tuple(y.shape[2:]) for name, y in seen.items()} == {
        name: shape for name, shape in network.shapes.items() if name not in ("conv1", "norm1")
    }


def test_blocks_hold_the_inputs_convolution_norm_lif_and_pool(tiny):
    network = Network(tiny, (1, 8, 8), 10)
    names = [stage.name for stage in stages(network.layers, network.sources, 3, pools=True)]
    assert names == [name for name in network.layers if name not in ("conv1", "norm1", "lif1")]
    assert "lif1" in [stage.name for stage in stages(network.layers, network.sources, 3, pools=False)]


def test_neurons_with_a_soft_reset_are_left_to_torch(tiny):
    torch.manual_seed(0)
    network = Network(apply_overrides(tiny, ["neuron.reset=subtract"]), (1, 8, 8), 10).eval()
    x = torch.rand(3, 6, 1, 8, 8) * 3
    order = stages(network.layers, network.sources, 3, pools=True)
    assert [stage.name for stage in order] == list(network.layers)
    values = {"input": x}
    with torch.no_grad():
        for stage in order:
            values[stage.name] = stage.run(*(values[name] for name in stage.reads))
        assert torch.equal(values["vote"], network(x, every_layer=True))
    by_zero = Network(tiny, (1, 8, 8), 10).eval()
    by_zero.load_state_dict(network.state_dict())
    assert not torch.equal(by_zero.record(x, every_layer=True)[1]["lif1"], values["lif1"])


def test_forward_hooks_of_torch_see_their_layer(tiny):
    network, x, seen = Network(tiny, (1, 8, 8), 10).eval(), torch.rand(3, 2, 1, 8, 8), []
    plain = network(x)
    network.layers["lif1"].register_forward_hook(lambda _layer, _given, spikes: seen.append(spikes) or 1 - spikes)
    assert not torch.equal(network(x), plain)
    assert seen[0].shape == (3, 2, *network.shapes["lif1"])


def test_without_numba_it_says_so_once_and_goes_on(tiny, monkeypatch):
    fused.installed.cache_clear()
    monkeypatch.setattr(fused.install, "is_there", lambda name: name != "numba")
    network, x = Network(tiny, (1, 8, 8), 10).eval(), torch.rand(3, 2, 1, 8, 8)
    try:
        with pytest.warns(UserWarning, match=r"numba is not installed.*pip install"):
            slow = network(x)
        network(x)
    finally:
        fused.installed.cache_clear()
    monkeypatch.undo()
    np.testing.assert_array_equal(slow.detach(), network(x).detach())


def test_the_switch_turns_it_off(monkeypatch):
    assert fused.ready(torch.zeros(1))
    monkeypatch.setenv(fused.SWITCH, "0")
    assert not fused.ready(torch.zeros(1))


def test_where_compilation_fails_training_goes_on_in_torch_with_one_warning(monkeypatch):
    config = load_config("digits")
    torch.manual_seed(0)
    network = Network(config, (1, 8, 8), 10)
    x = torch.rand(4, 3, 1, 8, 8)
    with monkeypatch.context() as patch:
        patch.setenv(fused.SWITCH, "0")
        expected = network(x)

    def fail(dtype):
        raise RuntimeError("LLVM ERROR: no such\ninstruction")

    again = Network(config, (1, 8, 8), 10)
    again.load_state_dict(network.state_dict())
    monkeypatch.setattr(warm, "blocks", fail)
    works.cache_clear()
    try:
        with pytest.warns(UserWarning, match=r"failed \(LLVM ERROR: no such instruction\); going on in torch") as said:
            votes = [again(x), again(x)][1]
        assert len(said) == 1
        votes.sum().backward()
    finally:
        works.cache_clear()
    assert again.layers["conv1"].weight.grad is not None
    assert expected.shape == votes.shape


def test_a_run_compiles_nothing_that_warming_has_not():
    assert works(torch.float32)
    kept = [kernel.signatures for kernel in (kernels.forward, kernels.backward)]
    network, x = Network(load_config("digits"), (1, 8, 8), 10), torch.rand(4, 3, 1, 8, 8)
    network(x).sum().backward()
    with torch.no_grad():
        network.eval()(x)
    assert [kernel.signatures for kernel in (kernels.forward, kernels.backward)] == kept


def test_everything_is_marked_as_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(warm, "cache_folder", lambda: tmp_path)
    warm.everything(torch.float32)
    assert {mark.name for mark in tmp_path.iterdir()} == {"warm-blocks-float32", "warm-everything-float32"}


def test_compiled_code_is_kept_under_a_key_of_all_sources(tmp_path, monkeypatch):
    (tmp_path / "vectors.py").write_text("LANES = 16\n")
    monkeypatch.setattr(compile_module, "SOURCES", tmp_path)
    keys = set()
    for text in ("LANES = 16\n", "LANES = 8\n"):
        (tmp_path / "vectors.py").write_text(text)
        compile_module.sources_key.cache_clear()
        keys.add(compile_module.sources_key())
    os.utime(tmp_path / "vectors.py", (1, 1))
    compile_module.sources_key.cache_clear()
    keys.add(compile_module.sources_key())
    shutil.copytree(tmp_path, tmp_path / "clone", copy_function=shutil.copy2)
    monkeypatch.setattr(compile_module, "SOURCES", tmp_path / "clone")
    compile_module.sources_key.cache_clear()
    keys.add(compile_module.sources_key())
    compile_module.sources_key.cache_clear()
    assert len(keys) == 4


def test_without_a_place_to_write_the_temporary_folder_serves_and_then_nothing(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("")
    try:
        for variable, temporary, expected in (("NUMBA_CACHE_DIR", tmp_path, True), ("NUMBA_CACHE_DIR", file, False)):
            monkeypatch.setenv(variable, str(file))
            monkeypatch.setenv("XDG_CACHE_HOME", str(file))
            monkeypatch.setattr(compile_module.tempfile, "gettempdir", lambda place=temporary: str(place))
            compile_module.cache_folder.cache_clear()
            kept = "is kept in .*" if expected else "is compiled by each process"
            with pytest.warns(UserWarning, match=f"the compiled fast path {kept}: {file} cannot be written"):
                found = compile_module.cache_folder()
            assert (found is not None and found.is_relative_to(tmp_path)) == expected
    finally:
        monkeypatch.undo()
        compile_module.cache_folder.cache_clear()


def test_scipy_stays_unloaded_until_a_kernel_of_others_calls_it():
    """It takes half a second, and its OpenBLAS does not come back where the address space is short."""
    code = (
        "import sys, numba, numpy as np, torch\nfrom stl_deploy.nn.fused import warm\nwarm.blocks(torch.float32)\n"
        "print('scipy.linalg' in sys.modules)\nx = np.arange(6.0).reshape(2, 3)\n"
        "print(np.array_equal(numba.njit(lambda a, b: np.dot(a, b))(x, x.T), x @ x.T), 'scipy.linalg' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "False\nTrue True\n", done.stderr
