"""What spiking is charged: equal to the energy report's counts, and it works."""

import numpy as np
import pytest
import torch
import yaml

from stl_deploy.config.load import apply_overrides, config_of
from stl_deploy.config.schema import RunConfig, TrainConfig
from stl_deploy.data import load_dataset
from stl_deploy.energy import ActivityCounter
from stl_deploy.energy.models.grid import synop_joules
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.graph.run import run
from stl_deploy.nn.network import INPUT, Network
from stl_deploy.nn.to_program import with_numbers
from stl_deploy.pipeline.fold_network import fold
from stl_deploy.training.activity_penalty import Regulariser
from stl_deploy.training.evaluate import evaluate
from stl_deploy.training.loop import train
from tests.fold.test_residual import SEW

BUDGET = TrainConfig(synop_budget=1000.0)


def _counted(network, x, coding):
    program = lower(fold(network, coding=coding, fraction_bits=4).graph)
    counter = ActivityCounter(program, coding)
    run(program, x.numpy(), observe=counter)
    return counter.counts()


@pytest.mark.push(3)
@pytest.mark.parametrize("coding", ["analog", "spikes"])
@pytest.mark.parametrize("shape", ["plain", "strided", "residual", "li"])
def test_synops_are_those_of_the_energy_report(tiny: RunConfig, shape, coding):
    overrides = {"strided": ["network.0.stride=2", "network.0.kernel=5", "network.3.op=sum"]}.get(shape, [])
    config = config_of(yaml.safe_load(SEW)) if shape == "residual" else apply_overrides(tiny, overrides)
    if shape == "li":
        data = config.model_dump(mode="json")
        data["network"][-1:] = [{"kind": "linear", "features": 10}, {"kind": "li"}]
        config = RunConfig.model_validate(data)
    torch.manual_seed(0)
    network = Network(apply_overrides(config, ["neuron.threshold=0.25"]), (1, 8, 8), 10).eval()
    x = torch.randint(0, 17, (3, 6, 1, 8, 8)) / 16 * (torch.rand(3, 6, 1, 8, 8) > 0.4)
    x = (x > 0).float() if coding == "spikes" else x
    folded = with_numbers(network, fold(network, coding=coding, fraction_bits=4).program)
    charge = Regulariser(folded, BUDGET)
    charge.observe(INPUT, x)
    folded(x, charge.observe)
    totals = _counted(network, x, coding).totals
    assert totals.synops > 10_000
    assert float(charge.synops) * 6 == totals.synops
    assert float(charge.penalty()) == pytest.approx(np.log(totals.synops / 6 / 1000))


def test_nothing_is_charged_below_the_budget_and_the_gradient_is_the_fan_out(tiny):
    network = Network(tiny, (1, 8, 8), 10).eval()
    spikes = torch.zeros(3, 2, 64, requires_grad=True)
    charge = Regulariser(network, TrainConfig(synop_budget=1.0, synop_weight=2.0))
    charge.observe("flatten1", spikes + torch.eye(3, 64).unsqueeze(1))
    assert charge.synops.item() == 3 * 20
    assert charge.penalty().item() == pytest.approx(2 * np.log(60))
    charge.penalty(0.1).backward()
    assert torch.allclose(spikes.grad, torch.full_like(spikes, 0.1 * 2 * 20 / 2 / 60))
    free = Regulariser(network, TrainConfig(synop_budget=1000.0))
    free.observe("flatten1", torch.ones(1, 1, 64)[..., :10])
    assert float(free.penalty()) == 0


def test_rates_are_drawn_to_their_target_by_hand(tiny):
    charge = Regulariser(Network(tiny, (1, 8, 8), 10), TrainConfig(rate_target=0.25, rate_weight=3.0))
    charge.observe("lif1", torch.tensor([[[1.0, 0.0]]]))
    charge.observe("lif2", torch.tensor([[[1.0, 1.0]]]))
    charge.observe("pool1", torch.tensor([[[1.0, 1.0]]]))
    assert float(charge.penalty()) == pytest.approx(3 * (0.25**2 + 0.75**2) / 2)
    charge.reset()
    assert float(charge.penalty()) == 0


def test_training_goes_to_the_rate_and_below_the_budget(tiny, tmp_path):
    base = apply_overrides(tiny, ["train.epochs=8", "dataset.test_fraction=0.3"])
    free = train(base, tmp_path / "free").test
    changes = ["train.rate_target=0.1", "train.rate_weight=30"]
    drawn = train(apply_overrides(base, changes), tmp_path / "drawn").test

    def off(rates):
        return np.mean([(rate - 0.1) ** 2 for rate in rates.values()])

    assert off(drawn.rates) < off(free.rates) / 2
    assert drawn.accuracy > 0.6

    def synops(result, config):
        test = load_dataset(config.dataset).test
        charge = Regulariser(result.network, BUDGET)
        x = test.images().expand(3, -1, -1, -1, -1)
        charge.observe(INPUT, x)
        with torch.no_grad():
            result.network(x, charge.observe)
        return float(charge.synops)

    unbound = train(base, tmp_path / "unbound")
    budget = 0.85 * synops(unbound, base)
    bound = train(apply_overrides(base, [f"train.synop_budget={budget}"]), tmp_path / "bound")
    assert synops(bound, base) < 0.95 * synops(unbound, base)
    assert evaluate(bound.network, load_dataset(base.dataset).test, base).accuracy > 0.6


@pytest.mark.parametrize("mode", ["stl", "ann"])
def test_priced_energy_is_charged_by_one_rule_in_those_of_a_dense_ann_pass(tiny, mode):
    """All inputs of every layer at work, for one step: one dense pass, but for the adds of spikes."""
    network = Network(apply_overrides(tiny, [f"train.mode={mode}"]), (1, 8, 8), 10).eval()
    charge = Regulariser(network, TrainConfig(energy_weight=2.0))
    charge.observe(INPUT, torch.ones(1, 3, 1, 8, 8))
    for name in {source for sources in network.sources.values() for source in sources} - {INPUT}:
        charge.observe(name, torch.ones(1, 3, *network.shapes[name]))
    everything = float(charge.penalty(0.5))
    assert everything == pytest.approx(1.0) if mode == "ann" else 0.7 < everything < 1
    charge.reset()
    active = torch.zeros(1, 1, 64, requires_grad=True)
    charge.observe("flatten1", active)
    charge.penalty(0.5).backward()
    share = 20 * synop_joules(64 * 20, 64 * 20, graded=mode == "ann") / charge._dense_J
    assert torch.allclose(active.grad, torch.full_like(active, 2.0 * 0.5 * share))


def test_energy_penalised_in_training_falls(tiny, tmp_path):
    base = apply_overrides(tiny, ["train.epochs=6"])
    free, charged = (train(apply_overrides(base, [f"train.energy_weight={w}"]), tmp_path / w).test for w in ("0", "5"))
    assert sum(charged.rates.values()) < 0.8 * sum(free.rates.values())
