"""The Triton kernels of the LIF scan against torch's: in Triton's interpreter on the CPU, compiled where CUDA is.

``make gpu-interpreted`` installs Triton and runs this; without Triton it is skipped.
"""

import copy
import os
import subprocess
import sys
from importlib.metadata import version

import pytest
import torch
from torch import nn

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton", reason="Triton is not installed: make gpu-interpreted")

from stl_deploy.config.schema import RunConfig
from stl_deploy.nn import cuda, fused
from stl_deploy.nn.cuda import scan
from stl_deploy.nn.cuda.scan import lif_scan as by_kernels
from stl_deploy.nn.layers import StepNorm2d
from stl_deploy.nn.lif_scan import lif_scan
from stl_deploy.nn.network import Network
from stl_deploy.nn.neuron import LIF
from stl_deploy.nn.surrogate import SURROGATES

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPE = (3, 7, 6)
CLOSE = {torch.float64: 1e-12, torch.float32: 1e-4, torch.bfloat16: 2e-2}
THETAS = {"neuron": SHAPE, "channel": (3, 1, 1), "layer": ()}


def _both(dtype, theta_shape, surrogate, *, samples=37, **resets):
    """Spikes and gradients by torch's operations on the CPU, and by the kernels."""
    torch.manual_seed(0)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    x = torch.randn(5, samples, *SHAPE).to(dtype) * 1.5
    theta, decay = torch.rand(theta_shape, dtype=wide) + 0.3, torch.tensor(0.6, dtype=wide)
    weights = torch.randn(x.shape, dtype=wide)
    results = []
    for by, device in ((lif_scan, "cpu"), (by_kernels, DEVICE)):
        leaves = [one.to(device).requires_grad_() for one in (x.clone(), theta.clone(), decay.clone())]
        spikes = by(*leaves, SURROGATES[surrogate], **resets)
        (spikes.to(wide) * weights.to(device)).sum().backward()
        results.append([spikes.detach().to(wide).cpu(), *(leaf.grad.cpu() for leaf in leaves)])
    return results


@pytest.mark.push(8)
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("surrogate", list(SURROGATES))
@pytest.mark.parametrize("granularity", list(THETAS))
def test_spikes_are_torchs_to_the_bit_and_gradients_to_rounding(granularity, surrogate, detach, soft):
    for dtype in (torch.float64, torch.bfloat16) if surrogate == "arctan" else (torch.float32,):
        (spikes, *expected), (others, *found) = _both(
            dtype, THETAS[granularity], surrogate, soft_reset=soft, detach_reset=detach
        )
        assert 0.05 < spikes.mean() < 0.95
        assert torch.equal(spikes, others)
        for gradient, other in zip(expected, found, strict=True):
            error = (gradient.double() - other.double()).abs().max() / gradient.double().abs().max()
            assert error < CLOSE[dtype]


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("samples", [0, 1, 33])
def test_any_number_of_samples(samples, soft):
    resets = dict(soft_reset=soft, detach_reset=False)
    (spikes, *_, of_decay), (others, *_, of_other) = _both(torch.float64, SHAPE, "sigmoid", samples=samples, **resets)
    assert torch.equal(spikes, others)
    torch.testing.assert_close(of_decay, of_other)


def test_a_potential_on_the_threshold_fires_so_nothing_is_contracted():
    """Thresholds where β·r + x in two roundings just reaches them, and a fused multiply-add would not."""
    torch.manual_seed(0)
    decay, first, second = torch.tensor(0.7), torch.rand(4000), torch.rand(4000) + 0.5
    theta = decay * first + second
    fused = (decay.double() * first.double() + second.double()).float()
    chosen = (fused < theta) & (first < theta)
    assert chosen.sum() > 100
    x = torch.stack([first[chosen], second[chosen]])[:, None]
    given = (x.to(DEVICE), theta[chosen].to(DEVICE), decay.to(DEVICE), SURROGATES["arctan"])
    spikes = by_kernels(*given, soft_reset=False, detach_reset=True)
    assert spikes[0].sum() == 0
    assert bool((spikes[1] == 1).all())


READOUT = [{"kind": "linear", "features": 10}, {"kind": "li"}]
NORMS = {"batch": nn.BatchNorm2d, "step": StepNorm2d}


@pytest.mark.push(8)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("norm", list(NORMS))
@pytest.mark.parametrize(("samples", "soft"), [(2, False), (37, False), (37, True)])
def test_a_norm_is_taken_in(monkeypatch, norm, dtype, samples, soft):
    """Against torch's batch norm and scan in float64; no potential is so near its threshold that rounding tells."""
    monkeypatch.setenv(cuda.SWITCH, "0")  # of `lif_scan`, which would take the kernels on a card
    torch.manual_seed(0)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    x = (torch.randn(5, samples, *SHAPE) * torch.tensor([3.0, 1.0, 0.1])[:, None, None] + 2).to(DEVICE, dtype)
    theta, decay = torch.rand(SHAPE) + 0.3, torch.tensor(0.6)
    weights = torch.randn(x.shape, dtype=torch.float64, device=DEVICE)
    ours = NORMS[norm](3, momentum=0.3)
    with torch.no_grad():
        ours.weight.copy_(torch.tensor([1.0, -0.7, 1.5]))
        ours.bias.copy_(torch.tensor([0.2, 0.0, -0.1]))
    theirs = copy.deepcopy(ours).double().to(DEVICE)
    ours = ours.to(wide).to(DEVICE)
    grads = []
    for layer, kind in ((theirs, torch.float64), (ours, wide)):
        leaves = [
            one.detach().clone().requires_grad_()
            for one in (x.double() if layer is theirs else x, theta.to(DEVICE, kind), decay.to(DEVICE, kind))
        ]
        given = dict(derivative=SURROGATES["triangular"], soft_reset=soft, detach_reset=False)
        if layer is theirs:
            currents = layer(leaves[0]) if norm == "step" else layer(leaves[0].flatten(0, 1)).view(x.shape)
            spikes = lif_scan(currents, *leaves[1:], **given)
        else:
            spikes = by_kernels(*leaves, **given, norm=layer)
            assert spikes.dtype == dtype
        (spikes.double() * weights).sum().backward()
        grads.append([spikes.double(), *(one.grad.double() for one in (*leaves, layer.weight, layer.bias))])
    (expected, *exact), (found, *others) = grads
    assert 0.05 < expected.mean() < 0.95
    assert torch.equal(expected, found)
    for gradient, other in zip(exact, others, strict=True):
        assert (gradient - other).abs().max() / gradient.abs().max() < CLOSE[dtype]
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(getattr(ours, name).double(), getattr(theirs, name).double(), rtol=1e-5, atol=1e-6)
    ours.eval(), theirs.eval()
    with torch.no_grad():
        currents = theirs(x.double()) if norm == "step" else theirs(x.double().flatten(0, 1)).view(x.shape)
        given = dict(derivative=SURROGATES["triangular"], soft_reset=soft, detach_reset=False)
        expected = lif_scan(currents, theta.to(DEVICE), decay.to(DEVICE), **given)
        found = by_kernels(x, theta.to(DEVICE), decay.to(DEVICE), **given, norm=ours)
        assert torch.equal(found.double(), expected)


@pytest.mark.parametrize("soft", [False, True])
def test_blocks_of_neurons_of_which_the_last_is_not_full(monkeypatch, soft):
    monkeypatch.setattr(scan, "_BLOCK", 64)
    test_any_number_of_samples(33, soft)
    for norm in NORMS:
        test_a_norm_is_taken_in(monkeypatch, norm, torch.float64, 5, soft)


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("training", [True, False])
def test_a_network_runs_its_norms_in_the_kernels(monkeypatch, training, reset):
    """The whole forward and backward pass of a network with a skip, by the kernels and layer by layer."""
    conv = [{"kind": "conv", "channels": 5, "padding": 1}, {"kind": "norm"}, {"kind": "lif"}]
    layers = [*conv, {"kind": "pool", "op": "sum"}, {"kind": "residual", "layers": conv}, {"kind": "flatten"}]
    ends = [{"kind": "linear", "features": 12}, {"kind": "norm", "per_step": True}, {"kind": "lif"}, *READOUT]
    config = RunConfig.model_validate(
        {"dataset": {"name": "digits", "T": 3}, "network": layers + ends, "neuron": {"reset": reset}}
    )
    torch.manual_seed(0)
    network = Network(config, (3, 8, 8), 10).to(DEVICE).double().train(training)
    x, found = torch.randn(3, 4, 3, 8, 8, device=DEVICE).double() * 3, []
    monkeypatch.setenv(fused.SWITCH, "0")
    for ready in (True, False):
        monkeypatch.setattr(cuda, "ready", lambda _, ready=ready: ready)
        one, seen = copy.deepcopy(network), []
        with torch.set_grad_enabled(training):
            one(x, lambda name, _, seen=seen: seen.append(name))
            one.load_state_dict(network.state_dict())  # running statistics moved
            y, spikes = one.record(x)
        assert ("norm1" in seen, "norm3" in seen) == (not ready, not ready)
        if training:
            y.square().sum().backward()
        found.append((spikes, {name: p.grad for name, p in one.named_parameters()}, dict(one.named_buffers())))
    (spikes, grads, buffers), (spikes2, grads2, buffers2) = found
    assert len(spikes) == 4
    for name, one in spikes.items():
        assert one.any()
        assert torch.equal(one, spikes2[name]), name
    for ours, theirs in ((grads, grads2), (buffers, buffers2)):
        for name, one in ours.items():
            assert (one is None) == (theirs[name] is None)
            if one is not None:
                torch.testing.assert_close(one, theirs[name], rtol=1e-7, atol=1e-9)


def test_a_layer_by_itself_takes_the_kernels_whatever_was_called_before(monkeypatch):
    """Also behind hooks, which leave norms to torch, and where every layer is looked at."""
    monkeypatch.setenv(fused.SWITCH, "0")
    monkeypatch.setattr(cuda, "ready", lambda _: True)
    torch.manual_seed(0)
    lif, x = LIF((7,)).to(DEVICE), torch.rand(3, 2, 7, device=DEVICE) * 2
    first = lif(x)
    assert first.any()
    assert torch.equal(lif(x), first)
    dense = [{"kind": "flatten"}, {"kind": "linear", "features": 12}, {"kind": "norm"}, {"kind": "lif"}, *READOUT]
    config = RunConfig.model_validate({"dataset": {"name": "digits", "T": 3}, "network": dense})
    network, x = Network(config, (1, 8, 8), 10).to(DEVICE), torch.rand(3, 4, 1, 8, 8, device=DEVICE)
    expected = network(x)
    assert expected.any()
    torch.testing.assert_close(network(x, every_layer=True), expected)
    network.layers["norm1"].register_forward_hook(lambda *_: None)
    torch.testing.assert_close(network(x), expected)


_COMPILED = """
import itertools
import triton
from triton import language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from stl_deploy.nn.cuda import kernels

NUMBERS = ("steps", "step", "batch", "size", "positions", "own", "samples", "rows", "each")
of_backward = ("normed", "surrogate", "soft", "detach", "learns_decay")
BOTH = (False, True)
CHOICES = [
    *(("forward", ("x", "spikes"), dict(normed=normed, soft=soft)) for normed in BOTH for soft in BOTH),
    *(
        ("backward", ("x", "grad"), dict(zip(of_backward, chosen)))
        for chosen in (
            (False, 0, False, False, True),
            (True, 1, True, True, False),
            (True, 2, True, False, True),
            (False, 3, False, True, False),
        )
    ),
    *(("sums", ("x",), dict(squares=squares)) for squares in (False, True)),
    ("norm_backward", ("x", "grad_x"), {}),
]
TYPES = ("fp32", "bf16", "fp64")
FORMS = ("unaligned", "aligned", "ones")
for card, narrow, form, (name, given, constants) in itertools.product((75, 80, 90), TYPES, FORMS, CHOICES):
    kernel, wide = getattr(kernels, name), "fp64" if narrow == "fp64" else "fp32"
    constants = constants | dict(wide=tl.float64 if wide == "fp64" else tl.float32, block=256)
    ones = NUMBERS if form == "ones" else ()
    constants |= {one: 1 for one in ones if one in kernel.arg_names}  # a number that is 1 is compiled in
    types = {one: "*" + (narrow if one in given else wide) for one in kernel.arg_names}
    types |= {one: "i32" for one in NUMBERS if one in types} | {one: "constexpr" for one in constants}
    places = [place for place, one in enumerate(kernel.arg_names) if types[one].startswith("*")]
    aligned = {(place,): [["tt.divisibility", 16]] for place in places} if form == "aligned" else {}
    source = ASTSource(kernel, types, constexprs=constants, attrs=aligned)
    made = triton.compile(source, target=GPUTarget("cuda", card, 32), options={"enable_fp_fusion": False})
    assert made.asm["cubin"]
    assert "fma" not in made.asm["ptx"] or name != "forward", (card, narrow, name, constants)
    assert "bar.sync" in made.asm["ptx"] or name != "backward"  # before potentials are loaded that others stored
    print(card, narrow, name)
"""


@pytest.mark.nightly
@pytest.mark.skipif(
    tuple(map(int, version("triton").split(".")[:2])) < (3, 3), reason="Triton before 3.3 compiles by another interface"
)
def test_every_kernel_compiles_for_cards_that_are_not_here():
    """To machine code of three generations of cards, by Triton and the assembler that it brings; no card is needed."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", _COMPILED], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) == 297


def test_whether_triton_works_is_asked_outside_of_inference_mode():
    with torch.inference_mode():
        assert cuda.works.__wrapped__(torch.device(DEVICE))


def test_a_full_card_is_not_taken_for_a_triton_that_does_not_work(monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(cuda, "lif_scan", full)
    with pytest.raises(torch.OutOfMemoryError):
        cuda.works.__wrapped__(torch.device(DEVICE))


def test_where_triton_does_not_work_torch_takes_over_with_a_warning(monkeypatch):
    device = torch.device(DEVICE)
    with torch.no_grad():
        assert cuda.works.__wrapped__(device)

    def broken(*_, **__):
        raise RuntimeError("Failed to find C compiler.")

    monkeypatch.setattr(cuda, "lif_scan", broken)
    with pytest.warns(UserWarning, match=r"kernels do not run on \w+ \(Failed to find C compiler.\): .* through torch"):
        assert not cuda.works.__wrapped__(device)


def test_the_cpu_and_unknown_surrogates_stay_with_torch():
    assert not cuda.ready(torch.zeros(1, 1, 1))
    assert cuda.knows(SURROGATES["arctan"])
    assert not cuda.knows(lambda x, *, out=None: x)
