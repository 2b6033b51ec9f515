"""Networks with skips and graded values train in integers that the integer model of the C program spikes exactly as."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from stl_deploy.errors import InputError, ParityError, UnsupportedError
from stl_deploy.exporters.netx.forms import run_integers
from stl_deploy.graph.program import Conv, Input, Linear, Neuron, Node, Operand, Output, Pool, Program, Reshape, Synapse
from stl_deploy.integers.graph import IntegerGraph
from stl_deploy.integers.net import WIDE, IntegerNeuron
from stl_deploy.integers.qat.fake_quant import LoihiLIF, WholeSynapse
from stl_deploy.integers.qat.graph import QuantisedGraph
from stl_deploy.integers.qat.network import require_same_integers
from stl_deploy.integers.quantise import choose
from stl_deploy.integers.step import step_through
from stl_deploy.nn.neuron import LIF

RNG = np.random.default_rng(5)


def array(*values: float) -> Any:
    return np.array(values if len(values) > 1 else values[0], np.float32)


def sources(*names: str) -> tuple[Operand, ...]:
    return tuple(Operand(name) for name in names)


def conv(name: str, reads: tuple[str, ...], before: Any, channels: int, stride: int = 1, size: float = 1.0) -> Conv:
    weight = (size * RNG.normal(0.1, 0.4, (channels, before[0], 3, 3))).astype(np.float32)
    shape = (channels, *((side - 1) // stride + 1 for side in before[1:]))
    bias = (size * RNG.normal(0, 0.1, channels)).astype(np.float32)
    return Conv(
        name=name, shape=shape, operands=sources(*reads), weight=weight, bias=bias, stride=(stride, stride),
        padding=((1, 1), (1, 1)), dilation=(1, 1), groups=1, input_shape=before,
    )  # fmt: skip


def lif(name: str, shape: Any, *reads: str, threshold: float = 0.8, decay: float = 0.6) -> Neuron:
    theta = threshold * np.linspace(0.8, 1.2, shape[0], dtype=np.float32).reshape(-1, *(1,) * (len(shape) - 1))
    return Neuron(name=name, shape=shape, operands=sources(*reads), decay=array(decay), threshold=theta)


def pool(name: str, before: Any, *reads: str, side: int = 2, divisor: int = 1) -> Pool:
    shape = (before[0], *(length // side for length in before[1:]))
    return Pool(
        name=name, shape=shape, operands=sources(*reads), kernel=(side, side), stride=(side, side),
        padding=((0, 0), (0, 0)), divisor=divisor, input_shape=before,
    )  # fmt: skip


def readout(name: str, before: Any, *reads: str, leaky: bool = True) -> list[Node]:
    flat = int(np.prod(before))
    weight = RNG.normal(0, 0.3, (3, flat)).astype(np.float32)
    nodes: list[Node] = [
        Reshape(name=f"{name}.flat", shape=(flat,), operands=sources(*reads), input_shape=before),
        Linear(
            name=name, shape=(3,), operands=sources(f"{name}.flat"), weight=weight, bias=array(0.1, 0, 0.2),
            input_shape=(flat,),
        ),
    ]  # fmt: skip
    if leaky:
        nodes.append(Neuron(name="li", shape=(3,), operands=sources(name), decay=array(0.5), threshold=None))
    return [*nodes, Output(name="output", shape=(3,), operands=sources(nodes[-1].name))]


def entry(shape: Any) -> list[Node]:
    return [Input(name="input", shape=shape, operands=())]


def spike_sums() -> list[Node]:
    """Spikes added behind neurons, their sums pooled and read by a convolution; a leaky readout."""
    maps = (4, 8, 8)
    return [
        *entry((2, 8, 8)), conv("c1", ("input",), (2, 8, 8), 4), lif("n1", maps, "c1"),
        conv("c2", ("n1",), maps, 4), lif("n2", maps, "c2"),
        pool("p", maps, "n1", "n2"), conv("c3", ("p",), (4, 4, 4), 5), lif("n3", (5, 4, 4), "c3", threshold=3),
        *readout("fc", (5, 4, 4), "n3"),
    ]  # fmt: skip


def added_before(size: float = 1.0) -> list[Node]:
    """A skip with a strided projection, added in the neuron; size: of its weights beside the other way's."""
    maps, small = (4, 8, 8), (4, 4, 4)
    return [
        *entry((2, 8, 8)), conv("c1", ("input",), (2, 8, 8), 4), lif("n1", maps, "c1"),
        conv("c2", ("n1",), maps, 4), lif("n2", maps, "c2"),
        conv("c3", ("n2",), maps, 4, stride=2), conv("skip", ("n1",), maps, 4, stride=2, size=size),
        lif("n3", small, "c3", "skip", threshold=max(1, size)), *readout("fc", small, "n3", leaky=False),
    ]  # fmt: skip


def averages(side: int = 2) -> list[Node]:
    """Averages of spikes are what a convolution reads."""
    maps, small = (4, 9, 9), (4, 9 // side, 9 // side)
    return [
        *entry((2, 9, 9)), conv("c1", ("input",), (2, 9, 9), 4), lif("n1", maps, "c1"),
        pool("p", maps, "n1", side=side, divisor=side * side), conv("c2", ("p",), small, 3),
        lif("n2", (3, *small[1:]), "c2", threshold=0.5), *readout("fc", (3, *small[1:]), "n2"),
    ]  # fmt: skip


def program(nodes: list[Node], bits: int = 0) -> Program:
    told = {"input": {"coding": "graded", "fraction_bits": bits, "max": 1.0}}
    return Program(nodes=tuple(nodes), dt=1e-4, metadata=told)


def events(one: Program, bits: int = 0, steps: int = 5, samples: int = 6) -> Any:
    levels = 2**bits
    shape = (steps, samples, *one.inputs[0].shape)
    return (RNG.integers(0, levels + 1, shape) / levels).astype(np.float32)


def train(module: QuantisedGraph, x: Any) -> tuple[float, float]:
    torch.manual_seed(0)
    labels, losses = torch.randint(0, 3, (x.shape[1],)), []
    optimiser = torch.optim.Adam(module.parameters(), lr=0.02)
    module.train()
    for _ in range(15):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(module(torch.from_numpy(x)).mean(0), labels)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    module.eval()
    return losses[0], losses[-1]


def layers_of(module: QuantisedGraph) -> dict[str, Any]:
    return {node.name: module.layer(node) for node in module.program().nodes if module.layer(node) is not None}


def spikes_of(module: QuantisedGraph, x: Any) -> tuple[Any, dict[str, Any]]:
    recorded: dict[str, Any] = {}
    for name, layer in layers_of(module).items():
        layer.register_forward_hook(lambda _layer, _arrived, y, name=name: recorded.update({name: y.numpy()}))
    with torch.no_grad():
        return module(torch.from_numpy(x)).numpy(), recorded


NETS: dict[str, Callable[[], list[Node]]] = {
    "spike sums": spike_sums,
    "projection": added_before,
    "larger projection": lambda: added_before(30.0),
    "averages": averages,
}


@pytest.mark.push(3)
@pytest.mark.parametrize("bits", [0, 4])
@pytest.mark.parametrize("name", NETS)
def test_trained_spikes_are_the_integer_model_s(name: str, bits: int) -> None:
    """The plain graph, quantised again on other input, has the trained integers and no others."""
    net = program(NETS[name](), bits)
    x = events(net, bits)
    module = QuantisedGraph(net, x)
    before, after = train(module, x)
    assert after < before
    plain = replace(net, nodes=module.program().nodes)
    other = events(net, bits, samples=40)
    y, recorded = spikes_of(module, other)
    model = choose(plain, other)
    require_same_integers(layers_of(module), model.graph)
    found = run_integers(model, other)
    assert found.spikes
    for node, spikes in found.spikes.items():
        assert 0.01 < spikes.mean() < 0.99
        np.testing.assert_array_equal(recorded[node], spikes)
    np.testing.assert_allclose(found.y, y, atol=0.02 * np.abs(y).max())  # v of the readout is whole 64ths there
    for population in model.graph.populations:
        assert population.neuron.threshold.shape == ()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda node: replace(node, neuron=replace(node.neuron, threshold=node.neuron.threshold + 1)), "threshold"),
        (lambda node: replace(node, neuron=replace(node.neuron, v_decay=node.neuron.v_decay + 1)), "decay"),
        (lambda node: replace(node, bias=np.ones((4, 1, 1), np.int32)), "bias"),
        (lambda node: replace(node, weight=node.weight + 1), "weight of 'c1'"),
    ],
)
def test_integers_other_than_the_trained_ones_are_refused(change: Callable[[Any], Node], what: str) -> None:
    net = program(spike_sums())
    x = events(net)
    module = QuantisedGraph(net, x)
    with torch.no_grad():
        layers_of(module)["c1"].bias.zero_()  # type: ignore[operator, union-attr]
    graph = choose(replace(net, nodes=module.program().nodes), x).graph
    require_same_integers(layers_of(module), graph)
    changed = "c1" if "weight" in what else "n1"
    nodes = tuple(change(node) if node.name == changed else node for node in graph.nodes)
    with pytest.raises(ParityError, match=f"'n1': the {what} of the exported integers differs"):
        require_same_integers(layers_of(module), IntegerGraph(nodes))


def test_layers_of_one_population_share_a_row_s_scale_and_threshold() -> None:
    net = program(added_before(30.0))
    module = QuantisedGraph(net, events(net))
    way, skip = layers_of(module)["c3"], layers_of(module)["skip"]
    assert way.log_threshold is skip.log_threshold
    assert skip.bias is None
    largest = [int(synapse.numbers()[0].abs().max()) for synapse in (way, skip)]  # type: ignore[operator, union-attr]
    assert largest[1] == pytest.approx(127, abs=60)
    assert largest[0] < largest[1] / 10


@pytest.mark.parametrize("ways", [1, 2])
def test_wide_sums_do_not_wrap(ways: int) -> None:
    """2,000 · 127 is past Loihi's 2^17 = 131,072; the wide accumulator, which C has, adds it up and fires."""
    like = nn.Linear(2, 1, bias=False)
    first, *others = (
        WholeSynapse(like, torch.tensor([[127.0, 0]]), None, 1.0, 1.0, 64.0, accumulator=WIDE) for _ in range(ways)
    )
    lif = LoihiLIF(LIF((1,)), 500, 64.0, 2048, WIDE).eval()
    x = torch.tensor([[2000.0, 0], [0, 0]])
    with torch.no_grad():
        spikes = lif(first(x, *((other, x) for other in others))[:, None])
    assert spikes.reshape(-1).tolist() == [1, 0]


def test_sums_of_several_layers_wrap_together() -> None:
    """Each way's sum is within u's range, and their sum is not."""
    like = nn.Linear(2, 2)
    ways = [WholeSynapse(like, torch.tensor([[100.0, 1], [-100, 1]]), None, 1.0, 1.0, 64.0) for _ in range(2)]
    lif = LoihiLIF(LIF((2,)), 500, 64.0, 4096).eval()
    x = torch.tensor([[700.0, 3.0], [600.0, 1.0], [1.0, 5.0]])  # 70,000 twice is past 2^17 = 131,072
    with torch.no_grad():
        ours = lif(ways[0](x, (ways[1], x))[:, None])
    sums = sum(x.numpy() @ way.numbers()[0].detach().numpy().T for way in ways)[:, None]
    spikes = np.empty(sums.shape, np.uint8)
    neuron = IntegerNeuron(v_decay=4096, threshold=np.array(500, np.int32))
    step_through(neuron, sums.astype(np.int32), None, spikes, bound=2**20)
    np.testing.assert_array_equal(ours.numpy(), spikes)
    assert spikes[0].tolist() == [[0, 1]]  # they came out at the other end


def without_weights() -> list[Node]:
    nodes = spike_sums()
    maps = (4, 8, 8)
    return [*nodes[:4], lif("n2", maps, "c2", "n1"), *nodes[5:]]


def with_a_pool_before_its_neurons() -> list[Node]:
    maps = (2, 8, 8)
    return [
        *entry(maps), conv("c1", ("input",), maps, 4), pool("p", (4, 8, 8), "c1"), lif("n1", (4, 4, 4), "p"),
        *readout("fc", (4, 4, 4), "n1"),
    ]  # fmt: skip


def with_a_loop() -> list[Node]:
    nodes = spike_sums()
    late = replace(nodes[3], operands=(Operand("n1"), Operand("n2", 1)))
    return [*nodes[:3], late, *nodes[4:]]


def with_one_layer_for_two() -> list[Node]:
    nodes, maps = spike_sums(), (4, 8, 8)
    return [*nodes[:5], lif("n2b", maps, "c2"), pool("p", maps, "n1", "n2", "n2b"), *nodes[6:]]


def with_a_readout(**fields: Any) -> list[Node]:
    nodes = spike_sums()
    return [replace(node, **fields) if isinstance(node, Neuron) and not node.spiking else node for node in nodes]


def test_input_of_another_shape_is_refused() -> None:
    net = program(spike_sums())
    x = torch.from_numpy(events(net))
    with pytest.raises(
        InputError, match=r"expected input \[T, B, \d+, 8, 8\] with T, B >= 1; found \[5, 6, \d+, 8, 7\]"
    ):
        QuantisedGraph(net, events(net))(x[..., :7])


@pytest.mark.parametrize(
    ("nodes", "node", "said"),
    [
        (without_weights, "n2", "a path without its own weights"),
        (with_a_pool_before_its_neurons, "p", "it stands between weights and 'n1'"),
        (with_a_loop, "c2", "it reads the step before"),
        (with_one_layer_for_two, "c2", "several populations read it"),
        (lambda: averages(3), "c2", "multiples of 0.1111, not of a power of two"),
        (lambda: with_a_readout(gain=array(2)), "li", "it is no plain leaky integrator"),
        (lambda: with_a_readout(synapse=Synapse("euler", array(0.5), None)), "li", "it has a synaptic current"),
    ],
)
def test_what_does_not_train_is_refused_by_name(nodes: Callable[[], list[Node]], node: str, said: str) -> None:
    net = program(nodes())
    with pytest.raises(UnsupportedError, match=said) as refused:
        QuantisedGraph(net, events(net))
    assert refused.value.node == node
    assert refused.value.remedy
