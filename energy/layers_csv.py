"""Write the layers of an energy JSON as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def layers_csv(energy: Mapping[str, Any]) -> str:
    """Return a CSV table: one row per layer, one column per count; empty where a layer has no such count.

    A text that a spreadsheet would take for a formula gets a leading apostrophe.
    """
    layers: Mapping[str, Mapping[str, Any]] = energy["layers"]
    columns = list(dict.fromkeys(key for layer in layers.values() for key in layer))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["layer", *map(_safe, columns)])
    for name, layer in layers.items():
        writer.writerow([_safe(name), *(_safe(layer.get(column, "")) for column in columns)])
    return text.getvalue()


def _safe(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
