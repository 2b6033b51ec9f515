"""Average pools merged into the weights behind them: the same values, exactly where the window is a power of two."""

import nir
import numpy as np
import pytest

from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.nir.dialect import PRESETS
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.graph.program import Pool
from stl_deploy.graph.run import run
from stl_deploy.passes import merge_pools as merging
from tests.fold.passed import passed
from tests.graph.nets import bare, chain, iff

SPEC = PRESETS["spec"]


def merge_pools(graph, dialect):
    return passed(merging.PASS, graph, dialect)


def pool(kernel, stride=None, padding=0, kind=nir.AvgPool2d):
    fields = dict(kernel_size=kernel, stride=stride or kernel, padding=padding)
    return bare(kind, **{key: np.array([value] * 2) for key, value in fields.items()})


def conv(rng, outputs, inputs, kernel=(3, 3), **changes):
    weight = rng.integers(-8, 9, (outputs, inputs, *kernel)).astype(np.float32) / 8
    fields = dict(stride=1, padding=0, dilation=1, groups=1, bias=rng.integers(-4, 5, outputs).astype(np.float32))
    return bare(nir.Conv2d, weight=weight, **{**fields, **changes})


def line_conv(rng):
    return nir.Conv1d(16, rng.integers(-8, 9, (3, 2, 3)).astype(np.float32) / 8, 1, 0, 1, 1, np.zeros(3, np.float32))


def dense(rng, outputs, inputs):
    return nir.Linear(rng.integers(-8, 9, (outputs, inputs)).astype(np.float32) / 8)


def equal(graph, shape):
    """The merged graph, which puts out the same for spikes."""
    found, names = merge_pools(graph, SPEC)
    assert names == ("n1",)
    before, after = lower(graph, SPEC), lower(found, SPEC)
    assert not list(after.of(Pool))
    x = np.random.default_rng(7).integers(0, 2, (3, 4, *shape)).astype(np.float32)
    np.testing.assert_array_equal(run(before, x).y, run(after, x).y)
    assert run(before, x).y.any()
    return found


CONVS = {
    "padded": (8, pool(2), dict(padding=1)),
    "strided": (8, pool(2), dict(stride=2)),
    "dilated": (12, pool(2), dict(dilation=2, padding=2)),
    "windows that overlap": (9, pool(4, 2), {}),
    "a row left over": (9, pool(2), {}),
    "padded windows": (8, pool(2, 2, 1), {}),
    "sums": (8, pool(3, kind=nir.SumPool2d), dict(kernel=(2, 2))),
    "in groups": (8, pool(2), dict(groups=2)),
}


@pytest.mark.parametrize("name", CONVS)
def test_into_a_convolution(name):
    size, before, changes = CONVS[name]
    rng = np.random.default_rng(1)
    groups = changes.get("groups", 1)
    after = conv(rng, 4, 2 // groups, **changes)
    graph = chain([2, size, size], iff((2, size, size), theta=0.5), before, after, bare(nir.I, r=np.float32(1e4)))
    equal(graph, (2, size, size))


@pytest.mark.parametrize(("size", "before"), [(6, pool(2)), (7, pool(2)), (8, pool(4, 2)), (6, pool(2, 2, 1))])
def test_into_a_dense_layer_behind_a_flatten(size, before):
    rng = np.random.default_rng(2)
    sizes = lower(chain([2, size, size], before), SPEC).by_name["n0"].shape
    layers = (before, nir.Flatten({"input": None}, 0, -1), dense(rng, 5, int(np.prod(sizes))))
    found = equal(chain([2, size, size], iff((2, size, size), theta=0.5), *layers), (2, size, size))
    assert found.nodes["n3"].weight.shape == (5, 2 * size * size)


def test_max_pooling_stays():
    threshold = nir.Threshold(np.array(0.5, np.float32))
    rng = np.random.default_rng(3)
    spikes = iff((2, 8, 8), theta=0.5)
    graph = chain([2, 8, 8], spikes, pool(2, kind=nir.SumPool2d), threshold, conv(rng, 3, 2), iff((3, 2, 2)))
    found, names = merge_pools(graph, SPEC)
    assert (names, set(found.nodes)) == ((), set(graph.nodes))


def test_what_cannot_be_merged_is_refused_by_name():
    rng = np.random.default_rng(4)
    spikes = iff((2, 9, 9), theta=0.5)
    with pytest.raises(UnsupportedError, match=r"'n1': the pool cannot be merged .*pads what its windows do not end"):
        merge_pools(chain([2, 9, 9], spikes, pool(2), conv(rng, 3, 2, padding=1), iff((3, 4, 4))), SPEC)


def _two_ways(rng):
    """A convolution that adds up a pool and the input itself."""
    nodes = {
        "input": nir.Input({"input": np.array([2, 4, 4])}),
        "spikes": iff((2, 4, 4), theta=0.5),
        "pool": pool(1),
        "conv": conv(rng, 3, 2),
        "output": nir.Output({"output": np.array([3, 2, 2])}),
    }
    edges = [("input", "spikes"), ("spikes", "pool"), ("pool", "conv"), ("input", "conv"), ("conv", "output")]
    return nir.NIRGraph(nodes, edges, type_check=False)


def _chain(*behind):
    return chain([2, 8, 8], iff((2, 8, 8), theta=0.5), pool(2), *behind)


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (_two_ways, "'conv' adds up other values, too, or takes them a step late"),
        (
            lambda rng: _chain(
                nir.Flatten({"input": None}, 1, -1), nir.Flatten({"input": None}, 0, -1), dense(rng, 5, 2 * 4 * 4)
            ),
            "it is not flattened once to one axis before 'n4'",
        ),
        (
            lambda rng: _chain(nir.Flatten({"input": None}, 1, -1), line_conv(rng)),
            "it is reshaped before 'n3'",
        ),
        (
            lambda rng: _chain(conv(rng, 3, 2, kernel=(2, 2), padding="same")),
            "its padding, or the convolution's, differs",
        ),
    ],
)
def test_a_pool_that_its_weights_cannot_take_in_is_refused(graph, reason):
    with pytest.raises(UnsupportedError, match=rf"the pool cannot be merged into the weights behind it: {reason}"):
        merge_pools(graph(np.random.default_rng(5)), SPEC)


def test_a_pool_before_neurons_stays():
    graph = _chain(iff((2, 4, 4), theta=0.5))
    found, names = merge_pools(graph, SPEC)
    assert (names, set(found.nodes)) == ((), set(graph.nodes))


BEFORE = {
    "plain": (9, {}, pool(2)),
    "padded": (8, dict(padding=1), pool(2)),
    "strided, a row left over": (10, dict(stride=2), pool(2)),
    "dilated, in groups": (12, dict(dilation=2, groups=2), pool(2)),
    "windows that overlap": (9, {}, pool(4, 2)),
    "sums": (8, dict(kernel=(2, 2)), pool(3, kind=nir.SumPool2d)),
}


@pytest.mark.parametrize("name", BEFORE)
def test_into_the_convolution_before_a_neuron(name):
    size, changes, after = BEFORE[name]
    rng = np.random.default_rng(1)
    before = conv(rng, 4, 2 // changes.get("groups", 1), **changes)
    sizes = lower(chain([2, size, size], before, after), SPEC).by_name["n1"].shape
    graph = chain([2, size, size], before, after, iff(sizes, theta=0.5))
    found, names = merge_pools(graph, SPEC)
    assert names == ("n1",)
    plain, merged = lower(graph, SPEC), lower(found, SPEC)
    assert not list(merged.of(Pool))
    x = np.random.default_rng(7).integers(0, 2, (5, 4, 2, size, size)).astype(np.float32)
    a, b = (run(program, x, double=True).y for program in (plain, merged))
    assert 0.02 < a.mean() < 0.98
    assert (a != b).mean() < 0.002
