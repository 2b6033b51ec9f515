"""LIF and LI in anyone's module: whole sequences, single steps, state kept inside, shapes inferred, any surrogate."""

import copy
import pickle

import pytest
import torch
from torch import nn

from stl_deploy.errors import InputError
from stl_deploy.nn.neuron import LI, LIF
from stl_deploy.nn.surrogate import surrogate


def _currents(*shape, dtype=torch.float64):
    return torch.rand(shape, dtype=dtype, generator=torch.Generator().manual_seed(0)) * 1.2


def _stepwise(layer, x):
    state, found = None, []
    for current in x:
        y, state = layer.step(current, state)
        found.append(y)
    return torch.stack(found)


@pytest.mark.push(8)
@pytest.mark.parametrize("granularity", ["neuron", "channel", "layer"])
@pytest.mark.parametrize("parametrisation", ["positive", "raw"])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("detach", [False, True])
def test_steps_are_the_sequence_and_so_are_their_gradients(granularity, parametrisation, reset, detach) -> None:
    layer = LIF(
        (3, 4),
        threshold=0.8,
        granularity=granularity,
        parametrisation=parametrisation,
        learn_decay=True,
        reset=reset,
        detach_reset=detach,
    ).double()
    x = _currents(6, 2, 3, 4).requires_grad_()
    weight = _currents(6, 2, 3, 4)
    found = []
    for run in (layer, lambda x: _stepwise(layer, x)):
        layer.zero_grad()
        spikes = run(x)
        (grad,) = torch.autograd.grad((spikes * weight).sum(), x, retain_graph=True)
        (spikes * weight).sum().backward()
        found.append(
            (spikes.detach(), grad, layer.threshold_parameter.grad.clone(), layer.decay_parameter.grad.clone())
        )
    whole, steps = found
    assert torch.equal(whole[0], steps[0])
    assert 0 < whole[0].mean() < 1
    for a, b in zip(whole[1:], steps[1:], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_float32_steps_have_the_sequence_s_bits(reset) -> None:
    layer, x = LIF((5,), threshold=0.7, decay=0.9, reset=reset), _currents(20, 8, 5, dtype=torch.float32)
    assert torch.equal(layer(x), _stepwise(layer, x))
    li = LI((5,), decay=0.9)
    assert torch.equal(li(x), _stepwise(li, x))


def test_a_stateful_layer_goes_on_until_reset() -> None:
    plain, x = LIF((5,), threshold=0.7), _currents(6, 2, 5, dtype=torch.float32)
    layer = LIF((5,), threshold=0.7, stateful=True)
    for _ in range(2):
        assert torch.equal(torch.stack([layer(current) for current in x]), plain(x))
        layer.reset()
    li = LI((5,), stateful=True)
    assert torch.equal(torch.stack([li(current) for current in x]), LI((5,))(x))


def test_a_layer_shows_what_it_is() -> None:
    assert "θ per neuron (" in repr(LIF((5,), granularity="neuron"))
    assert "(5,), β 0.5" in repr(LI((5,), decay=0.5))
    assert "β 0.5 learned" in repr(LI((5,), decay=0.5, learn_decay=True))


def test_a_shape_that_is_not_known_yet_is_refused() -> None:
    with pytest.raises(InputError, match="the shape of this LIF is not known before its first input; give it"):
        LIF().shape  # noqa: B018


def test_copies_of_a_stateful_layer_begin_at_rest_even_within_a_graph() -> None:
    layer = LIF((5,), threshold=0.7, stateful=True)
    first = layer(_currents(2, 5, dtype=torch.float32))
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(_currents(2, 5, dtype=torch.float32)), first)


@pytest.mark.parametrize(
    ("granularity", "size"), [("neuron", (3, 4, 4)), ("channel", (3, 1, 1)), ("layer", ())], ids=str
)
def test_the_shape_is_that_of_the_first_input(granularity, size) -> None:
    layer = LIF(threshold=0.6, granularity=granularity)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
    assert not layer.shape_known
    x = _currents(4, 2, 3, 4, 4, dtype=torch.float32)
    spikes = layer(x)
    assert (layer.shape, tuple(layer.threshold.shape)) == ((3, 4, 4), size)
    assert torch.equal(spikes, LIF((3, 4, 4), threshold=0.6, granularity=granularity)(x))
    spikes.sum().backward()
    optimiser.step()  # an optimiser made before knows the parameter still
    assert (layer.threshold != 0.6).any()
    with pytest.raises(InputError, match=r"expected currents \[T, B, 3, 4, 4\]; found \[4, 2, 5\]"):
        layer(torch.zeros(4, 2, 5))


@pytest.mark.parametrize("layer", [LIF((4,)), LI((4,))], ids=lambda x: type(x).__name__)
def test_a_sequence_without_steps_is_refused(layer) -> None:
    with pytest.raises(InputError, match=r"\[T, B, 4\]; found \[0, 2, 4\]"):
        layer(torch.zeros(0, 2, 4))
    assert layer(torch.zeros(3, 0, 4)).shape == (3, 0, 4)


def test_a_single_step_infers_it_too() -> None:
    layer = LIF(stateful=True)
    layer(torch.zeros(2, 3, 4, 4))
    assert layer.shape == (3, 4, 4)


def test_a_state_dict_tells_the_size_and_none_is_written_before_it_is_known() -> None:
    trained = LIF((7,), threshold=0.4)
    layer = LIF()
    with pytest.raises(InputError, match="thresholds have no number before its first input"):
        layer.state_dict()
    layer.load_state_dict(trained.state_dict())
    assert (layer.shape, layer.threshold.tolist()) == ((7,), trained.threshold.tolist())
    by_channel = LIF(granularity="channel")
    by_channel.load_state_dict(LIF((3, 4, 4), granularity="channel", threshold=0.4).state_dict())
    assert not by_channel.shape_known
    by_channel(torch.zeros(2, 1, 3, 4, 4))
    assert by_channel.threshold.flatten().tolist() == pytest.approx([0.4] * 3)


@pytest.mark.parametrize(
    ("layer", "x", "sentence"),
    [
        (
            LIF((64,)),
            torch.zeros(32, 64),
            r"expected currents \[T, B, 64\]; found \[32, 64\]; is this one step, \[B, ...\]\? its batch",
        ),
        (LIF((3, 8, 8)), torch.zeros(32, 3, 8, 8), r"its batch would be read as time: use lif.step\(x, state\)"),
        (
            LIF(),
            torch.zeros(32, 64),
            r"expected a sequence of currents \[T, B, \*shape\]; found \[32, 64\]; is this one step",
        ),
        (LIF(), torch.zeros(32, 3, 8, 8), r"no shape was given: one step \[B, C, H, W\], whose batch would be read as"),
        (LI(), torch.zeros(32, 3, 8, 8), r"for instance LI\(\(3, 8, 8\)\) or LI\(\(8, 8\)\)"),
        (
            LIF((64,), stateful=True),
            torch.zeros(5, 32, 64),
            r"expected currents \[B, 64\]; found \[5, 32, 64\]; is this a whole sequence\?",
        ),
        (LIF((64,)), torch.zeros(5, 2, 32), r"\[T, B, 64\]; found \[5, 2, 32\]; give it currents of its shape"),
        (
            LIF((64,)),
            torch.zeros(5, 2, 64, dtype=torch.int64),
            "expected currents in floating point; found torch.int64",
        ),
        (LIF(stateful=True), torch.zeros(3), r"expected currents of one step \[B, \*shape\]; found \[3\]"),
    ],
)
def test_time_and_batch_are_not_mixed_up(layer, x, sentence) -> None:
    with pytest.raises(InputError, match=sentence):
        layer(x)


def test_a_state_of_another_batch() -> None:
    layer = LIF((3,), stateful=True)
    layer(torch.zeros(2, 3))
    with pytest.raises(
        InputError, match=r"currents are \[4, 3\] and the state \[2, 3\]; one state goes with one batch"
    ):
        layer(torch.zeros(4, 3))


def test_fixed_thresholds_do_not_learn_and_tensors_are_taken() -> None:
    theta = torch.tensor([0.5, 1.0, 2.0])
    layer = LIF((3,), threshold=theta, learn_threshold=False)
    assert torch.equal(layer.threshold, theta)
    assert [name for name, p in layer.named_parameters() if p.requires_grad] == []
    raw = LIF(
        (2, 4, 4), threshold=torch.tensor([0.5, -1.0]).reshape(2, 1, 1), granularity="channel", parametrisation="raw"
    )
    assert raw.threshold.flatten().tolist() == [0.5, -1.0]


def _fast_sigmoid(x):
    return 1 / (1 + x.abs()) ** 2


class _Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad / (1 + x.abs()) ** 2


def test_a_callable_is_a_derivative_or_a_spike_function_with_one() -> None:
    x = _currents(5, 2, 4).requires_grad_()
    found = []
    for own in (_fast_sigmoid, _Straight.apply):
        layer = LIF((4,), threshold=0.6, surrogate=own).double()
        assert not layer.plain
        for run in (layer, lambda x, layer=layer: _stepwise(layer, x)):
            found.append(torch.autograd.grad(run(x).sum(), x)[0])
    for gradient in found[1:]:
        torch.testing.assert_close(gradient, found[0])
    named = LIF((4,), threshold=0.6).double()
    assert not torch.allclose(torch.autograd.grad(named(x).sum(), x)[0], found[0])


def test_a_callable_that_is_the_named_one_gives_its_gradients() -> None:
    x = _currents(5, 2, 4).requires_grad_()
    found = [
        torch.autograd.grad(LIF((4,), threshold=0.6, **how).double()(x).sum(), x)[0]
        for how in ({"surrogate_name": "sigmoid"}, {"surrogate": "sigmoid"}, {"surrogate": surrogate("sigmoid")})
    ]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"shape": (0,)}, r"expected a shape of whole sizes from 1, .*; found \(0,\)"),
        ({"shape": ()}, r"expected a shape of whole sizes from 1, .*; found \(\)"),
        ({"granularity": "pixel"}, "granularity: expected one of neuron, channel, layer; found 'pixel'"),
        ({"parametrisation": "exp"}, "parametrisation: expected one of positive, raw; found 'exp'"),
        ({"threshold": float("nan")}, "expected finite numbers as threshold; found nan"),
        (
            {"threshold": torch.ones(3)},
            r"expected as threshold a number, or a tensor that broadcasts .*; found a tensor \[3\]",
        ),
        ({"surrogate": 3}, "as surrogate; found a int"),
        ({"surrogate": lambda x: x.sum()}, "expected a surrogate that gives a tensor of its input's shape"),
        ({"surrogate": lambda x: (x > 0).float()}, "expected a surrogate with a gradient"),
        ({"surrogate": lambda x: x @ x @ x}, "fails on four numbers: "),
    ],
)
def test_bad_options(options, sentence) -> None:
    with pytest.raises(InputError, match=sentence):
        LIF(**{"shape": (4,), **options})


def test_in_a_module_of_one_s_own_it_trains() -> None:
    torch.manual_seed(0)
    net = nn.ModuleDict({"fc": nn.Linear(4, 16), "lif": LIF(threshold=0.5), "out": nn.Linear(16, 2)})
    x = torch.rand(64, 4)
    labels = (x[:, 0] > x[:, 1]).long()
    optimiser = torch.optim.Adam(net.parameters(), lr=0.03)
    losses = []
    for _ in range(60):
        out = net["out"](net["lif"](net["fc"](x).expand(5, 64, 16))).mean(0)
        loss = nn.functional.cross_entropy(out, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    assert net["lif"].threshold.std() > 0.01


@pytest.mark.parametrize(("before", "after"), [("layer", "neuron"), ("neuron", "channel")])
def test_thresholds_of_unknown_number_stay_where_the_module_is(before, after):
    """And of its type; the meta device stands for a card."""
    lif = LIF(granularity=before, parametrisation="raw").to("meta", torch.float64)
    lif.learn_thresholds(after)
    for held in (lif.threshold_init, lif.threshold_parameter):
        assert (held.device.type, held.dtype) == ("meta", torch.float64)
