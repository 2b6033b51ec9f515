"""Record what nengo-loihi does with the networks of `cases.py`: python -m tests.exporters.witnesses.record_golden

Its environment must be there (stl-deploy witness install nengo_loihi); some minutes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.exporters.netx.target import NetxOptions
from stl_deploy.exporters.witnesses.target import NengoLoihi
from tests.exporters.witnesses.cases import cases

GOLDEN = Path(__file__).parent / "nengo_loihi.npz"


def main() -> None:
    found: dict[str, NDArray[Any]] = {}
    for name, (net, x) in cases().items():
        run = NengoLoihi(None, NetxOptions()).integers(net, x, True)  # type: ignore[arg-type]
        found |= {f"{name}/{key}": np.packbits(spikes) for key, spikes in run.spikes.items()}
    np.savez_compressed(GOLDEN, allow_pickle=False, **found)


if __name__ == "__main__":
    main()
