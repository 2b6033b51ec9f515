"""Every format that the product reads from strangers, by name."""

from __future__ import annotations

from collections.abc import Mapping

from tests.hunt import data_formats, net_formats, run_formats, text_formats
from tests.hunt.mutant import Format

FORMATS: Mapping[str, Format] = {
    **net_formats.FORMATS,
    **run_formats.FORMATS,
    **text_formats.FORMATS,
    **data_formats.FORMATS,
}
