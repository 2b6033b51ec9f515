"""What pages say of the ready-made models' energy is what their cards say."""

from __future__ import annotations

from pathlib import Path

from stl_deploy.energy.models.ratios import number
from stl_deploy.training import pretrained

ROOT = Path(__file__).parents[2]


def _page(name: str) -> str:
    return " ".join((ROOT / name).read_text(encoding="utf-8").split())


def test_the_deep_net() -> None:
    card, page = pretrained.card("cifar10_small"), _page("docs/measurements/energy-deep-net.md")
    energy = card.energy
    low, high = map(number, energy.snn_over_ann)
    millions = [f"{n / energy.samples / 1e6:.2f}" for n in (energy.synops_AC, energy.synops_MAC, energy.ann_macs_exact)]
    share = card.accuracy.correct / card.accuracy.samples
    for text in (
        f"decides {100 * share:.2f} % of {card.accuracy.samples:,} test images right",
        f"its twin {100 * card.twin_accuracy.correct / card.twin_accuracy.samples:.2f} %",
        f"On {energy.samples} images drawn over all classes, counted: {millions[0]} million synops AC and "
        f"{millions[1]} million MAC",
        f"{100 * energy.spike_rate:.2g} % spikes per neuron and step, against the twin's {millions[2]} million dense",
        f"{100 * energy.active_fraction:.0f} % of them on inputs that are not zero",
        f"**{number(energy.quoted.snn_over_ann)} times its twin streaming and "
        f"{number(energy.quoted_layer_by_layer.snn_over_ann)} times layer by layer** ({low} to {high} times over every",
        f"{100 * energy.synops_MAC / (energy.synops_AC + energy.synops_MAC):.0f} % of its synops are MACs",
        energy.break_even.partition(",")[0],
    ):
        assert text in page
    assert card.accuracy.low < card.twin_accuracy.correct / card.twin_accuracy.samples < card.accuracy.high


def test_both_numbers_of_the_ready_made_digits() -> None:
    energy = pretrained.card("digits").energy
    both = number(energy.quoted.snn_over_ann), number(energy.quoted_layer_by_layer.snn_over_ann)
    assert "{} times streaming and {} times layer by layer".format(*both) in _page("docs/limits.md")
    verdict = "T = 4, costs {1} times its ANN twin layer by layer (weights once per inference) and {0} times streaming"
    assert verdict.format(*both) in _page("docs/energy.md").replace("> ", "")


def test_every_model_costs_more_than_its_twin_streaming_as_the_pages_say() -> None:
    """Whoever ships one that does not has good news to write."""
    cards = [pretrained.card(name) for name in pretrained.names()]
    assert len(cards) == 5
    assert all(card.energy.quoted.snn_over_ann > 1 for card in cards)
    assert "Streaming, every one of them costs more than its twin" in _page("docs/training.md")
    assert "Streaming, all five [ready-made models](training.md#ready-to-use) cost more than" in _page("docs/limits.md")
    for card in cards:
        batched = card.energy.quoted_layer_by_layer
        if batched.snn_over_ann < 1:
            assert f"`{card.name}`" in _page("docs/training.md").partition("layer by layer ")[2]
