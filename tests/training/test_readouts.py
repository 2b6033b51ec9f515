"""Losses and readouts, from training over the graph to ONNX."""

from pathlib import Path

import nir
import numpy as np
import pytest
import torch
from torch.nn import functional

from stl_deploy.config.load import apply_overrides
from stl_deploy.config.schema import RunConfig, TrainConfig
from stl_deploy.data import encode, load_dataset
from stl_deploy.errors import ConfigError, UnsupportedError
from stl_deploy.exporters.netx.chain import read_chain
from stl_deploy.exporters.nir.file import read_nir, write_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.exporters.onnx.export import export_onnx
from stl_deploy.exporters.onnx.model import OnnxModel
from stl_deploy.graph.exact import prove_exact
from stl_deploy.graph.readout import accuracy
from stl_deploy.graph.run import run
from stl_deploy.nn.network import Network
from stl_deploy.nn.neuron import LI
from stl_deploy.pipeline.fold_network import fold
from stl_deploy.training.evaluate import classification_loss
from stl_deploy.training.loop import train


def _li(tiny: RunConfig, *overrides: str) -> RunConfig:
    data = tiny.model_dump(mode="json")
    data["network"][-1:] = [{"kind": "linear", "features": 10, "bias": True}, {"kind": "li"}]
    return apply_overrides(RunConfig.model_validate(data), overrides)


def test_leaky_integrator_by_hand_and_its_gradient():
    x = torch.tensor([1.0, -2.0, 4.0, 0.0]).reshape(4, 1, 1)
    assert LI((1,), decay=0.5)(x).flatten().tolist() == [1.0, -1.5, 3.25, 1.625]
    learned = LI((3,), decay=0.7, learn_decay=True).double()
    drive = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, _: learned(x), (drive, learned.decay_parameter))


def test_losses_by_hand():
    outputs = torch.tensor([[[1.0, 0.0], [0.0, 0.5]], [[0.0, 0.0], [1.0, 0.5]]])
    labels = torch.tensor([0, 1])
    scores = outputs.mean(0)
    mse = classification_loss(outputs, scores, labels, TrainConfig(loss="mse"))
    assert mse == pytest.approx((0.25 + 0 + 0.25 + 0.25) / 4)
    smooth = classification_loss(outputs, scores, labels, TrainConfig(label_smoothing=0.2))
    wanted = torch.nn.functional.one_hot(labels, scores.shape[1]) * 0.8 + 0.2 / scores.shape[1]
    assert smooth == pytest.approx(float(((scores - wanted) ** 2).mean()))
    ce = classification_loss(outputs, scores, labels, TrainConfig(loss="ce", ce_scale=2.0))
    smooth = classification_loss(outputs, scores, labels, TrainConfig(loss="ce", ce_scale=2.0, label_smoothing=0.2))
    spread = -(2 * scores).log_softmax(1)
    assert smooth == pytest.approx(0.8 * float(ce) + 0.2 * float(spread.mean()))
    assert ce == pytest.approx((np.log(1 + np.exp(-1)) + np.log(2)) / 2, rel=1e-5)
    tet = classification_loss(outputs, scores, labels, TrainConfig(loss="tet", ce_scale=2.0))
    steps = [functional.cross_entropy(2 * step, labels) for step in outputs]
    assert tet == pytest.approx(float(sum(steps) / 2))
    assert tet > ce


@pytest.mark.parametrize(("decision", "expected"), [("mean", [0, 1]), ("max", [1, 0])])
def test_mean_and_maximum_decide_differently_in_torch_and_in_the_graph(tiny, decision, expected):
    network = Network(_li(tiny, f"network.9.decision={decision}"), (1, 8, 8), 10)
    outputs = torch.zeros(3, 2, 10)
    outputs[:, 0, 0], outputs[1, 0, 1] = 0.5, 1.0
    outputs[:, 1, 1], outputs[0, 1, 0] = 0.5, 1.0
    assert network.decide(outputs).tolist() == expected
    program = lower(fold(network.eval(), coding="analog").graph)
    result = run(program, np.zeros((3, 2, 1, 8, 8), np.float32))
    decided = type(result)({"output": outputs.numpy()}, {})
    assert accuracy(program, decided, np.array(expected)) == 1
    assert accuracy(program, decided, np.array(expected[::-1])) == 0


@pytest.mark.push(2)
@pytest.mark.parametrize(
    ("readout", "loss", "beta"),
    [("vote", "ce", 0.5), ("vote", "tet", 0.5), ("li", "mse", 1.0), ("li", "ce", 0.9), ("li", "tet", 0.9)],
)
def test_trained_folded_and_exported(tiny, tmp_path: Path, readout: str, loss: str, beta: float):
    changes = [f"train.loss={loss}", "train.ce_scale=2.0", "dataset.test_fraction=0.4", "train.epochs=4"]
    config = _li(tiny, *changes, f"network.9.beta={beta}") if readout == "li" else apply_overrides(tiny, changes)
    result = train(config, tmp_path)
    assert result.test.accuracy > 0.6
    folded = fold(result.network, coding="analog", fraction_bits=4)
    write_nir(folded.graph, tmp_path / "net.nir")
    program = lower(read_nir(tmp_path / "net.nir"))
    assert all(proof.exact for proof in prove_exact(program))
    test = load_dataset(config.dataset).test
    x, labels = encode(test.images(slice(0, 200)), 3, "direct"), test.labels[:200].numpy()
    names = [node.name for node in program.spiking]
    reference = run(program, x.numpy(), record=names)
    outputs, spikes = folded.network.record(x)
    np.testing.assert_array_equal(reference.y, outputs.numpy())
    export_onnx(program, tmp_path / "net.onnx")
    onnx = OnnxModel.load(tmp_path / "net.onnx").run(x.numpy(), record=names)
    np.testing.assert_array_equal(onnx.y, reference.y)
    for name in names:
        np.testing.assert_array_equal(reference.recorded[name], spikes[name].numpy())
        np.testing.assert_array_equal(onnx.recorded[name], spikes[name].numpy())
    decided = result.network.decide(outputs).numpy()
    if readout == "vote":
        _decided_by_first_spike(config, result.network, x.numpy(), outputs.numpy(), labels)
    assert accuracy(program, onnx, labels) == pytest.approx((decided == labels).mean())
    if readout == "li":
        assert isinstance(folded.graph.nodes["li"], nir.I if beta == 1 else nir.LI)
        with pytest.raises(UnsupportedError, match="node 'li': it puts out its potential; Loihi passes spikes on"):
            read_chain(program)


def _decided_by_first_spike(config, network, x, outputs, labels):
    """The same weights with that readout: torch and graph take the class that is the first to spike."""
    first = Network(apply_overrides(config, ["network.8.decision=first"]), (1, 8, 8), 10)
    first.load_state_dict(network.state_dict())
    folded = fold(first.eval(), coding="analog", fraction_bits=4)
    decided = first.decide(torch.from_numpy(outputs)).numpy()
    spiked = outputs > 0
    earliest = np.where(spiked.any(axis=0), spiked.argmax(axis=0), len(outputs))
    for sample in range(len(decided)):
        assert earliest[sample, decided[sample]] == earliest[sample].min()
    program = lower(folded.graph)
    assert accuracy(program, run(program, x), labels) == pytest.approx((decided == labels).mean())


def test_the_ann_of_a_membrane_readout_is_linear_at_the_end(tiny):
    network = Network(_li(tiny, "train.mode=ann"), (1, 8, 8), 10)
    assert network.activations == ("lif1", "lif2")
    assert network(torch.randn(1, 5, 1, 8, 8)).min() < 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("network.8.features=9", "network.9 (li): expected one neuron for each of 10 classes as input; found 9"),
        ("network.8={kind: lif}", "network.9 (li): the membrane readout integrates weighted spikes"),
        (
            "neuron.learn_decay=true",
            "network.9 (li): expected a number between 0 and 1, ends excluded as decay; found 1.0",
        ),
    ],
)
def test_a_readout_that_does_not_fit_is_named(tiny, override, message):
    with pytest.raises(ConfigError) as caught:
        Network(_li(tiny, "network.9.beta=1.0", override), (1, 8, 8), 10)
    assert str(caught.value).startswith(message)
