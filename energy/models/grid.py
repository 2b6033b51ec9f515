"""Compare both sides under every dataflow, in floats and integers, and choose the two quoted numbers.

They are chosen by a fixed rule, not by their value. Streaming: weights are fetched once per step, as a stream is worked
through while it arrives. Layer by layer: once per inference, which takes memory for whole spike trains. Both: sums in
registers, 8-bit integers with 32-bit sums at 45 nm prices, and the twin's zeros skipped where they were measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stl_deploy.energy.context import AnnTwin
from stl_deploy.energy.counts.record import Counts
from stl_deploy.energy.models.dataflow import DATAFLOWS, Active, Dataflow, ann, snn
from stl_deploy.energy.models.ledger import dominating, total
from stl_deploy.energy.models.memory import size_bytes
from stl_deploy.energy.models.ratios import Ratio, Zeros
from stl_deploy.energy.prices.comparison import Comparison
from stl_deploy.energy.prices.load import load_prices
from stl_deploy.energy.prices.price_list import PriceList, Range, has_memory, middle, word_access
from stl_deploy.graph.program import Program

GRID_PRICES = ("horowitz45_fp32", "horowitz45_int8_acc32", "jouppi7_fp32", "jouppi7_int8_acc32")
QUOTED = Dataflow("per_step", "registers")
"""Streaming."""
LAYER_BY_LAYER = Dataflow("per_inference", "registers")
QUOTED_PRICE = "horowitz45_int8_acc32"


def memory_lists(prices: Sequence[PriceList] = ()) -> tuple[PriceList, ...]:
    """Return the grid's own lists, and those of ``prices`` with memory rows."""
    chosen = {name: load_prices(name) for name in GRID_PRICES}
    return tuple((chosen | {entry.name: entry for entry in prices if has_memory(entry)}).values())


def grid(
    program: Program, counts: Counts, prices: Sequence[PriceList] = (), twin: AnnTwin | None = None
) -> tuple[Ratio, ...]:
    """Price every dataflow under every list with memory rows; a measured ``twin`` adds the ANN with zeros skipped.

    Empty for a network without weights, which has no ANN to compare with. A list at which the ANN costs nothing has no
    ratio and is left out.
    """
    if not counts.totals.ann_macs_exact:
        return ()
    skipping: list[tuple[Zeros, Active]] = [("computed", 1.0)]
    if twin is not None:
        skipping.append(("skipped", twin))
    cells = []
    for entry in memory_lists(prices):
        for flow in DATAFLOWS:
            spiking = total(snn(program, counts, entry, flow))
            cells += [
                _ratio(flow, entry, zeros, spiking, total(ann(program, counts, entry, flow, active=active)))
                for zeros, active in skipping
            ]
    return tuple(cell for cell in cells if cell.energy.snn_over_ann is not None)


def _ratio(flow: Dataflow, prices: PriceList, zeros: Zeros, snn: Range, ann: Range) -> Ratio:
    return Ratio("dataflow", prices, Comparison(snn, ann), flow.text, ann_zeros=zeros, flow=flow)


def leading(counts: Counts) -> Dataflow:
    """Return the dataflow that fits the input: layer by layer for static images, streaming for streams."""
    return LAYER_BY_LAYER if counts.is_static else QUOTED


def by_layer(program: Program, counts: Counts, twin: AnnTwin | None = None) -> dict[str, tuple[float, float]]:
    """Return joules of the SNN and of the ANN by layer, at the quoted prices in the dataflow that leads."""
    prices, active, flow = load_prices(QUOTED_PRICE), 1.0 if twin is None else twin, leading(counts)
    sides = snn(program, counts, prices, flow), ann(program, counts, prices, flow, active=active)
    snn_J, ann_J = (
        {name: middle(total(item for item in side if item.layer == name)) for name in counts.order} for side in sides
    )
    return {name: (snn_J[name], ann_J[name]) for name in counts.order}


def synop_joules(weights: int, macs: int, *, graded: bool) -> float:
    """Return the joules of one synop at the quoted prices: its operation, and its share of one fetch of the weights.

    weights, macs: of one dense pass of the layer. graded: the value that arrives is multiplied.
    """
    prices = load_prices(QUOTED_PRICE)
    op, bits = prices.terms["mac" if graded else "ac"], prices.weight_bits
    read = word_access(prices, bits, size_bytes(weights, bits), 1.0)
    return middle(op.ends) + weights / macs * middle(read)


def itemised(program: Program, counts: Counts, twin: AnnTwin | None = None) -> dict[str, Any]:
    """Return every item of both quoted numbers, dearest first: ``{flow: {"snn": items, "ann": items}}``."""
    if not counts.totals.ann_macs_exact:
        return {}
    prices, active = load_prices(QUOTED_PRICE), 1.0 if twin is None else twin
    return {
        name: {
            "snn": [item.as_dict() for item in dominating(snn(program, counts, prices, flow))],
            "ann": [item.as_dict() for item in dominating(ann(program, counts, prices, flow, active=active))],
        }
        for name, flow in (("streaming", QUOTED), ("layer_by_layer", LAYER_BY_LAYER))
    }


def quoted(cells: Sequence[Ratio], flow: Dataflow = QUOTED) -> Ratio | None:
    """Return the cell to quote, streaming or `LAYER_BY_LAYER`; None without any."""
    kept = [cell for cell in cells if cell.flow == flow and cell.prices.name == QUOTED_PRICE]
    # the stronger ANN is quoted wherever its zeros are known
    return next((cell for cell in kept if cell.ann_zeros == "skipped"), kept[0] if kept else None)


def beside(cells: Sequence[Ratio], cell: Ratio) -> tuple[Ratio, ...]:
    """Return the cells that treat the twin's zeros as ``cell`` does: the verdict's range."""
    return tuple(each for each in cells if each.ann_zeros == cell.ann_zeros)
