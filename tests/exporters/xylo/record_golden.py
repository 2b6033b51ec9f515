"""Record xylosim's spikes, v and i on random networks; run in its environment:

PYTHON_OF_XYLOSIM tests/exporters/xylo/record_golden.py

The path is told by ``stl-deploy witness status xylosim``. Networks and inputs are kept with the results.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
GOLDEN = HERE / "golden.npz"
SEEDS = (0, 1)


def main() -> None:
    """Write `GOLDEN`."""
    sys.path[:0] = [str(HERE), str(HERE.parents[2] / "exporters" / "witnesses" / "side")]
    from drawn import KINDS, draw
    from xylosim_worker import run

    kept = {}
    for kind in KINDS:
        for seed in SEEDS:
            spec, x = draw(kind, seed)
            parts = {"spec": spec, "run": run(spec, x), "in": {"x": x}}
            for part, arrays in parts.items():
                kept |= {f"{kind}.{seed}.{part}.{name}": np.asarray(array) for name, array in arrays.items()}
    np.savez_compressed(GOLDEN, **kept)


if __name__ == "__main__":
    main()
