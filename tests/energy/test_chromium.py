"""The page as a browser shows it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from stl_deploy.report.page import render_report, report_json
from stl_deploy.report.page.templates import ratio as shown_ratio
from tests import chromium
from tests.energy.test_report import EVIL, full

pytestmark = pytest.mark.skipif(
    chromium.PROGRAM is None and not chromium.REQUIRED, reason="no Chromium on this machine to show the page in"
)


@pytest.fixture(scope="module", params=["c", EVIL], ids=["plain", "hostile names"])
def shown(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[chromium.Page, Any]]:
    data = full(request.param)
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_report(data), encoding="utf-8")
    with chromium.page(tmp_path_factory.mktemp("profile")) as tab:
        tab.load(path.as_uri())
        yield tab, json.loads(json.dumps(report_json(data)))


def test_it_renders_without_complaint_or_request(shown: tuple[chromium.Page, Any]) -> None:
    tab, twin = shown
    assert tab.evaluate("document.title") == twin["title"]
    assert tab.evaluate("document.querySelectorAll('svg').length") == 7
    tab.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert tab.evaluate("[...document.querySelectorAll('svg')].every(s => s.getBoundingClientRect().height > 40)")
    tab.evaluate("document.querySelectorAll('details').forEach(d => d.open = false)")
    assert tab.seen("Runtime.exceptionThrown") == []
    assert tab.seen("Runtime.consoleAPICalled") == []
    assert tab.seen("Log.entryAdded") == []
    requests = [request["request"]["url"] for request in tab.seen("Network.requestWillBeSent")]
    assert [url.rsplit("/", 1)[-1] for url in requests] == ["report.html"]


def test_its_numbers_are_those_of_the_json(shown: tuple[chromium.Page, Any]) -> None:
    tab, twin = shown
    totals = "[...document.querySelectorAll('#total-table td')].map(c => c.textContent.replace(/\\u202f/g, ''))"
    assert tab.evaluate(totals) == [str(value) for value in twin["energy"]["totals"].values()]
    assert tab.evaluate("document.querySelector('.verdict').textContent").startswith(twin["energy"]["headline"])
    ratio = twin["energy"]["quoted"]["snn_over_ann"]
    assert tab.evaluate("document.querySelector('.quoted').textContent") == shown_ratio(ratio)


def test_paper_cuts_nothing_off(shown: tuple[chromium.Page, Any]) -> None:
    tab, _ = shown
    tab.emulate("print", width=720)  # as wide as Letter or A4 within usual margins
    cut = "[...document.querySelectorAll('.scroll, figure')].filter(e => getComputedStyle(e).overflowX !== 'visible')"
    assert tab.evaluate(f"{cut}.length") == 0
    if tab.evaluate("document.title") == "Report c":
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    tab.emulate("screen")


def test_it_is_short(shown: tuple[chromium.Page, Any]) -> None:
    """Under 6 screens on a desk; at 390 pixels under 14, and never sideways; at most 8 pages of paper."""
    tab, _ = shown
    for width, height, screens in ((1280, 900, 6), (390, 844, 14)):
        tab.emulate("screen", width=width, height=height)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.evaluate("document.documentElement.scrollHeight") < screens * height
        captions = "[...document.querySelectorAll('main > .scroll caption')]"
        assert tab.evaluate(f"{captions}.every(c => c.getBoundingClientRect().right <= innerWidth)")
        for whole in (
            "header figure svg",
            ".quoted",
            "#chip-table td",
        ):  # charts and framed numbers were cut off at 390 pixels
            found = f"[...document.querySelectorAll('{whole}')]"
            assert tab.evaluate(f"{found}.length") >= 2
            assert tab.evaluate(f"{found}.every(e => e.getBoundingClientRect().right <= innerWidth)"), whole
    tab.emulate("print")
    assert tab.printed_pages() <= 8
    tab.emulate("screen")


def test_names_without_spaces_are_not_broken_to_make_room(shown: tuple[chromium.Page, Any]) -> None:
    tab, _ = shown
    names = "[...document.querySelectorAll('tbody th .soft')].filter(s => !s.textContent.includes(' '))"
    assert tab.evaluate(f"{names}.length") > 20
    tab.emulate("screen", width=400)
    assert tab.evaluate(f"{names}.every(s => s.getClientRects().length === 1)")
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    tab.emulate("screen")


def test_a_click_sorts_and_a_third_click_restores(shown: tuple[chromium.Page, Any]) -> None:
    tab, _ = shown
    values = "[...document.querySelectorAll('#model-table tbody tr')].map(r => Number(r.cells[3].dataset.value))"
    click = "document.querySelectorAll('#model-table thead th')[3].querySelector('button').click()"
    state = "document.querySelectorAll('#model-table thead th')[3].getAttribute('aria-sort')"
    given = tab.evaluate(values)
    for order, expected in (
        ("descending", sorted(given, reverse=True)),
        ("ascending", sorted(given)),
        (None, given),
    ):
        tab.evaluate(click)
        assert tab.evaluate(values) == expected
        assert tab.evaluate(state) == order
