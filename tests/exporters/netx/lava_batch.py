"""Run many netx files in one Lava process: python -I lava_batch.py SIDE FOLDER, with Lava's Python.

SIDE: the folder of worker.py. FOLDER/<name>/net.net and input.npz give FOLDER/<name>/spikes.npz.
"""

from __future__ import annotations

import os
import sys


def main(side: str, folder: str) -> None:
    sys.path.insert(0, side)
    import numpy as np
    import worker

    for name in sorted(os.listdir(folder)):
        case = os.path.join(folder, name)
        if os.path.exists(os.path.join(case, "spikes.npz")):
            continue
        job = {"net": os.path.join(case, "net.net"), "input": os.path.join(case, "input.npz")}
        spikes = worker.run_job(job, case)
        np.savez(os.path.join(case, "part.npz"), **spikes)
        os.replace(os.path.join(case, "part.npz"), os.path.join(case, "spikes.npz"))


if __name__ == "__main__":
    main(*sys.argv[1:])
