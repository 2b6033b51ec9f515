"""Golden files for the daily tests: one small case of each row that matches, as the framework wrote and ran it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.conformance.runs import Result

GOLDEN = Path(__file__).parents[1] / "exporters" / "nir" / "golden"


def record(results: Sequence[Result], folder: Path) -> None:
    """Keep the bytes of the NIR file, the input and the spikes of each matching row's first net with ties."""
    GOLDEN.mkdir(exist_ok=True)
    for result in results:
        row = result.row
        (GOLDEN / f"{row.name}.npz").unlink(missing_ok=True)
        if result.compared and not result.differ:
            stem = f"{folder}/{row.name}-0-ties"
            with np.load(f"{stem}.in.npz") as given, np.load(f"{stem}.out.npz") as found:
                arrays = {name: found[name].astype(np.uint8) for name in found.files}
                arrays |= {
                    "x": given["x"].astype(np.uint8),
                    "nir": np.frombuffer(Path(f"{stem}.nir").read_bytes(), np.uint8),
                }
            np.savez_compressed(GOLDEN / f"{row.name}.npz", **arrays)
