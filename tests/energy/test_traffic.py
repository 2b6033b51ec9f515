"""Messages and hops between cores against an explicit list of them; what stays unpriced and why."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stl_deploy.config.options import EnergyOptions
from stl_deploy.energy import EnergyReport, measure_energy
from stl_deploy.energy.counts.traffic import Traffic, traffic
from stl_deploy.energy.prices.chip import CORES, OnChip, hops, tile_of
from stl_deploy.graph.placement import PlacedCore, Placement
from stl_deploy.graph.program import Input, MaxPool, Neuron, Node, Operand, Program, Reshape, Shape
from stl_deploy.pipeline.energy import MOST, energy, on_loihi
from tests.drawn import examples
from tests.energy.brute import Walk, indices
from tests.energy.close import approx
from tests.energy.nets import conv, f32, lif, linear, pool, program, start

LISTS = ["loihi1_davies2018", "loihi1_sanafe"]


@st.composite
def chains(draw: st.DrawFn) -> Program:
    """What Loihi holds: synapse, neurons, synapse, neurons, … with borders, strides, groups, pools and a flatten."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape: Shape = (draw(st.sampled_from([1, 2, 4])), draw(st.integers(3, 5)), draw(st.integers(3, 5)))
    nodes: list[Node] = [start(shape)]
    for number in range(draw(st.integers(1, 3))):
        before, name = nodes[-1].name, f"l{number}"
        wide = len(shape) == 3 and min(shape[1:]) > 2
        kinds = ["conv", "linear", *(["pool"] if number else [])] if wide else ["linear"]
        kind = draw(st.sampled_from(kinds))
        if kind == "linear" and len(shape) == 3:
            flat = Reshape(name=f"{name}_flat", shape=(prod(shape),), operands=(Operand(before),), input_shape=shape)
            nodes.append(flat)
            before, shape = flat.name, flat.shape
        if kind == "linear":
            node: Node = linear(name, before, rng.integers(-1, 3, (draw(st.integers(1, 5)), shape[0])) / 2)
        elif kind == "pool":
            node = pool(name, before, shape, stride=(1, 2), padding=((1, 1), (0, 0)))
        else:
            groups = draw(st.sampled_from([g for g in (1, 2, 4) if shape[0] % g == 0]))
            weight = f32(rng.integers(-1, 3, (2 * groups, shape[0] // groups, 2, 3)) / 2)
            padding, stride = draw(st.sampled_from([((1, 1), (1, 1)), ((0, 0), (2, 2))])), draw(st.integers(1, 2))
            node = conv(name, before, weight, shape, stride=(stride, 1), padding=padding, groups=groups)
        shape = node.shape
        nodes += [node, lif(f"{name}_lif", name, shape, 0.5, decay=None if kind == "pool" else 0.5)]
    return program(*nodes)


@st.composite
def placements(draw: st.DrawFn, net: Program) -> Placement:
    """Any cuts of each layer."""
    cores = []
    for node in net.spiking:
        size = prod(node.shape)
        cuts = draw(st.sets(st.integers(1, max(1, size - 1)), max_size=3)) if size > 1 else set()
        ends = [0, *sorted(cuts), size]
        cores += [PlacedCore(node.name, a, b, {}) for a, b in pairwise(ends)]
    return Placement("drawn", tuple(cores))


def spikes(net: Program, seed: int = 0, steps: int = 3, batch: int = 2) -> np.ndarray:
    return f32(np.random.default_rng(seed).random((steps, batch, *net.inputs[0].shape)) < 0.4)


def messages_one_by_one(net: Program, x: np.ndarray, placement: Placement) -> tuple[list[tuple[int, int]], int, int]:
    """Every (core of the neuron that spiked, core the spike goes to), the input's messages, the last layer's spikes."""
    walk = Walk(net, x, "spikes")
    sent: list[tuple[int, int]] = []
    entering = 0
    for node in net.spiking:
        tapped = net.by_name[node.operands[0].node]
        sender = tapped
        while not isinstance(sender, Neuron | Input):
            sender = net.by_name[sender.operands[0].node]
        core_of_output = dict(zip(indices(tapped.shape), _cores_of(placement, node), strict=True))
        goes_to: dict[tuple[int, ...], set[int]] = {}
        for at, out, _ in walk.lists[tapped.name][0]:
            goes_to.setdefault(at, set()).add(core_of_output[out])
        sits_on = _cores_of(placement, sender) if isinstance(sender, Neuron) else None
        for t, b in product(range(walk.T), range(walk.B)):
            for number, at in enumerate(indices(walk.x[tapped.name].shape[2:])):
                for core in goes_to.get(at, ()) if walk.x[tapped.name][(t, b, *at)] else ():
                    if sits_on is None:
                        entering += 1
                    else:
                        sent.append((sits_on[number], core))
    return sent, entering, int(walk.y[net.spiking[-1].name].sum())


def _cores_of(placement: Placement, node: Node) -> list[int]:
    held = [(i, core) for i, core in enumerate(placement.cores) if core.node == node.name]
    return [i for number in range(prod(node.shape)) for i, core in held if core.first <= number < core.last]


@examples(40)
@given(st.data())
def test_equals_a_list_of_every_message(data: st.DataObject) -> None:
    net = data.draw(chains())
    placement = data.draw(placements(net))
    x = spikes(net, data.draw(st.integers(0, 1000)))
    sent, entering, leaving = messages_one_by_one(net, x, placement)
    (found,) = traffic(net, measure_energy(net, x, prices=()).counts, OnChip(placements=(placement,)))
    between = np.zeros((len(placement.cores),) * 2, np.int64)
    for pair in sent:
        between[pair] += 1
    assert found.between.tolist() == between.tolist()
    assert (found.messages, found.from_input, found.read_out) == (len(sent), entering, leaving)
    walked = [_walk(*pair) for pair in sent]
    assert found.hops == (sum(w.count("E") for w in walked), sum(w.count("N") for w in walked))


def _walk(a: int, b: int) -> str:
    """Tile by tile along the row, then along the column."""
    (x, y), (to_x, to_y) = tile_of(a), tile_of(b)
    path = ""
    while x != to_x:
        x += 1 if to_x > x else -1
        path += "E"
    while y != to_y:
        y += 1 if to_y > y else -1
        path += "N"
    return path


def test_the_mesh_is_sanafes() -> None:
    # tiles 0 and 7, and 31 and 0, as SANA-FE's own energy of one message has them: 3.0 + 3 x 4.2, 7 x 3.0 + 3 x 4.2 pJ
    assert hops(0, 4 * 7) == (1, 3)
    assert hops(4 * 31 + 3, 0) == (7, 3)
    assert hops(0, 3) == (0, 0)


def two_layers() -> Program:
    """Inputs 3 -> 2 neurons -> 2 neurons -> a readout on the host; every spike of the first goes everywhere."""
    return program(
        start((3,)),
        linear("w1", "in", np.full((2, 3), 1)),
        lif("a", "w1", (2,)),
        linear("w2", "a", [[1, 0], [0, 1]]),
        lif("b", "w2", (2,)),
        linear("vote", "b", [[0.5, 0.5]]),
    )


def by_hand(cores: int = 5) -> tuple[EnergyReport, OnChip]:
    """Layer ``a`` on core 0, ``b`` with a neuron each on core 1 and the last: at ``cores`` = 5 one tile further."""
    first = PlacedCore("a", 0, 2, {"neurons": 2})
    second = [PlacedCore("b", 0, 1, {"neurons": 1}), PlacedCore("b", 1, 2, {"neurons": 1})]
    empty = [PlacedCore("b", 1, 1, {"neurons": 0})] * (cores - 3)
    chip = OnChip(
        "Loihi 1", {"neurons": 1024}, (Placement("simple", (first, second[0], *empty, second[1])),), ("vote",)
    )
    x = f32([[[1, 0, 0]], [[0, 0, 0]]])  # both neurons of a fire at step 0, and both of b
    return measure_energy(two_layers(), x, prices=LISTS, chip=chip), chip


def test_a_net_by_hand_is_priced_to_the_last_hop() -> None:
    report, _ = by_hand()
    davies, sanafe = report.energy
    assert davies.snn is not None
    assert sanafe.snn is not None
    # synops: 2 of the input, 4 of a's two spikes; b's two on the readout are the host's. updates 8, of them 4 touched
    # messages: 2 spikes x 2 cores; from core 0 to core 4: one hop down the column
    assert davies.snn.unpriced == ()
    expected = 6 * 23.6 + 4 * 81 + 4 * 52 + 4 * 1.7 + 2 * 4.0
    assert davies.snn.total == approx((expected * 1e-12,) * 2)
    expected = 6 * 35.5 + 8 * 51.2 + 4 * 21.6 + 4 * 69.3 + 4 * 111 + 2 * 4.2
    assert sanafe.snn.total == approx((expected * 1e-12,) * 2)
    assert davies.outside[-1].endswith(
        "1 messages from the input, 2 spikes read out, 2 synops of the readout per inference"
    )
    assert list(davies.placements) == ["simple"]


def test_the_json_tells_where_every_core_is() -> None:
    data = by_hand()[0].as_dict()["placement"]
    assert data["chip"] == "Loihi 1"
    assert data["reason"] is None
    (one,) = data["placements"]
    assert (one["messages"], one["hops_ew"], one["hops_ns"]) == (4, 0, 2)
    assert one["cores"][0] == {"node": "a", "first": 0, "last": 2, "tile": [0, 0], "neurons": 2}
    assert one["cores"][4]["tile"] == [0, 1]


def test_beyond_one_chip_messages_are_counted_and_hops_named() -> None:
    report, _ = by_hand(CORES + 1)
    sanafe = report.energy[1].snn
    assert sanafe is not None
    assert [u.what for u in sanafe.unpriced] == [
        f"hops between cores: {CORES + 1} cores, one chip has {CORES}, and hops between chips have no price"
    ]
    assert sanafe.total[1] == approx(sanafe.total[0] + 4 * 2 * (7 * 3.0 + 3 * 4.2) * 1e-12)
    assert any(line.term == "message_out" and line.count == 4 for line in sanafe.lines)


def test_without_a_placement_messages_and_hops_are_named() -> None:
    report = measure_energy(two_layers(), f32(np.ones((1, 1, 3))), prices=LISTS)
    sanafe = report.energy[1].snn
    assert sanafe is not None
    assert [u.what.split(":")[0] for u in sanafe.unpriced] == ["messages", "hops between cores"]
    assert report.as_dict()["placement"]["reason"] == "no placement is known"


def test_loihis_placements_and_their_resources() -> None:
    net = program(
        start((1, 8, 8)),
        conv("c", "in", np.ones((20, 1, 3, 3), np.float32), (1, 8, 8), padding=((1, 1), (1, 1))),
        lif("a", "c", (20, 8, 8)),
    )
    chip = on_loihi(net)
    simple, balanced = chip.placements
    assert [core.last - core.first for core in simple.cores] == [1024, 256]
    assert [core.last - core.first for core in balanced.cores] == [640, 640]
    assert dict(simple.cores[0].used) == {"neurons": 1024, "in_axons": 64, "out_axons": 1024, "synapse_bytes": 9216}
    assert chip.limits == {"neurons": 1024, "in_axons": 4096, "out_axons": 4096, "synapse_bytes": 131072}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"reset": "subtract"}, "'a' cannot be placed on Loihi 1: its reset is 'subtract'"),
        ({"multi_spike": True}, "'a' cannot be placed on Loihi 1: it fires several spikes per step"),
    ],
)
def test_what_loihi_cannot_hold_says_why(change: dict[str, object], reason: str) -> None:
    net = two_layers()
    nodes = tuple(Neuron(**{**vars(n), **change}) if isinstance(n, Neuron) and n.name == "a" else n for n in net.nodes)
    net = replace(net, nodes=nodes)
    chip = on_loihi(net)
    assert chip.placements == ()
    assert chip.reason == reason
    report = measure_energy(net, f32(np.ones((1, 1, 3))), prices=LISTS, chip=chip)
    assert report.energy[1].snn is None
    assert report.energy[1].outside == (f"not placed: {reason}",)


def test_a_neuron_that_needs_more_than_a_core_has_is_not_placed() -> None:
    net = program(start((5000,)), linear("w", "in", np.ones((1, 5000))), lif("a", "w", (1,)))
    assert on_loihi(net).reason.startswith("'a' cannot be placed on Loihi 1: input axons of one neuron: 5,000 needed")


def test_a_net_of_very_many_cores_is_not_placed() -> None:
    wide = 1024 * (MOST + 1)
    net = program(
        start((1, 1, wide)), conv("c", "in", np.ones((1, 1, 1, 1)), (1, 1, wide)), lif("a", "c", (1, 1, wide))
    )
    assert on_loihi(net).reason == "1,025 cores of Loihi 1 would be needed, and more than 1,024 are not looked at"


def test_messages_do_not_depend_on_chunks() -> None:
    net = two_layers()
    x = spikes(net, steps=4, batch=7)
    chip = on_loihi(net)
    whole, parts = (measure_energy(net, x, chip=chip, chunk=chunk).as_dict() for chunk in (7, 2))
    assert whole == parts
    assert isinstance(traffic(net, measure_energy(net, x).counts, chip)[0], Traffic)


def test_a_network_of_a_kind_that_loihi_lacks_is_not_placed() -> None:
    pooled = MaxPool(
        name="m",
        shape=(1, 2, 2),
        operands=(Operand("c"),),
        kernel=(2, 2),
        stride=(2, 2),
        padding=((0, 0),) * 2,
        input_shape=(1, 4, 4),
    )
    layers = conv("c", "in", np.ones((1, 1, 1, 1)), (1, 4, 4)), pooled, lif("a", "m", (1, 2, 2))
    net = program(start((1, 4, 4)), *layers)
    assert on_loihi(net).reason == "'m' cannot be placed on Loihi 1: netx takes no max pool of currents"
    report = energy(net, f32(np.ones((1, 1, 1, 4, 4))), EnergyOptions())
    assert "loihi1" in report.checked.refused
