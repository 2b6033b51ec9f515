"""Where results go: one JSON for each part, one record a line, and the tables into the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from examples.study.figures import write_figures
from stl_deploy._util.files import make_folder, read_json, write_text

BEGIN, END = "<!-- tables:begin -->", "<!-- tables:end -->"
_DIGITS = 6
_OF_EPOCHS = "modes"
"""The part whose epochs are drawn; of the others they stay in the study's own folder."""


def write_results(records: Mapping[str, Sequence[Mapping[str, Any]]], folder: Path) -> None:
    """``PART.json`` for each part that has records: a list, one record a line; epochs of `_OF_EPOCHS` alone."""
    make_folder(folder)
    for part, records_of_part in records.items():
        if records_of_part:
            left_out = set() if part == _OF_EPOCHS else {"epochs"}
            kept = [{key: value for key, value in record.items() if key not in left_out} for record in records_of_part]
            lines = ",\n".join(json.dumps(record, allow_nan=False) for record in kept)
            write_text(folder / f"{part}.json", f"[\n{lines}\n]\n")


def publish(records: Mapping[str, Sequence[Mapping[str, Any]]], text: str, folder: Path, page: Path) -> None:
    """Results and figures into ``folder``, tables between the markers of ``page``."""
    write_results(records, folder)
    write_figures(records, folder)
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    write_text(page, f"{before}{BEGIN}\n{text}{END}{rest.split(END)[1]}")


def published(part: str, folder: Path) -> list[dict[str, Any]]:
    """The records of a part that are published; none if it never was."""
    path = folder / f"{part}.json"
    return list(read_json(path)) if path.is_file() else []


def rounded(value: Any) -> Any:
    """JSON data with its numbers to six digits: what is written is what tables and figures are made of."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return value
