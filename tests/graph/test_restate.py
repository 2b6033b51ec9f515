"""Restating for a reader: what is moved where, and what is refused. That readers agree is for test_golden."""

import nir
import numpy as np
import pytest

from stl_deploy.errors import InputError, UnsupportedError
from stl_deploy.graph.check import check
from stl_deploy.graph.dialect import PRESETS, Dialect
from stl_deploy.graph.lower import lower
from stl_deploy.graph.nirfile import read_nir, write_nir
from stl_deploy.graph.readers import READERS
from stl_deploy.graph.restate import READER_TARGETS, restate
from stl_deploy.graph.run import run
from tests.graph.nets import a, bare, chain, iff, lif

STL = PRESETS["stl"]


def net(*nodes, shape=(2,), dialect=STL, **more):
    return lower(chain(list(shape), *nodes, **more), dialect)


def linear(outputs=2, inputs=2, value=0.5):
    return nir.Linear(np.full((outputs, inputs), value, np.float32))


def conv(**changes):
    fields = dict(weight=np.ones((2, 2, 2, 2), np.float32), bias=None, stride=1, padding=0, dilation=1, groups=1)
    return bare(nir.Conv2d, **{**fields, **changes})


def pool(kind=nir.AvgPool2d, padding=0):
    return bare(kind, kernel_size=np.array([2, 2]), stride=np.array([2, 2]), padding=np.array([padding, padding]))


def test_a_ge_becomes_the_next_smaller_threshold_for_gt_readers_only():
    program = net(linear(), lif((2,), r=2))
    below = np.nextafter(np.float32(1), np.float32(0))
    assert restate(program, "norse").graph.nodes["n1"].v_threshold.tolist() == [below] * 2
    assert restate(program, "spikingjelly").graph.nodes["n1"].v_threshold.tolist() == [1.0] * 2
    above = restate(net(linear(), lif((2,), r=2), dialect=Dialect()), "sinabs").graph.nodes["n1"].v_threshold
    assert above.tolist() == [np.nextafter(np.float32(1), np.float32(2))] * 2


def test_a_gain_the_reader_ignores_goes_into_the_weights():
    program = net(linear(), lif((2,), r=a(2, 6)))
    nodes = restate(program, "sinabs").graph.nodes
    assert nodes["n0"].weight.tolist() == [[0.5, 0.5], [1.5, 1.5]]
    # Norse itself multiplies by 1 - decay = 0.5.
    assert restate(program, "norse").graph.nodes["n0"].weight.tolist() == [[1, 1], [3, 3]]


def test_an_average_pool_the_reader_skips_becomes_a_sum_and_a_weight():
    program = net(pool(), conv(), iff((2, 1, 1)), shape=(2, 4, 4))
    nodes = restate(program, "norse").graph.nodes
    assert isinstance(nodes["n0"], nir.SumPool2d)
    assert (nodes["n1"].weight == 0.25).all()
    assert isinstance(restate(program, "snntorch").graph.nodes["n0"], nir.AvgPool2d)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("theta", [0.0, 0.25, 0.75])
def test_max_pooling_becomes_neurons_that_never_remember(reader, theta):
    below = nir.Threshold(a(theta))
    program = net(conv(), iff((2, 4, 4)), pool(nir.SumPool2d), below, shape=(2, 5, 5), dialect=Dialect())
    again = lower(restate(program, reader).graph)
    x = np.random.default_rng(0).random((9, 3, 2, 5, 5)) * 0.06
    expected = run(program, x, record=["n1"])
    pooled = expected.recorded["n1"].reshape(9, 3, 2, 2, 2, 2, 2).max((4, 6))
    np.testing.assert_array_equal(expected.y, pooled)
    np.testing.assert_array_equal(run(again, x).y, pooled)
    assert 0 < pooled.mean() < 1


@pytest.mark.parametrize("reader", READERS)
def test_a_restated_file_read_back_means_the_same(reader, tmp_path):
    program = net(
        conv(),
        nir.Scale(a(0.5)),
        iff((2, 3, 3)),
        nir.Flatten({"input": None}, 0, -1),
        linear(4, 18),
        iff((4,)),
        shape=(2, 4, 4),
    )
    restated = restate(program, reader)
    write_nir(restated.graph, tmp_path / "net.nir")
    again = lower(read_nir(tmp_path / "net.nir"))
    assert again.metadata["reader"] == reader
    x = np.random.default_rng(0).integers(0, 2, (6, 3, 2, 4, 4))
    np.testing.assert_array_equal(run(again, x).y, run(program, x).y)
    assert run(program, x).y.any()
    assert "nir" in restated.load


SOFT = Dialect(reset="subtract")
BY_PIXEL = lif((2, 3, 3), r=np.arange(1, 19).reshape(2, 3, 3))
GROUPED = conv(weight=np.ones((2, 1, 2, 2), np.float32), groups=2)
REFUSED = {
    "loop": ("norse", net(linear(), iff((2,)), extra=[("n1", "n1")]), "n1", "has-branches"),
    "branch": ("norse", net(linear(), iff((2,)), extra=[("input", "n1")]), "n1", "has-branches"),
    "delay": ("norse", net(nir.Delay(a(1e-4))), "n0", "no-such-layer"),
    "threshold": ("snntorch", net(linear(), nir.Threshold(a(0.5, 0.5))), "n1", "no-such-layer"),
    "potential": ("sinabs", net(linear(), bare(nir.I, r=a(1))), "n1", "no-such-layer"),
    "soft reset": ("norse", net(linear(), iff((2,)), dialect=SOFT), "n1", "reset"),
    "reset value": ("norse", net(linear(), iff((2,), v_reset=0.5)), "n1", "reset"),
    "bound": ("norse", net(linear(), iff((2,)), dialect=Dialect(v_min=-1)), "n1", "v-min"),
    "thresholds": ("snntorch", net(linear(), lif((2,), r=2, theta=a(1, 2))), "n1", "threshold-nonuniform"),
    "decays": ("spikingjelly", net(linear(), lif((2,), tau=a(2e-4, 4e-4), r=a(2, 4))), "n1", "decay-nonuniform"),
    "no decay": ("spikingjelly", net(linear(), lif((2,), tau=1e-4)), "n1", "no-memory"),
    "leak": ("sinabs", net(linear(), lif((2,), v_leak=1)), "n1", "v-leak"),
    "lif after conv": ("sinabs", net(conv(), lif((2, 3, 3)), shape=(2, 4, 4)), "n1", "lif-after-conv"),
    "gain without weights": ("norse", net(lif((2,), r=2)), "n0", "gain-ignored"),
    "gain by pixel": ("norse", net(conv(), BY_PIXEL, shape=(2, 4, 4)), "n1", "gain-ignored"),
    "scale at the end": ("norse", net(pool(), shape=(2, 4, 4)), "output", "scale-left"),
    "pool padding": ("snntorch", net(pool(padding=1), shape=(2, 4, 4)), "n0", "pool-padding"),
    "uneven padding": ("norse", net(conv(padding="same"), shape=(2, 4, 4)), "n0", "uneven-padding"),
    "groups": ("spikingjelly", net(GROUPED, shape=(2, 4, 4)), "n0", "groups"),
    "partial flatten": ("norse", net(nir.Flatten({"input": None}, 0, 1), shape=(2, 4, 4)), "n0", "partial-flatten"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_reader_cannot_hold_is_refused_by_node(case):
    reader, program, node, slug = REFUSED[case]
    with pytest.raises(UnsupportedError) as caught:
        restate(program, reader)
    assert (caught.value.node, caught.value.slug) == (node, slug)
    assert str(caught.value).startswith(f"node '{node}': {reader} ")
    assert caught.value.remedy


def test_an_unknown_reader():
    with pytest.raises(InputError, match="no reader 'nengo'; readers: snntorch, norse, spikingjelly, sinabs"):
        restate(net(linear()), "nengo")


def test_readers_can_be_asked_by_the_check():
    report = check(net(linear(), lif((2,), r=2, theta=a(1, 2))), targets=READER_TARGETS)
    assert report.targets == {
        "snntorch": "unsupported",
        "norse": "faithful",
        "spikingjelly": "unsupported",
        "sinabs": "faithful",
    }
    assert {(f.node, f.slug) for f in report.findings} == {("n1", "threshold-nonuniform")}
