"""The check of our writing finds what it should, and the rooms that are clean stay clean."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.style import ROOT, problems

CLEAN: tuple[str, ...] = (
    "stl_deploy",
    "exporters",
    "energy",
    "examples",
    "benchmarks",
    "docs/tutorials",
    "docs/how-to",
    "docs/reference",
    "docs/capture.md",
    "docs/energy.md",
    "README.md",
)


@pytest.mark.parametrize("place", CLEAN)
def test_clean_rooms_stay_clean(place: str) -> None:
    start = ROOT / place
    files = [start] if start.is_file() else [*start.rglob("*.py"), *start.rglob("*.md")]
    found = [f"{path.relative_to(ROOT)}:{line}: {why}" for path in files for line, why in problems(path)]
    assert found == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('"""What a pass returns."""\n', 1),
        ("x = 1\nfound = x\n", 2),
        ("y = [one for one in x]\n", 1),
        ("y = [one for _, one in x]\n", 1),
        ("y = lambda one: one\n", 1),
        ("found: int = 1\n", 1),
        ("# whole numbers\n", 1),
        ('def f():\n    """How it is done."""\n', 2),
        ('LONGEST = 32\n"""How long a name may be."""\n', 2),
        ('class A:\n    """A."""\n\n    x: int\n    """What it holds."""\n', 5),
    ],
)
def test_each_form_is_noticed(text: str, line: int, tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text(text, encoding="utf-8")
    assert line in [number for number, _ in problems(path)]


def test_plain_sentences_pass(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text(
        '"""Fold each norm into the preceding layer."""\nlayers = [layer for layer in ()]\n"""Layers."""\n'
        'print(layers)\n"""What no name stands before is no docstring."""\n',
        encoding="utf-8",
    )
    assert list(problems(path)) == []


def test_every_message_of_the_troubleshooting_page_is_one_of_ours() -> None:
    page = (ROOT / "docs" / "how-to" / "troubleshooting.md").read_text(encoding="utf-8")
    rooms = ("stl_deploy", "exporters", "energy")
    source = "".join(path.read_text(encoding="utf-8") for room in rooms for path in (ROOT / room).rglob("*.py"))
    joined = re.sub(r'"\s*\n\s*f?"', "", source)
    quoted = re.findall(r"^\| `([^`]+)`", page, re.MULTILINE)
    assert len(quoted) > 10
    assert [words for words in quoted if words not in joined] == []
