import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional

from stl_deploy.config.load import apply_overrides, config_of
from stl_deploy.config.schema import RunConfig
from stl_deploy.errors import ConfigError, InputError
from stl_deploy.nn.layers import StepNorm2d
from stl_deploy.nn.network import Network


def _network(tiny: RunConfig, *overrides: str, shape=(1, 8, 8)) -> Network:
    torch.manual_seed(0)
    return Network(apply_overrides(tiny, overrides), shape, 10)


def test_names_shapes_and_default_granularity(tiny):
    network = _network(tiny)
    assert network.shapes == {
        "conv1": (4, 8, 8),
        "norm1": (4, 8, 8),
        "lif1": (4, 8, 8),
        "pool1": (4, 4, 4),
        "dropout1": (4, 4, 4),
        "flatten1": (64,),
        "linear1": (20,),
        "lif2": (20,),
        "vote": (10,),
    }
    assert {n: tuple(t.shape) for n, t in network.thresholds().items()} == {"lif1": (4, 1, 1), "lif2": (20,)}


def test_forward_equals_the_network_written_out(tiny):
    network = _network(tiny, "neuron.threshold=0.3").eval()
    x = 20 * torch.rand(3, 5, 1, 8, 8)
    layers = network.layers
    v1, v2, votes = torch.zeros(5, 4, 8, 8), torch.zeros(5, 20), []
    for step in x:
        v1 = 0.5 * v1 + layers["norm1"](layers["conv1"](step))
        s1 = (v1 >= layers["lif1"].threshold).float()
        v1 = v1 * (1 - s1)
        v2 = 0.5 * v2 + layers["linear1"](functional.max_pool2d(s1, 2).flatten(1))
        s2 = (v2 >= layers["lif2"].threshold).float()
        v2 = v2 * (1 - s2)
        votes.append(s2.reshape(5, 10, 2).mean(2))
    with torch.no_grad():
        assert torch.equal(network(x), torch.stack(votes))
    assert torch.stack(votes).count_nonzero() > 20


def test_record_gives_every_lif_and_pool(tiny):
    network = _network(tiny).eval()
    x = 20 * torch.rand(3, 2, 1, 8, 8)
    votes, recorded = network.record(x)
    assert {n: tuple(r.shape) for n, r in recorded.items()} == {
        "lif1": (3, 2, 4, 8, 8),
        "pool1": (3, 2, 4, 4, 4),
        "lif2": (3, 2, 20),
    }
    assert torch.equal(votes, network(x))
    assert set(torch.cat([r.flatten() for r in recorded.values()]).tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("mode", ["stl", "sl", "tl", "ann"])
def test_what_each_mode_learns(tiny, mode):
    network = _network(tiny, f"train.mode={mode}", "neuron.learn_decay=true")
    thresholds = {"layers.lif1.threshold_parameter", "layers.lif2.threshold_parameter"}
    decays = {"layers.lif1.decay_parameter", "layers.lif2.decay_parameter"}
    weights = {"layers.conv1.weight", "layers.norm1.weight", "layers.norm1.bias", "layers.linear1.weight"}
    expected = {"stl": weights | thresholds | decays, "sl": weights | decays, "tl": thresholds, "ann": weights}[mode]
    network(torch.rand(3, 4, 1, 8, 8)).sum().backward()
    moved = {n for n, p in network.named_parameters() if p.grad is not None}
    assert moved == {n for n, p in network.named_parameters() if p.requires_grad} == expected


def test_ann_is_the_same_net_with_relu(tiny):
    network = _network(tiny, "train.mode=ann").eval()
    assert isinstance(network.layers["lif1"], nn.ReLU)
    assert isinstance(network.layers["lif2"], nn.Identity)
    assert network.activations == ("lif1",)
    assert network(torch.randn(1, 5, 1, 8, 8)).min() < 0
    spiking = _network(tiny)
    assert torch.equal(network.layers["conv1"].weight, spiking.layers["conv1"].weight)
    assert network.shapes == spiking.shapes


def test_norm_per_step_takes_each_steps_statistics(tiny):
    x = torch.randn(3, 6, 1, 8, 8) + torch.arange(3.0).reshape(3, 1, 1, 1, 1)
    seen = {}
    for per_step in ("true", "false"):
        network = _network(tiny, f"network.1.per_step={per_step}")
        network(x, lambda name, y, key=per_step: seen.setdefault((key, name), y.detach()), every_layer=True)
        norm = network.layers["norm1"]
        assert int(norm.num_batches_tracked) == (3 if per_step == "true" else 1)
        network.eval()
        before = norm.running_mean.clone()
        network(x)
        assert torch.equal(norm.running_mean, before)
    conv = seen["true", "conv1"]
    by_step = torch.stack([functional.batch_norm(step, None, None, training=True) for step in conv])
    folded = functional.batch_norm(conv.flatten(0, 1), None, None, training=True).reshape(conv.shape)
    torch.testing.assert_close(seen["true", "norm1"], by_step)
    torch.testing.assert_close(seen["false", "norm1"], folded)
    assert not torch.allclose(by_step, folded, atol=1e-2)


@pytest.mark.parametrize("op", ["avg", "sum"])
def test_other_pools(tiny, op):
    network = _network(tiny, f"network.3.op={op}").eval()
    _, recorded = network.record(20 * torch.rand(3, 2, 1, 8, 8))
    windows = recorded["lif1"].reshape(3, 2, 4, 4, 2, 4, 2).sum((4, 6))
    assert recorded["lif1"].any()
    assert torch.equal(recorded["pool1"], windows / (4 if op == "avg" else 1))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("network.0.kernel=11", "network.0 (conv): kernel 11 with padding 1 does not fit into 1x8x8"),
        (
            "network.0={kind: conv, channels: 1000000, kernel: 900, padding: 900}",
            "network.0 (conv): expected at most 536,870,912 weights; found 810,000,000,000",
        ),
        (
            "network.0={kind: conv, channels: 1000000, kernel: 1, padding: 900}",
            "network.0 (conv): expected at most 536,870,912 outputs per sample; found 3,268,864,000,000",
        ),
        ("network.3.kernel=9", "network.3 (pool): kernel 9 does not fit into 4x8x8"),
        ("network.5={kind: dropout}", "network.6 (linear): expected an input of one axis; found 4x4x4; put a flatten"),
        ("network.6.features=21", "network.8 (vote): the input is 21; 10 classes of 2 neurons need 20"),
        ("network.0={kind: flatten}", "network.1 (norm): a norm folds into the conv or linear right before it"),
        ("network.2={kind: dropout}", "network.3 (pool): max pooling of values that are not spikes cannot be deployed"),
        ("network.7={kind: dropout}", "network.8 (vote): votes are counted from spikes; put the vote right after"),
        (
            "network.8={kind: dropout}",
            "network.8: the last layer is not a readout; end with a lif and a vote,",
        ),
        ("network.5={kind: vote}", "network.5 (vote): votes are counted from spikes"),
        (
            "network.6={kind: conv, channels: 2}",
            "network.6 (conv): expected an input of channels x height x width; found 64",
        ),
        ("neuron.threshold=-1", "network.2 (lif): initial threshold -1 with jitter 0 gives a threshold <= 0"),
        ("network.2.beta=1", None),
    ],
)
def test_layers_that_do_not_fit_are_named(tiny, override, message):
    if message is None:
        _network(tiny, override)
        return
    with pytest.raises(ConfigError) as caught:
        _network(tiny, override)
    assert str(caught.value).startswith(message)


def test_a_vgg_block_is_its_layers_written_out(tiny):
    text = """
dataset: {name: cifar10, T: 2}
network:
  - {kind: vgg, channels: 4, convs: 2, per_step: true}
  - {kind: vgg, channels: 6, convs: 1, kernel: 5, pool: none}
  - {kind: vgg, channels: 3, convs: 1, pool: avg}
  - {kind: flatten}
  - {kind: linear, features: 20}
  - {kind: lif}
  - {kind: vote, population: 2}
"""
    config = config_of(yaml.safe_load(text))
    network = Network(config, (3, 32, 32), 10)
    kinds = [name.rstrip("0123456789") for name in network.layers]
    one = ["conv", "norm", "lif"]
    assert kinds == [*one, *one, "pool", *one, *one, "pool", "flatten", "linear", "lif", "vote"]
    assert (network.shapes["pool1"], network.shapes["lif3"], network.shapes["pool2"]) == (
        (4, 16, 16),
        (6, 16, 16),
        (3, 8, 8),
    )
    assert isinstance(network.layers["norm2"], StepNorm2d)
    assert not isinstance(network.layers["norm3"], StepNorm2d)
    assert isinstance(network.layers["pool2"], torch.nn.AvgPool2d)
    assert network.layers["conv3"].kernel_size == (5, 5)
    torch.manual_seed(0)
    network(torch.rand(2, 3, 3, 32, 32)).sum().backward()
    with pytest.raises(ConfigError, match=r"network\.0\.kernel': 4 is even; maps keep their size behind odd kernels"):
        apply_overrides(config, ["network.0.kernel=4"])
    with pytest.raises(ConfigError, match=r"^network\.2 \(pool\): kernel 2 does not fit into 3x1x1"):
        Network(config, (3, 2, 2), 10)


def test_nothing_comes_after_the_vote(tiny):
    data = tiny.model_dump(mode="json")
    data["network"].append({"kind": "dropout"})
    with pytest.raises(ConfigError, match=r"network\.9 \(dropout\): a layer after the vote"):
        Network(RunConfig.model_validate(data), (1, 8, 8), 10)


def test_input_of_another_shape_is_refused(tiny):
    with pytest.raises(InputError, match=r"expected input \[T, B, 1, 8, 8\] with T, B >= 1; found \[3, 2, 8, 8\]"):
        _network(tiny)(torch.rand(3, 2, 8, 8))
