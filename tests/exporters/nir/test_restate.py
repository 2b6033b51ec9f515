"""Restating for a reader: what is moved where, and what is refused. That readers agree is for test_golden."""

from dataclasses import replace

import nir
import numpy as np
import pytest

from stl_deploy.errors import InputError, UnsupportedError
from stl_deploy.exporters.nir.check import check
from stl_deploy.exporters.nir.dialect import PRESETS, Dialect
from stl_deploy.exporters.nir.file import read_nir, write_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.exporters.nir.readers.reading_rules import READERS
from stl_deploy.exporters.nir.readers.restate import READER_TARGETS, restate
from stl_deploy.graph.run import run
from tests.graph.nets import a, bare, chain, graph, iff, lif
from tests.refusals import refuses

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


def test_values_that_differ_by_channel_are_written_once_for_each_where_the_reader_takes_no_more():
    theta = np.broadcast_to(a(1, 3)[:, None, None], (2, 3, 3))
    program = net(conv(), lif((2, 3, 3), r=2, theta=theta), shape=(2, 4, 4))
    node = restate(program, "sinabs").graph.nodes["n1"]
    assert node.v_threshold.tolist() == [[[1]], [[3]]]
    assert {field.shape for field in (node.tau, node.r, node.v_leak)} == {(2, 1, 1)}


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


def branches(neuron=iff):
    """n0 -> n1 -> n3, and beside it n0 -> side -> n3."""
    extra = [("n0", "side"), ("side", "n2")]
    return net(neuron((2,)), linear(), neuron((2,)), side=linear(), extra=extra)


def dead_end():
    """A layer that nothing reads, listed first."""
    ends = {"input": nir.Input(np.array([2])), "output": nir.Output(np.array([2]))}
    edges = [("input", "dead"), ("input", "n0"), ("n0", "n1"), ("n1", "output")]
    return lower(graph({**ends, "n0": linear(), "n1": iff((2,)), "dead": linear()}, edges), STL)


def looped(back, dialect=PRESETS["snntorch_zero"], **neuron):
    """A neuron that reads its own spikes through ``back``, late where they leave it."""
    return net(linear(), iff((2,), **neuron), back=back, extra=[("n1", "back"), ("back", "n1")], dialect=dialect)


def test_edges_come_in_an_order_in_which_every_reader_runs_them():
    """Norse runs what it meets: the long way past a skip connection must come first, a loop before what follows it."""
    skip = restate(net(iff((2,)), linear(), iff((2,)), extra=[("n0", "n2")]), "norse").graph
    assert skip.edges.index(("n0", "n1")) < skip.edges.index(("n0", "n2"))
    loop = restate(looped(linear(), dialect=STL), "norse").graph
    assert loop.edges.index(("n1", "back")) < loop.edges.index(("n1", "output"))


def test_a_skip_connection_gets_weights_of_its_own_for_a_gain():
    program = net(linear(), lif((2,), r=a(2, 6)), extra=[("input", "n1")])
    nodes = restate(program, "snntorch").graph.nodes
    assert nodes["input_to_n1"].weight.tolist() == [[1, 0], [0, 3]]
    assert nodes["n0"].weight.tolist() == [[0.5, 0.5], [1.5, 1.5]]
    images = net(conv(), iff((2, 3, 3), r=2e4), iff((2, 3, 3), r=2e4), extra=[("n0", "n2")], shape=(2, 4, 4))
    between = restate(images, "snntorch").graph.nodes["n1_to_n2"]
    assert (between.groups, between.weight[:, :, 0, 0].tolist()) == (1, [[2, 0], [0, 2]])
    assert "n1_to_n2" in restate(images, "spikingjelly").graph.nodes


@pytest.mark.parametrize("reader", ["snntorch", "norse", "spikingjelly", "sinabs"])
def test_a_grouped_convolution_is_written_without_groups(reader, tmp_path):
    """nir 1.0.8 reads no grouped convolution behind as many channels as it needs; without groups it does."""
    weight = np.arange(1, 33, dtype=np.float32).reshape(4, 2, 2, 2)
    program = net(conv(weight=weight, groups=2), iff((4, 3, 3), r=1e4, theta=30), shape=(4, 4, 4))
    restated, load = restate(program, reader).graph, restate(program, reader).load
    assert (restated.nodes["n0"].groups, restated.nodes["n0"].weight.shape) == (1, (4, 4, 2, 2))
    assert "type_check" not in load
    write_nir(restated, tmp_path / "net.nir")
    nir.read(tmp_path / "net.nir")
    x = np.random.default_rng(0).integers(0, 2, (5, 3, 4, 4, 4)).astype(np.float32)
    there = run(lower(read_nir(tmp_path / "net.nir")), x).y
    assert there.any()
    np.testing.assert_array_equal(there, run(program, x).y)


def test_the_printed_line_reads_what_nir_would_not(tmp_path):
    """nir 1.0.8 takes both sides of a kernel for the first, so it refuses a sound graph unless told not to check."""
    program = net(conv(weight=np.ones((2, 2, 1, 2), np.float32)), iff((2, 4, 3)), shape=(2, 4, 4))
    restated = restate(program, "norse")
    write_nir(restated.graph, tmp_path / "net.nir")
    with pytest.raises(ValueError, match="Type inference"):
        nir.read(tmp_path / "net.nir")
    nir.read(tmp_path / "net.nir", type_check=False)
    load, _ = restated.load.splitlines()
    assert load == 'net = norse.torch.from_nir(nir.read("net.nir", type_check=False), dt=2**-10)'


def test_norse_starts_where_it_leaks_to():
    """Norse's neurons begin at v_leak, so what begins elsewhere is refused, and what does is read back as such."""
    drive = net(linear(), lif((2,), r=2, v_leak=0.5, theta=0.75))
    with pytest.raises(
        UnsupportedError, match=r"'n1': norse starts at v_leak; train with potentials that start at v_leak"
    ):
        restate(drive, "norse")
    at_leak = net(linear(), lif((2,), r=2, v_leak=0.5, theta=0.75), dialect=Dialect(start="v_leak"))
    restated = restate(at_leak, "norse").graph
    assert restated.nodes["n1"].v_leak.tolist() == [0.5, 0.5]
    back = lower(restated)
    assert back.by_name["n1"].v_start is not None
    x = np.full((3, 1, 2), 0.125, np.float32)
    np.testing.assert_array_equal(run(back, x).y, run(at_leak, x).y)


def test_spikingjelly_takes_a_reset_value():
    settings = dict(theta=0.75, v_reset=-0.5, v_leak=-0.5)
    program = net(linear(), lif((2,), r=2, **settings), dialect=Dialect(start="v_reset", compare="ge"))
    node = restate(program, "spikingjelly").graph.nodes["n1"]
    assert (node.v_reset.tolist(), node.v_leak.tolist()) == ([-0.5] * 2, [-0.5] * 2)
    with refuses("start", where="n1"):
        restate(net(linear(), lif((2,), r=2, **settings)), "spikingjelly")
    with pytest.raises(UnsupportedError, match="leaks to v_reset"):
        restate(net(linear(), lif((2,), r=2, v_reset=-0.5), dialect=Dialect(start="v_reset")), "spikingjelly")


def test_weights_that_two_layers_read_stay_as_they_are():
    program = net(linear(), lif((2,), r=4), iff((2,)), extra=[("n0", "n2")])
    nodes = restate(program, "snntorch").graph.nodes
    assert nodes["n0"].weight.tolist() == [[0.5, 0.5]] * 2
    assert nodes["n0_to_n1"].weight.tolist() == [[2, 0], [0, 2]]


def test_weights_of_a_layer_of_its_own_take_a_name_that_is_free():
    taken = dict(n0_to_n1=linear(), extra=[("n0", "n2"), ("n0", "n0_to_n1"), ("n0_to_n1", "n2")])
    nodes = restate(net(linear(), lif((2,), r=4), iff((2,)), **taken), "snntorch").graph.nodes
    assert nodes["n0_to_n1"].weight.tolist() == [[0.5, 0.5]] * 2
    assert nodes["n0_to_n1_"].weight.tolist() == [[2, 0], [0, 2]]


@pytest.mark.parametrize("reader", ["snntorch", "norse", "spikingjelly"])
def test_a_loop_that_is_late_where_spikes_leave_is_written_late_where_it_closes(reader):
    program = looped(nir.Linear(a(1, -1, 0.5, 0).reshape(2, 2)), dialect=Dialect(compare="ge", loop="neuron_output"))
    assert [source.delay for source in program.by_name["back"].operands] == [1]
    again = lower(restate(program, reader).graph)
    assert [source.delay for source in again.by_name["n1"].operands] == [0, 1]
    x = np.random.default_rng(0).integers(0, 3, (9, 4, 2))
    np.testing.assert_array_equal(run(again, x).y, run(program, x).y)


def test_snntorch_does_not_see_a_loop_of_one_dense_layer():
    """It takes such a pair for its RLeaky, and wires that wrongly."""
    written = restate(looped(linear(), dialect=STL), "snntorch").graph
    assert ("n1", "back") not in written.edges
    assert isinstance(written.nodes["n1_to_back"], nir.Flatten)
    assert ("n1", "back") in restate(looped(linear(), dialect=STL), "spikingjelly").graph.edges


@pytest.mark.parametrize(
    ("reader", "reason"),
    [
        ("snntorch", "and stl-deploy would not agree on when it takes what comes from 'n3'"),
        ("norse", "would take what comes from 'n3' in the same step, not a later one"),
    ],
)
def test_an_edge_that_two_would_time_differently_is_refused(reader, reason):
    """Spikes come back to a layer that reads the input, too, and leads to them on two ways."""
    extra = [("n0", "n3"), ("n3", "n0")]
    program = net(nir.Scale(a(0.5)), linear(), linear(), iff((2,)), extra=extra, dialect=Dialect())
    with pytest.raises(UnsupportedError, match=f"node 'n1': {reader} {reason}; export to ONNX, or use a chain"):
        restate(program, reader)


def test_every_node_that_a_reader_cannot_hold_is_named():
    program = net(linear(), lif((2,), r=2, v_leak=1), nir.Delay(a(1e-4)), iff((2,), v_reset=0.5), bare(nir.I, r=a(1)))
    report = check(program, targets={"sinabs": READER_TARGETS["sinabs"]})
    found = {(f.node, f.slug) for f in report.findings if f.target == "sinabs"}
    assert found == {("n1", "v-leak"), ("n2", "no-such-layer"), ("n3", "reset"), ("n4", "no-such-layer")}
    assert {n.node for n in report.nodes if n.targets["sinabs"] == "unsupported"} == {"n1", "n2", "n3", "n4"}


@pytest.mark.slow
@pytest.mark.parametrize("node", [nir.Scale(a(1)), nir.Flatten({"input": None}, 0, -1), linear(), iff((2,))])
def test_readers_are_asked_about_thousands_of_nodes(node):
    report = check(net(linear(), iff((2,)), *[node] * 2000, linear(), iff((2,))), targets=READER_TARGETS)
    assert not {f.slug for f in report.findings} & {"unexpected"}
    assert set(report.targets.values()) == {"faithful"}


def cuba(**changes):
    """Decays of 0.5, gains of 1 but for those of the second neuron."""
    two = dict(tau_syn=a(2e-4, 2e-4), tau_mem=a(2e-4, 2e-4), r=a(2, 4), w_in=a(2, 8), v_leak=a(0, 0))
    return bare(nir.CubaLIF, **{**two, "v_threshold": a(1, 1), "v_reset": a(0, 0), **changes})


@pytest.mark.parametrize("reader", ["snntorch", "norse", "spikingjelly"])
def test_currents_keep_their_gains(reader):
    """Norse reads them; for the others the one of the current and the one of the potential go into the weights."""
    program = net(linear(), cuba(r=a(4, 4)))
    restated = restate(program, reader).graph
    assert restated.nodes["n0"].weight.tolist() == ([[0.5] * 2] * 2 if reader == "norse" else [[1] * 2, [4] * 2])
    again = lower(restated)
    x = np.random.default_rng(0).integers(0, 2, (20, 4, 2))
    assert 0 < run(program, x).y.mean() < 1
    np.testing.assert_array_equal(run(again, x).y, run(program, x).y)


SOFT = Dialect(reset="subtract")
BY_PIXEL = lif((2, 3, 3), r=np.arange(1, 19).reshape(2, 3, 3))
THETA_BY_PIXEL = lif((2, 3, 3), r=2, theta=np.arange(1, 19).reshape(2, 3, 3))
REFUSED = {
    "loop": ("sinabs", net(linear(), iff((2,)), extra=[("n1", "n1")]), "n1", "loop"),
    "branch": ("norse", branches(), "n2", "edge-timing"),
    "bias in a loop": ("norse", looped(nir.Affine(np.eye(2, dtype=np.float32), a(1, 1))), "back", "edge-timing"),
    "dead end": ("norse", dead_end(), "dead", "not-the-output"),
    "two inputs": ("norse", net(linear(), z=nir.Input(np.array([2])), extra=[("z", "n0")]), "input", "several-ports"),
    "two ends": ("snntorch", net(linear(), linear(), extra=[("n0", "output")]), "output", "several-ends"),
    "the same twice": ("snntorch", net(nir.Scale(a(0.5)), iff((2,)), extra=[("input", "n1")]), "n1", "edge-twice"),
    "scales": (
        "norse",
        net(pool(), conv(), n=pool(nir.SumPool2d), extra=[("input", "n"), ("n", "n1")], shape=(2, 4, 4)),
        "n1",
        "scales-differ",
    ),
    "delay": ("norse", net(nir.Delay(a(1e-4))), "n0", "no-such-layer"),
    "threshold": ("snntorch", net(linear(), nir.Threshold(a(0.5, 0.5))), "n1", "no-such-layer"),
    "potential": ("sinabs", net(linear(), bare(nir.I, r=a(1))), "n1", "no-such-layer"),
    "soft reset": ("norse", net(linear(), iff((2,)), dialect=SOFT), "n1", "reset"),
    "reset value": ("norse", net(linear(), iff((2,), v_reset=0.5)), "n1", "reset"),
    "bound": ("norse", net(linear(), iff((2,)), dialect=Dialect(v_min=-1)), "n1", "v-min"),
    "thresholds": ("snntorch", net(linear(), lif((2,), r=2, theta=a(1, 2))), "n1", "threshold-nonuniform"),
    "decays": ("spikingjelly", net(linear(), lif((2,), tau=a(2e-4, 4e-4), r=a(2, 4))), "n1", "decay-nonuniform"),
    "no decay": ("spikingjelly", net(linear(), lif((2,), tau=1e-4)), "n1", "no-memory"),
    "start": ("snntorch", net(linear(), lif((2,), r=2, v_leak=0.5), dialect=Dialect(start="v_leak")), "n1", "start"),
    "hard reset": ("spikingjelly", net(linear(), iff((2,)), dialect=SOFT), "n1", "reset"),
    "leak of some": ("norse", net(linear(), lif((2,), tau=a(2e-4, 1e9), r=a(2, 1e13))), "n1", "some-leak"),
    "memory of some": ("sinabs", net(linear(), lif((2,), tau=a(2e-4, 1e-4), r=a(2, 1))), "n1", "decay"),
    "one spatial axis": (
        "norse",
        net(nir.Conv1d(4, np.ones((2, 2, 2), np.float32), 1, 0, 1, 1, a(0, 0)), iff((2, 3)), shape=(2, 4)),
        "n0",
        "no-such-layer",
    ),
    "leak": ("sinabs", net(linear(), lif((2,), v_leak=1)), "n1", "v-leak"),
    "current": ("sinabs", net(linear(), cuba()), "n1", "synapse"),
    "current by another rule": ("norse", net(linear(), cuba(), dialect=Dialect(synapse="exp_add")), "n1", "synapse"),
    "current without a leak": ("norse", net(linear(), cuba(tau_mem=a(1e9, 1e9))), "n1", "no-leak"),
    "currents": (
        "spikingjelly",
        net(linear(), cuba(tau_syn=a(2e-4, 4e-4), r=a(2, 2))),
        "n1",
        "synapse-decay-nonuniform",
    ),
    "lif by pixel": ("sinabs", net(conv(), THETA_BY_PIXEL, shape=(2, 4, 4)), "n1", "lif-within-channel"),
    "gain of too many": ("norse", net(lif((3000,), r=2), shape=(3000,)), "n0", "gain-ignored"),
    "gain by pixel": ("norse", net(conv(), BY_PIXEL, shape=(2, 4, 4)), "n1", "gain-ignored"),
    "scale at the end": ("norse", net(pool(), shape=(2, 4, 4)), "output", "scale-left"),
    "pool padding": ("snntorch", net(pool(padding=1), shape=(2, 4, 4)), "n0", "pool-padding"),
    "uneven padding": ("norse", net(conv(padding="same"), shape=(2, 4, 4)), "n0", "uneven-padding"),
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
    with pytest.raises(
        InputError, match=r"reader: expected one of snntorch, norse, spikingjelly, sinabs.*; found 'nengo'"
    ):
        restate(net(linear()), "nengo")


def test_everything_that_keeps_a_neuron_off_a_reader_is_named_at_once() -> None:
    """Each refusal hid the next: mending a layer took up to four rounds."""
    program = net(linear(), lif((2,), tau=a(2e-4, 4e-4), r=2, theta=a(1, 2)), dialect=SOFT)
    neuron = replace(program.by_name["n1"], v_start=np.float32(0.25), v_min=np.float32(-1))
    program = replace(program, nodes=tuple(neuron if node.name == "n1" else node for node in program.nodes))
    report = check(program, targets=READER_TARGETS)
    slugs = {name: {f.slug for f in report.findings if f.target == name} for name in ("snntorch", "spikingjelly")}
    assert slugs["snntorch"] == {"reset", "start", "v-min", "threshold-nonuniform"}
    uniform = {"threshold-nonuniform", "decay-nonuniform", "gain-nonuniform"}
    assert slugs["spikingjelly"] == {"reset", "start", "v-min", *uniform}


def test_readers_can_be_asked_by_the_check():
    report = check(net(linear(), lif((2,), r=2, theta=a(1, 2))), targets=READER_TARGETS)
    assert report.targets == {
        "snntorch": "unsupported",
        "norse": "faithful",
        "spikingjelly": "unsupported",
        "sinabs": "faithful",
    }
    assert {(f.node, f.slug) for f in report.findings} == {("n1", "threshold-nonuniform")}
