"""Record what real Lava does with the networks of `nets.py` into golden/.

python -m tests.exporters.netx.record_golden      (Lava's side environment must be there; some ten minutes)
"""

from __future__ import annotations

import io
import lzma
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.exporters.lava import environment
from stl_deploy.exporters.lava.process import WORKER
from stl_deploy.exporters.netx.file import write_netx
from tests.exporters.netx.golden import FOLDER, pack
from tests.exporters.netx.nets import Case, random_case, special_cases

RANDOM_CASES = 40
LONG_CASES = range(40, 200)
"""Seeds of the networks that are run for up to 100 steps."""


def record(cases: dict[str, Case], scratch: Path) -> dict[str, NDArray[Any]]:
    """Run the cases on Lava, one process for all; ``scratch`` keeps what is done if it is ended."""
    for name, (net, x) in cases.items():
        (scratch / name).mkdir(exist_ok=True)
        write_netx(net, scratch / name / "net.net")
        np.savez(scratch / name / "input.npz", x=x)
    script = Path(__file__).with_name("lava_batch.py")
    command = [str(environment.require()), "-I", str(script), str(WORKER.parent), str(scratch)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, start_new_session=True)
    arrays: dict[str, NDArray[Any]] = {}
    for name, (_, x) in cases.items():
        with np.load(scratch / name / "spikes.npz", allow_pickle=False) as found:
            spikes = {key: found[key] for key in found.files}
        file = (scratch / name / "net.net").read_bytes()
        arrays |= {f"{name}/{key}": value for key, value in pack(file, x, spikes).items()}
    return arrays


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    groups = {
        "special": special_cases(),
        "random": {f"random{seed:02d}": random_case(seed) for seed in range(RANDOM_CASES)},
    }
    for group, cases in groups.items():
        with tempfile.TemporaryDirectory() as scratch:
            np.savez_compressed(FOLDER / f"{group}.npz", allow_pickle=False, **record(cases, Path(scratch)))
    with tempfile.TemporaryDirectory() as scratch:
        write_many({f"long{seed:03d}": random_case(seed, longest=100) for seed in LONG_CASES}, Path(scratch))


def write_many(cases: dict[str, Case], scratch: Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **record(cases, scratch))
    (FOLDER / "long.npz.xz").write_bytes(lzma.compress(buffer.getvalue(), preset=9))


if __name__ == "__main__":
    main()
