"""Let idle OpenMP threads sleep instead of spin.

torch's threads wait for each other after every operation. Spinning costs a training step several times its length
when anything else wants the processor: a thread that is not running keeps all others turning.
"""

from __future__ import annotations

import os
import sys


def sleep_when_idle() -> bool:
    """Ask OpenMP for passive waiting; return True if that was done.

    Call it before torch is imported, since OpenMP reads its settings once; the user's own setting is kept.
    """
    if "torch" in sys.modules or any(name in os.environ for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")):
        return False
    os.environ["OMP_WAIT_POLICY"] = "passive"
    return True
