"""What pages say of the ready-made models' energy is what their cards say."""

from __future__ import annotations

from pathlib import Path

import pytest

from stl_deploy.energy.models.wording import number
from stl_deploy.training import pretrained

ROOT = Path(__file__).parents[2]


def _page(name: str) -> str:
    return " ".join((ROOT / name).read_text(encoding="utf-8").split())


def test_the_deep_net_at_equal_accuracy() -> None:
    card, page = pretrained.card("cifar10_small"), _page("docs/energy.md")
    energy = card.energy
    low, high = map(number, energy.snn_over_ann)
    millions = [f"{n / energy.samples / 1e6:.2f}" for n in (energy.synops_AC, energy.synops_MAC, energy.ann_macs_exact)]
    share = card.accuracy.correct / card.accuracy.samples
    for text in (
        f"decides {100 * share:.2f} % of {card.accuracy.samples:,} test images right",
        f"its twin {100 * card.twin_accuracy.correct / card.twin_accuracy.samples:.2f} %",
        f"On the first {energy.samples} images, counted: {millions[0]} million synops AC and {millions[1]} million MAC",
        f"{100 * energy.spike_rate:.2g} % spikes per neuron and step, against the twin's {millions[2]} million dense",
        f"{100 * energy.active_fraction:.0f} % of them on inputs that are not zero",
        f"**{low} to {high} times its twin, to quote {number(energy.quoted.snn_over_ann)} times**",
        f"{100 * energy.synops_MAC / (energy.synops_AC + energy.synops_MAC):.0f} % of its synops are MACs",
        energy.break_even.partition(",")[0],
    ):
        assert text in page
    assert card.accuracy.low < card.twin_accuracy.correct / card.twin_accuracy.samples < card.accuracy.high


@pytest.mark.parametrize("name", ["docs/limits.md", "docs/energy.md"])
def test_the_range_of_the_ready_made_digits(name: str) -> None:
    low, high = map(number, pretrained.card("digits").energy.snn_over_ann)
    assert f"{low} to {high} times" in _page(name)


def test_every_model_costs_more_than_its_twin_as_the_pages_say() -> None:
    """Whoever ships one that does not has good news to write."""
    cards = [pretrained.card(name) for name in pretrained.names()]
    assert len(cards) == 5
    assert all(card.energy.quoted.snn_over_ann > 1 for card in cards)
    assert "every one of them costs more than its twin" in _page("docs/training.md")
    assert "all five [ready-made models](training.md#ready-to-use) cost more than their" in _page("docs/limits.md")
