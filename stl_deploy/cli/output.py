"""Where verbs put what they have to say: tables and lines on stderr, JSON on stdout."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from io import StringIO
from typing import Any

from stl_deploy._util import processes
from stl_deploy._util.console import Console


@dataclass
class Settings:
    """Options that may stand anywhere on the command line."""

    debug: bool = False
    quiet: bool = False


settings = Settings()


def console() -> Console:
    """The console of this call: rich on a terminal, plain elsewhere; silent with -q, and but for the first process."""
    if processes.place() > 0:
        return Console(quiet=True, stream=StringIO())
    return Console(quiet=settings.quiet)


def emit_json(data: Any) -> None:
    """Data for scripts, on stdout."""
    if processes.place() > 0:
        return
    json.dump(data, sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")
