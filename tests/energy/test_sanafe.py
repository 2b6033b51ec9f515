"""The trained digits network on placed cores: our Loihi terms against SANA-FE's (peers/sanafe_placed.py), five images.

SANA-FE has no analog input: the first layer's spikes were replayed, so its own synapses and somas are on no side.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from stl_deploy.energy import EnergyReport, load_prices, measure_energy
from stl_deploy.energy.counts.traffic import Traffic, traffic
from stl_deploy.energy.prices.bill import Biller
from stl_deploy.energy.prices.events import Events, price_events
from stl_deploy.graph.program import Linear, Neuron, Program
from stl_deploy.graph.run import run
from stl_deploy.pipeline.energy import on_loihi
from tests.energy.close import approx
from tests.energy.peers import placed
from tests.energy.peers.record import GOLDEN

PEERS: dict[str, Any] = json.loads(GOLDEN.read_text())["sanafe"]
PRICES = "loihi1_sanafe"
Case = tuple[Program, EnergyReport, Traffic, dict[str, Any], np.ndarray]


@pytest.fixture(scope="module")
def digits() -> tuple[Program, np.ndarray]:
    return placed.digits()


@pytest.fixture(params=[(name, image) for name in ("simple", "balanced") for image in range(5)], ids=str)
def case(request: pytest.FixtureRequest, digits: tuple[Program, np.ndarray]) -> Case:
    (program, images), (name, image) = digits, request.param
    x, chip = images[:, image : image + 1], on_loihi(program)
    report = measure_energy(program, x, chip=chip, prices=[PRICES])
    found = {t.placement.name: t for t in traffic(program, report.counts, chip)}[name]
    return program, report, found, PEERS[f"digits, {name}"][image], x


def later(program: Program) -> list[Neuron]:
    """The layers that SANA-FE simulated."""
    return list(program.spiking[1:])


def test_every_layer_spikes_alike(case: Case) -> None:
    program, report, _, theirs, _ = case
    assert {node.name: report.counts.neurons[node.name].spikes for node in later(program)} == theirs["fired"]


@pytest.mark.push(3)
def test_synapses_messages_and_hops_cost_the_same(case: Case) -> None:
    program, report, found, theirs, _ = case
    taps = {**report.counts.weighted, **report.counts.pools}
    kinds = {"synop_dense": 0, "synop_conv": 0}
    for node in later(program):
        before = program.by_name[node.operands[0].node]
        kinds["synop_dense" if isinstance(before, Linear) else "synop_conv"] += taps[before.name].synops
    total = theirs["total"]
    assert sum(kinds.values()) == total["spikes"]
    assert found.messages == total["packets_sent"]
    assert bill(Events(**kinds, messages=0, hops=(0, 0))) == approx(total["energy/synapse"], rel=1e-9)
    assert bill(Events(messages=found.messages, hops=found.hops)) == approx(total["energy/network"], rel=1e-9)


@pytest.mark.push(3)
def test_somas_differ_by_the_steps_that_fill_and_empty_the_pipeline(case: Case) -> None:
    """SANA-FE's layers work a step one after the other: it accesses every neuron while the pipeline fills and empties,
    and updates those whose potential is still not 0."""
    program, report, _, theirs, x = case
    neurons = [report.counts.neurons[node.name] for node in later(program)]
    depth = len(neurons)
    ours = Events(
        updates=sum(c.neuron_updates for c in neurons),
        touched=sum(c.neuron_updates_touched for c in neurons),
        spikes=sum(c.spikes for c in neurons),
        messages=0,
        hops=(0, 0),
    )
    terms = load_prices(PRICES).terms
    accessed = sum(c.neurons for c in neurons) * depth * terms["neuron_access"].low
    updated = lingering(program, x) * terms["neuron_update"].low
    assert bill(ours) + accessed + updated == approx(theirs["total"]["energy/soma"], rel=1e-9)


def lingering(program: Program, x: np.ndarray) -> int:
    """Neurons left with a potential that is not 0, times the steps for which each waits for the last layer."""
    layers = later(program)
    fed = run(program, x, record=[node.operands[0].node for node in layers]).recorded
    waiting = 0
    for number, node in enumerate(layers, 1):
        assert node.threshold is not None
        v = np.zeros(node.shape)
        for now in fed[node.operands[0].node][:, 0]:
            v = now if node.decay is None else node.decay * v + now
            v = np.where(v > node.threshold, 0, v)
        waiting += int(np.count_nonzero(v)) * (len(layers) - number) if node.decay is not None else 0
    return waiting


def test_its_time_lies_within_the_barrier_models_range(digits: tuple[Program, np.ndarray]) -> None:
    """Its eight steps, four of them idle in each layer, against our four, in which the first layer works, too."""
    program, images = digits
    for image, theirs in enumerate(PEERS["digits, simple"]):
        report = measure_energy(program, images[:, image : image + 1], chip=on_loihi(program), prices=[PRICES])
        latency = next(line for line in report.chips if line.chip == "loihi1").latency
        assert latency is not None
        assert latency[0] < theirs["total"]["sim_time"] < latency[1]


def bill(events: Events) -> float:
    """Joules by our rules under SANA-FE's list."""
    biller = Biller(load_prices(PRICES), 1)
    price_events(events, load_prices(PRICES), biller)
    total = biller.bill().total
    assert total is not None
    return total[0]
