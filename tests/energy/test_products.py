"""Products of two signals: counted pair by pair, priced as adds where one side is 0 or 1, and on the page."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stl_deploy.energy.counts.record import ProductCounts
from stl_deploy.energy.measure import EnergyReport, measure_energy
from stl_deploy.energy.models.dataflow import DATAFLOWS, ann, snn
from stl_deploy.graph.program import DT, Gather, Input, Neuron, Node, Operand, Output, Product, Program
from stl_deploy.graph.run import run
from stl_deploy.graph.show import table
from stl_deploy.report.page import ReportData, render_report
from stl_deploy.report.page.render import boxes

F = np.float32
T, B, N, D = 3, 2, 4, 5
"""Steps, samples, tokens, channels."""


def attention(*, spikes: bool = True) -> Program:
    """(S·Sᵀ)·S of spikes (or of the input itself), and its elementwise square, as a residual block has them."""
    places = np.arange(N * D).reshape(N, D).T
    first = "lif" if spikes else "input"

    def of(name: str, shape: tuple[int, ...], left: str, right: str, *operands: tuple[int, ...]) -> Product:
        sources = (Operand(left), Operand(right))
        return Product(
            name=name,
            shape=shape,
            operands=sources,
            operand_shapes=(operands[0], operands[1]),
            matrices=operands[0] != operands[1],
        )

    nodes: list[Node] = [
        Input(name="input", shape=(N, D), operands=()),
        Neuron(
            name="lif", shape=(N, D), operands=(Operand("input"),), decay=np.asarray(0.5, F), threshold=np.asarray(1, F)
        ),
        Gather(name="turned", shape=(D, N), operands=(Operand(first),), indices=places, input_shape=(N, D)),
        of("scores", (N, N), first, "turned", (N, D), (D, N)),
        of("mixed", (N, D), "scores", first, (N, N), (N, D)),
        of("square", (N, D), "mixed", "mixed", (N, D), (N, D)),
        Output(name="output", shape=(N, D), operands=(Operand("square"),)),
    ]
    return Program(tuple(nodes), DT)


def measured(program: Program, x: NDArray[Any]) -> EnergyReport:
    return measure_energy(program, x, source="x", prices=["horowitz45_int8_acc32", "loihi1_davies2018"])


@pytest.fixture
def x() -> NDArray[Any]:
    return (np.random.default_rng(0).random((T, B, N, D)) * 2).astype(F)


def pairs(a: NDArray[Any], b: NDArray[Any]) -> int:
    """Products of two values that are not 0, one by one."""
    found = 0
    for t, n, i, k, j in product(range(T), range(B), range(a.shape[2]), range(a.shape[3]), range(b.shape[3])):
        found += bool(a[t, n, i, k] != 0 and b[t, n, k, j] != 0)
    return found


def test_pairs_of_nonzero_values_are_counted(x: NDArray[Any]) -> None:
    program = attention()
    y = run(program, x, record=["lif", "scores", "mixed"]).recorded
    spikes = y["lif"]
    assert 0.1 < spikes.mean() < 0.9
    found = measured(program, x).counts
    assert found.products == {
        "scores": ProductCounts(
            in_nonzero=2 * int(spikes.sum()),
            synops=pairs(spikes, spikes.swapaxes(-1, -2)),
            synapses=N * D * N,
            dense_macs_exact=N * D * N * T * B,
            values=2 * N * D,
            outputs=N * N,
            op="AC",
        ),
        "mixed": ProductCounts(
            in_nonzero=int(np.count_nonzero(y["scores"]) + spikes.sum()),
            synops=pairs(y["scores"], spikes),
            synapses=N * N * D,
            dense_macs_exact=N * N * D * T * B,
            values=N * N + N * D,
            outputs=N * D,
            op="AC",
        ),
        "square": ProductCounts(
            in_nonzero=2 * int(np.count_nonzero(y["mixed"])),
            synops=int(np.count_nonzero(y["mixed"])),
            synapses=N * D,
            dense_macs_exact=N * D * T * B,
            values=2 * N * D,
            outputs=N * D,
            op="MAC",
        ),
    }
    totals = found.totals
    assert totals.synops_AC == found.products["scores"].synops + found.products["mixed"].synops
    assert totals.synops_MAC == found.products["square"].synops
    assert totals.ann_macs_exact == B * (2 * N * N * D + N * D)


def test_real_values_on_both_sides_are_macs(x: NDArray[Any]) -> None:
    assert {c.op for c in measured(attention(spikes=False), x).counts.products.values()} == {"MAC"}


def test_samples_run_apart_add_up(x: NDArray[Any]) -> None:
    whole = measured(attention(), x).counts.products["scores"]
    parts = [measured(attention(), x[:, n : n + 1]).counts.products["scores"] for n in range(B)]
    assert whole.synops == sum(part.synops for part in parts)
    assert whole.in_nonzero == sum(part.in_nonzero for part in parts)


def test_products_are_priced_on_both_sides_and_miss_on_chips(x: NDArray[Any]) -> None:
    report = measured(attention(), x)
    told = report.as_dict()
    assert set(told["layers"]["scores"]) >= {"synops", "op", "dense_macs_exact"}
    assert any("Products of two signals (scores, mixed, square)" in line for line in told["assumptions"])
    arithmetic, loihi = report.energy
    products = report.counts.totals
    assert arithmetic.snn is not None
    lines = {line.what: line.count for line in arithmetic.snn.lines}
    assert lines["synops on 0/1 values"] == products.synops_AC / B
    assert loihi.snn is not None
    assert any("products of two signals per inference" in str(each) for each in loihi.snn.unpriced)
    for flow in DATAFLOWS:
        for side, what in ((snn, "products"), (ann, "MACs: multiply")):
            items = side(attention(), report.counts, arithmetic.prices, flow)
            assert {item.layer for item in items if item.term == what} == {"scores", "mixed", "square"}


def test_products_are_shown_with_their_operands() -> None:
    rows = {row.node: row for row in table(attention())}
    assert (rows["scores"].parameters, rows["scores"].constants) == (0, "4×5 times 5×4, as matrices")
    assert rows["square"].constants == "4×5 times 4×5, element by element"


def test_the_page_names_each_product_and_its_synops(x: NDArray[Any]) -> None:
    report = measured(attention(), x)
    drawn = {box.name: box for box in boxes(report.as_dict())[0]}
    assert (drawn["scores"].kind, drawn["scores"].unit) == ("product", "synops (AC)")
    assert drawn["scores"].count == report.counts.products["scores"].synops / B
    page = render_report(ReportData(title="attention", energy=report.as_dict()))
    row = page[page.index('<th scope="row">scores</th><td>AC</td>') :]
    assert f"{report.counts.products['scores'].synops:,}" in row[: row.index("</tr>")]
