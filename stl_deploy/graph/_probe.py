"""Reads HDF5 files through once, in a process of its own, for `_guard`: ``python -P -m stl_deploy.graph._probe``.

A line with path and kind (JSON) comes in; a dot goes out for every object looked at, then a line: ``{}`` or
``{"error": ...}``.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path

_MEMORY_BYTES = 8 * 2**30


def main() -> None:
    """Answer until the input ends."""
    from stl_deploy.errors import InputError
    from stl_deploy.graph._hdf5 import scanned

    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = _MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(_MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    os.write(1, b".")
    for line in sys.stdin:
        path, kind = json.loads(line)
        try:
            with scanned(Path(path), kind, lambda: os.write(1, b".")) as (file, scan):
                scan.walk(file)
            answer = {}
        except InputError as error:
            answer = {"error": str(error)}
        os.write(1, ("\n" + json.dumps(answer) + "\n").encode())


if __name__ == "__main__":
    main()
