"""Compile the fast path ahead of time, with a message."""

from __future__ import annotations

import os
import time
from typing import Any

from stl_deploy._util import install
from stl_deploy._util.console import QUIET, Console
from stl_deploy.errors import ToolError


def announce(device: str, say: Console) -> None:
    """Compile the fast path now, with a message, if this device takes it and its code is not cached."""
    import torch

    from stl_deploy.nn import fused

    on_cpu = device == "cpu" or (device == "auto" and not torch.cuda.is_available())
    if on_cpu and install.is_there("numba") and os.environ.get(fused.SWITCH) != "0" and not fused.is_warm():
        say.say("compiling the fast path (once, about 15 s)")
        fused.works(torch.float32)


def warm(*, say: Console = QUIET) -> dict[str, Any]:
    """Compile all of the fast path for float32 and keep it for later processes.

    Returns the time (JSON-ready): ``first_seconds`` until the common kernels were there, ``seconds`` in all.

    Raises ToolError if numba is missing, or its code cannot be kept on this disk.
    """
    install.require("torch", "numba")
    import torch

    from stl_deploy.nn import fused

    kept, all_kept = fused.is_warm(), fused.is_warm("everything")
    say.say("loading the fast path" if kept else "compiling what every training needs (about 15 s)")
    start = time.perf_counter()
    compiles = fused.works(torch.float32)
    first = time.perf_counter() - start
    if compiles and not all_kept:
        done = "loaded" if kept else "compiled"
        say.say(f"{done} ({first:.1f} s); compiling what only some networks need (about 12 s)")
    compiles = compiles and fused.works(torch.float32, "everything")
    seconds = time.perf_counter() - start
    if not compiles or not fused.is_warm("everything"):
        raise ToolError("the fast path is not kept: it does not compile here, or there is no folder to write it into")
    say.say(f"the fast path is compiled and kept ({seconds:.1f} s); the next run starts without compiling")
    return {"seconds": seconds, "first_seconds": first}
