"""The page: self-contained, escaped, accessible, and with the numbers of its JSON twin."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

from stl_deploy.energy import AnnTwin, measure_energy
from stl_deploy.energy.prices.chip import OnChip
from stl_deploy.errors import InputError
from stl_deploy.graph.placement import PlacedCore, Placement
from stl_deploy.graph.program import Neuron, Operand, Program
from stl_deploy.pipeline.tradeoff import Point, Tradeoff
from stl_deploy.report.page import (
    Accuracy,
    ParityRow,
    Raster,
    ReportData,
    Thresholds,
    render_report,
    report_json,
)
from stl_deploy.report.page.plots import dominating, drawings, write_figures
from stl_deploy.report.page.render import boxes
from stl_deploy.report.page.svg import inline, panels, style
from stl_deploy.report.page.templates import count, joules, ratios, span
from tests.energy.close import approx
from tests.energy.nets import conv, lif, linear, program, start

EVIL = '<script>alert("x")</script>&\'$a_b$'
VOID = {"meta", "br", "link", "img", "use"}


def net(name: str = "c") -> Program:
    return program(
        start((1, 3, 3)),
        conv(name, "in", np.ones((2, 1, 3, 3)), (1, 3, 3), padding=((1, 1), (1, 1)), bias=[0.5, 0]),
        lif(f"{name}-n", name, (2, 3, 3)),
    )


def chip(name: str = "c") -> OnChip:
    def core(first: int, last: int, axons: int) -> PlacedCore:
        return PlacedCore(f"{name}-n", first, last, {"neurons": last - first, "in_axons": axons})

    limits = {"neurons": 16, "in_axons": 8}
    simple = Placement("simple", (core(0, 16, 9), core(16, 18, 4)))
    balanced = Placement("balanced", (core(0, 9, 9), core(9, 18, 9)))
    return OnChip(f"Chip {name}", limits, (simple, balanced), (), (f"note {name}",))


@cache
def full(name: str = "c") -> ReportData:
    x = np.random.default_rng(0).integers(0, 2, (3, 5, 1, 3, 3)).astype(np.float32)
    return ReportData(
        title=f"Report {name}",
        summary={f"key {name}": f"value {name}"},
        accuracy=[Accuracy(name, 0.975, 40), Accuracy("Loihi model", None, 0, "simulated", f"not run {name}")],
        curves=[
            {"epoch": e, "loss": 1 / e, "validation_loss": 1.1 / e, "train_accuracy": 0.5, "rates": {name: 0.1}}
            for e in (1, 2, 3)
        ],
        thresholds=[Thresholds(name, "neuron", np.ones((2, 3)), np.linspace(0.5, 1.5, 6).reshape(2, 3))],
        rasters=[Raster(name, np.eye(4)), Raster("silent", np.zeros((4, 600), np.int64))],
        raster_sample=f"Sample {name}",
        parity=[ParityRow(name, 1234567, 89, 0.95, exact=False, first_divergence=f"{name}, step 1", note=name)],
        energy=measure_energy(net(name), x, source=name, chip=chip(name)).as_dict(),
        tradeoff=Tradeoff(
            (
                Point(name, "SNN", "stl", 4, 0.9, 2e-9),
                Point(name, "ANN", "ann", 1, 0.8, 3e-9),
            )
        ).as_dict(),
        assumptions=[f"Assumed {name}"],
        environment={f"python {name}": "3.11", "lava-dl": None},
    )


@cache
def shown(name: str = "c") -> str:
    """The page of `full`, drawn once."""
    return render_report(full(name))


class Page(HTMLParser):
    """Tags balanced; tables, attributes and visible text collected."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.tables: dict[str, list[str]] = {}
        self.unnamed = 0
        self.captions = 0
        self._table = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.attributes += [(tag, key, value) for key, value in attrs]
        if tag == "table":
            self._table = found.get("id") or f"table {len(self.tables)}"
            self.tables[self._table] = []
        self.captions += tag == "caption"
        self.unnamed += tag == "th" and "scope" not in found
        value = found.get("data-value")
        if tag == "td" and value is not None:
            self.tables[self._table].append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def test_numbers_on_the_page_are_those_of_the_json() -> None:
    data = full()
    twin, tables = json.loads(json.dumps(report_json(data), allow_nan=False)), Page(shown()).tables
    energy = twin["energy"]
    tapped = ("in_nonzero", "synops", "synops_nonzero_w", "synapses", "dense_macs_exact", "dense_macs_nominal")
    assert tables["layer-table"] == [str(energy["layers"]["c"][key]) for key in (*tapped, "bias_adds")]
    neuron = ("neurons", "neuron_updates", "neuron_updates_touched", "leak_muls", "threshold_cmps", "resets", "spikes")
    assert tables["neuron-table"] == [str(energy["layers"]["c-n"][key]) for key in neuron]
    assert tables["total-table"] == [str(value) for value in energy["totals"].values()]
    expected = [
        row[key] for row in energy["conventions"] for key in ("snn_J", "ann_J", "snn_over_ann") if row[key] is not None
    ]
    assert [float(value) for value in tables["convention-table"]] == expected
    assert tables["accuracy-table"] == ["0.975", "40", "0"]
    assert tables["parity-table"] == ["1234567", "89", "0.95"]


def test_memory_and_chips_have_tables_with_the_json_s_numbers() -> None:
    energy = json.loads(json.dumps(report_json(full())))["energy"]
    tables = Page(shown()).tables
    stored = ("weight_words", "bias_words", "weight_bits", "weight_bytes", "weight_reads", "bias_reads")
    moved = ("potential_reads", "potential_writes", "queue_reads", "queue_bits")
    assert tables["memory-table"] == [str(energy["layers"]["c"][key]) for key in (*stored, *moved)]
    state = ("state_words", "state_bits", "state_bytes", "state_reads", "state_writes", "queue_writes", "queue_bits")
    assert tables["state-table"] == [str(energy["layers"]["c-n"][key]) for key in state]
    of_chips = {
        "chip-table": ("total_J", "ann_J", "latency_s"),
        "chip-parts": ("floor_J", "events_J", "edp_Js", "inferences_per_J"),
    }
    for name, keys in of_chips.items():
        ends = re.findall(r'data-low="([^"]+)" data-high="([^"]+)"', table(shown(), name))
        expected = [line[key] for line in energy["chips"] for key in keys if line[key] is not None]
        assert [[float(low), float(high)] for low, high in ends] == expected
        assert len(expected) > 6


def test_a_measured_twin_is_told_in_its_own_words() -> None:
    x = np.ones((1, 1, 1, 3, 3), np.float32)
    one_pass = measure_energy(net(), x).counts.totals.ann_macs_exact
    twin = AnnTwin(one_pass // 2, one_pass, 1, "twin")
    page = render_report(ReportData("x", energy=measure_energy(net(), x, twin=twin).as_dict()))
    assert "with zeros skipped: MACs on non-zero inputs, counted in the trained twin." in page


def test_the_heat_map_and_the_trade_off_have_tables_with_the_json_s_numbers() -> None:
    data = full()
    twin, page = json.loads(json.dumps(report_json(data))), Page(shown())
    for number, one in enumerate(twin["energy"]["placement"]["placements"], 1):
        expected = [core[key] for core in one["cores"] for key in ("neurons", "in_axons")]
        assert page.tables[f"core-table-{number}"] == [str(value) for value in expected]
    assert twin["energy"]["placement"]["placements"][0]["cores"][0]["in_axons"] == 9
    rows = [[p["steps"], p["accuracy"], p["joules"]] for p in twin["tradeoff"]["points"]]
    assert page.tables["tradeoff-table"] == [str(value) for row in rows for value in row if value is not None]
    text = shown()
    assert "112.50\u00a0%" in text  # 9 input axons of 8
    assert "<li>note c</li>" in text


def test_shown_figures_are_the_exact_values_rounded() -> None:
    page = shown()
    cells = re.findall(r'data-value="([^"]+)">(?:at least )?([^<]+)<', page)
    factors = {"J": 1, "mJ": 1e-3, "µJ": 1e-6, "nJ": 1e-9, "pJ": 1e-12, "fJ": 1e-15}
    checked = 0
    for value, text in cells:
        digits, unit = re.fullmatch(r"([\d.,\u202fe+-]+?)\s?(J|mJ|µJ|nJ|pJ|fJ|%|×)?", text).groups()  # type: ignore[union-attr]
        factor = 0.01 if unit == "%" else factors.get(unit or "", 1)
        assert float(re.sub("[\u202f,]", "", digits)) * factor == approx(float(value), rel=6e-3)
        checked += 1
    assert checked > 60


def test_every_name_is_escaped() -> None:
    page = shown(EVIL)
    assert page.count("<script") == 1  # ours
    assert "&lt;script&gt;alert" in page
    Page(page)


@pytest.mark.push(2)
@pytest.mark.parametrize("name", ["層 слой 😀", "x" * 500, "a\nb\t<", "$\\frac{", " ", "_hidden"])
def test_odd_names_draw_without_a_warning(name: str) -> None:
    Page(render_report(full(name)))


def test_the_policy_admits_our_script_alone() -> None:
    page = shown(EVIL)
    script = re.findall(r"<script>(.*?)</script>", page, re.S)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'\"" in page
    assert "default-src 'none'" in page


def test_models_terms_samples_and_checks_are_those_of_the_json() -> None:
    data = full()
    twin, page = json.loads(json.dumps(report_json(data))), render_report(data)
    tables = Page(page).tables
    energy = twin["energy"]
    expected = [m[key] for m in energy["models"] for key in ("snn_J", "ann_J", "snn_over_ann")]
    assert [float(value) for value in tables["model-table"]] == expected
    assert [float(v) for v in tables["term-table"]] == [i["count"] for i in energy["itemised"][energy["leads"]]["snn"]]
    assert [float(v) for v in tables["sample-table"][:4]] == list(energy["per_sample"]["synops_AC"].values())
    shown_ratios = [float(v) for v in tables["grid-table"]]
    assert shown_ratios == [c["snn_over_ann"] for c in sorted_cells(energy)]


def sorted_cells(energy: dict[str, Any]) -> list[dict[str, Any]]:
    """Row by row: each dataflow under every price list."""
    lists = list(dict.fromkeys(c["prices"] for c in energy["comparisons"]))
    rows = list(dict.fromkeys((c["dataflow"], c["sums"]) for c in energy["comparisons"]))
    found = {(c["dataflow"], c["sums"], c["prices"]): c for c in energy["comparisons"]}
    return [found[*row, name] for row in rows for name in lists]


def test_the_page_opens_with_the_verdict() -> None:
    page = shown()
    energy = full().energy
    assert energy is not None
    assert energy["verdict"].startswith(energy["headline"])
    first = page.split("<main>")[0]
    for text in (energy["headline"], energy["verdict"].removeprefix(energy["headline"])):
        assert escape(text, quote=False).replace("'", "&#39;") in first
    assert first.index('id="frontier"') < first.index('id="dominating"') < first.index('id="thresholds"')
    assert page.index('id="network"') < page.index('id="comparison"') < page.index('id="chips"')


def test_every_term_has_its_sentence() -> None:
    page = shown()
    for term in re.findall(r'class="term" href="#(g-[^"]+)"', page):
        assert f'<dt id="{term}">' in page


def test_the_boxes_of_the_net_are_the_json_s_layers() -> None:
    energy = full().energy
    assert energy is not None
    drawn, left_out = boxes(energy)
    assert left_out == 0
    assert [box.name for box in drawn] == list(energy["layers"])
    assert [box.joules for box in drawn] == [entry["snn_J"] for entry in energy["by_layer"]]
    assert sum(box.share for box in drawn) == approx(1.0)
    assert sum(box.joules for box in drawn) == approx(energy["quoted"]["snn_J"])


def test_the_cheapest_of_many_layers_are_one_bar() -> None:
    """Dearest first by the dearer side; the bars of one side add up to its whole."""
    kinds = ("weights", "states", "operations", "transient")
    terms = [
        {"side": side, "layer": f"l{i:02}", "term": kind, "kind": kind, "joules": float(i)}
        for i in range(20)
        for side, kind in zip(("SNN", "ANN") * 2, kinds, strict=True)
    ]
    with style():
        drawn = inline(dominating(terms), "dominating", "")
    shown = [name for name in (f"l{i:02}" for i in range(20)) if f">{name}</text>" in drawn]
    assert shown == [f"l{i:02}" for i in range(15, 20)]
    assert ">15 others</text>" in drawn
    for joules_of in (2 * sum(range(20)), 2 * sum(range(15)), 38):
        assert drawn.count(f">{joules_of}\u00a0J</text>") >= 2  # SNN and ANN
    with style():
        assert "others" not in inline(dominating(terms[:24]), "dominating", "")


def test_every_figure_is_written_as_a_drawing_and_as_its_data(tmp_path: Path) -> None:
    write_figures(report_json(full()), tmp_path / "figures")
    names = [*drawings(report_json(full()))]
    assert {"frontier", "dominating", "thresholds"} <= {*names}
    assert {file.name for file in (tmp_path / "figures").iterdir()} == {
        f"{name}.{form}" for name in names for form in ("svg", "pdf", "csv")
    }
    for name in names:
        assert (tmp_path / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert "#0102" not in (tmp_path / "figures" / f"{name}.svg").read_text()  # a page's stand-in colours
    with (tmp_path / "figures" / "thresholds.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["after"]) for row in rows] == approx(np.linspace(0.5, 1.5, 6).tolist())
    with (tmp_path / "figures" / "dominating.csv").open() as file:
        parts = [row for row in csv.DictReader(file) if row["side"] == "SNN"]
    energy = full().energy
    assert energy is not None
    assert sum(float(row["joules"]) for row in parts) == approx(energy["quoted"]["snn_J"])


def test_places_that_no_panel_takes_are_not_drawn() -> None:
    figure, axes = panels(3, 4.0, 1.0, columns=2)
    assert [one.get_visible() for one in figure.axes] == [True, True, True, False]
    assert list(figure.axes[:3]) == axes


def test_edges_that_do_not_come_from_the_box_before_are_named() -> None:
    eye = np.eye(2)
    meets = Neuron(
        **{**vars(lif("n", "w", (2,))), "operands": (Operand("w"), Operand("skip"), Operand("back", delay=1))}
    )
    nodes = lif("a", "in", (2,)), linear("w", "a", eye), linear("skip", "a", eye), meets, linear("back", "n", eye)
    energy = measure_energy(program(start((2,)), *nodes), np.ones((3, 1, 2), np.float32)).as_dict()
    assert energy["edges"]["n"] == ["w", "skip", "back"]
    drawn = {box.name: (box.follows, box.others) for box in boxes(energy)[0]}
    assert drawn == {
        "a": (False, ()),
        "w": (True, ()),
        "skip": (False, ("a",)),
        "n": (True, ("w", "back, a step ago")),
        "back": (True, ()),
    }
    page = render_report(ReportData("skip", energy=energy))
    assert "and from w; back, a step ago" in page
    assert ">↪ from a<" in page


def table(page: str, name: str) -> str:
    return page.split(f'id="{name}"')[1].split("</table>")[0]


def test_classes_have_their_rows() -> None:
    x = np.random.default_rng(0).integers(0, 2, (3, 5, 1, 3, 3)).astype(np.float32)
    energy = measure_energy(net(), x, labels=np.array([3, 3, 8, 8, 8])).as_dict()
    page = render_report(ReportData("classes", energy=energy))
    assert page.count("class 3 (2)") == page.count("class 8 (3)") == 3


def test_nothing_is_loaded_from_elsewhere() -> None:
    page = shown()
    parsed = Page(page)
    loads = {"src", "href", "xlink:href", "action", "data", "poster", "srcset"}
    assert all(str(value).startswith("#") for _, key, value in parsed.attributes if key in loads)
    assert not any(tag == "script" for tag, _, _ in parsed.attributes)  # ours has none, so no src
    assert not any(tag in {"link", "iframe", "object", "embed"} for tag, _, _ in parsed.attributes)
    assert "http:" not in page
    assert "https:" not in page
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_ids_are_unique_and_every_reference_has_its_target() -> None:
    page = shown()
    attributes = Page(page).attributes
    ids = [value for _, key, value in attributes if key == "id"]
    assert len(ids) == len(set(ids))
    references = {str(value)[1:] for _, key, value in attributes if key == "href"}
    assert references | set(re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)


def test_tables_have_captions_and_scopes_and_drawings_a_description() -> None:
    page = shown()
    parsed = Page(page)
    assert parsed.captions == len(parsed.tables)
    assert parsed.unnamed == 0
    assert page.count("<svg") == page.count('role="img" aria-label="') == 7


def test_light_dark_and_print_share_one_drawing() -> None:
    page = shown()
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert "currentColor" in page
    assert "var(--s1)" in page
    assert "#0102" not in page


def test_the_same_data_make_the_same_page_and_leave_no_settings_behind() -> None:
    before = dict(mpl.rcParams)
    assert render_report(full()) == shown()
    assert dict(mpl.rcParams) == before


def test_sections_that_are_missing_are_not_linked() -> None:
    attributes = Page(render_report(ReportData(title="Nothing"))).attributes
    ids = {value for _, key, value in attributes if key == "id"}
    assert {str(value)[1:] for _, key, value in attributes if key == "href"} <= ids


def test_an_empty_report_says_what_it_lacks() -> None:
    page = render_report(ReportData(title="Nothing"))
    Page(page)
    missing = "Accuracy, Parity, Learning, Thresholds, Spikes, Energy, Cores"
    assert f"Not part of this report: {missing}, Accuracy against energy." in page
    assert re.findall(r'<details class="part" id="([^"]+)"', page) == ["sources", "glossary"]
    assert "Not part of this report" not in shown()
    assert report_json(ReportData(title="Nothing"))["energy"] is None


def test_a_silent_network_has_a_page() -> None:
    quiet = program(start((2,)), linear("l", "in", [[1, 1]]))
    Page(render_report(ReportData("quiet", energy=measure_energy(quiet, np.zeros((1, 1, 2))).as_dict())))


def _part(page: str, start: str, end: str) -> str:
    """The page's text between two marks, without tags."""
    return re.sub("<[^>]*>", " ", page.partition(start)[2].partition(end)[0])


def _dense_only(energy: Mapping[str, Any]) -> None:
    rows = [row for row in energy["conventions"] if row["snn_J"] is not None]
    rows += [row for row in energy["energy"] if row["ann"] is not None]
    assert {row["ann_zeros"] for row in rows} == {"computed"}


def test_every_table_says_what_the_ann_does_with_its_zeros() -> None:
    x = np.random.default_rng(0).integers(0, 2, (3, 5, 1, 3, 3)).astype(np.float32)
    skipped, dense = "the ANN skips its zeros, as measured", "the ANN is dense, its zeros not skipped"
    twin = AnnTwin(40 * 5, 98 * 5, 5, "twin", 0.9, {"c": 40 / 98})
    pages = {}
    for told, each in (("skipped", twin), ("computed", None)):
        energy = measure_energy(net(), x, twin=each).as_dict()
        page = pages[told] = render_report(ReportData("x", energy=energy))
        _dense_only(energy)
        assert {row["ann_zeros"] for row in energy["by_layer"]} == {told} == {energy["quoted"]["ann_zeros"]}
        assert (skipped if each else dense) in _part(page, 'id="sensitivity-table"', "</caption>")
        for identity in ("price-table", "convention-table", "model-table"):
            assert dense in _part(page, f'id="{identity}"', "</caption>")
        assert f"Same counts throughout; {dense}" in page
        for mark in ('id="dominating"', 'id="comparison"'):
            end = "</figcaption>" if "dom" in mark else "</caption>"
            assert (skipped if each else dense) in _part(page, mark, end)
        cells = _part(page, 'id="break-even-table"', "</table>")
        for name, how in (("arithmetic alone", {"computed"}), ("weights", {told}), ("operations", {"computed", told})):
            rows = [row for row in energy["break_even"]["models"] if row["name"].startswith(name)]
            assert {row["ann_zeros"] for row in rows} == how
        counted = [row["ann_zeros"] for row in energy["break_even"]["models"]]
        assert cells.count("skipped, as measured") == counted.count("skipped")
        assert cells.count("not skipped") == counted.count("computed")
        for row in energy["models"]:
            assert (row["ann_zeros"] == "skipped") == row["name"].endswith("zeros skipped")
        assert any("Its zeros, as measured in the trained twin" in line for line in energy["assumptions"]) == bool(each)
        assert any("Its own zeros were not measured" in line for line in energy["assumptions"]) != bool(each)
    assert skipped not in pages["computed"]


def test_the_page_compares_with_the_graph() -> None:
    page = shown()
    assert "1 234 478 of 1 234 567 spikes and silences equal the graph’s" in page
    assert "against the graph’s, or against the run named" in page
    assert "trained model" not in page
    equal = replace(full(), parity=[ParityRow("torch", 1234, 0)])
    assert "torch: all 1 234 spikes and silences equal the graph’s" in render_report(equal)


def test_what_has_no_price_is_told_with_its_bounds() -> None:
    x = np.ones((1, 1, 1, 3, 3), np.float32)
    page = render_report(ReportData("x", energy=measure_energy(net(), x).as_dict()))
    assert "hops between cores: no placement is known: 0\u00a0J to " in page
    assert "at most across two chips’ meshes" in page.replace("&#39;", "’")
    assert "Messages and hops between cores are not counted: no placement is known." in page
    assert "withheld" not in page


def test_numbers_that_are_not_finite_are_refused_by_place() -> None:
    data = ReportData("x", curves=[{"epoch": 1, "loss": float("nan")}])
    with pytest.raises(InputError, match=r"report\.curves\[0\]\.loss is nan"):
        report_json(data)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0 J"), (1.5e-9, "1.5 nJ"), (9.996e-10, "1000 pJ"), (2e-18, "0.002 fJ"), (3.0, "3 J")],
)
def test_joules_take_the_prefix_that_fits(value: float | None, text: str) -> None:
    assert joules(value) == text.replace(" ", "\u00a0")


def test_counts_are_grouped_and_ranges_written_out() -> None:
    assert count(1234567) == "1\u202f234\u202f567"
    assert span([1e-9, 1e-9]) == "1\u00a0nJ"
    assert span([1e-9, 2e-6]) == "1\u00a0nJ to 2\u00a0µJ"
    assert ratios([0.5, 0.5]) == "0.500×"
    assert ratios([0.5, 12.345]) == "0.500× to 12.3×"
    assert ratios(None) == "–"
