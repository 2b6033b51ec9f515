"""Import objects of other packages by their entry points, each first in a child process.

Whatever runs at a package's import may end, crash or block the process, and with it a verb that does not use the
package. The child reports whether the import succeeds; only then does this process import it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from typing import Any

from stl_deploy._util import system
from stl_deploy.errors import InputError

_SECONDS = 60.0
"""Time limit of an import."""
_REPORT = b"stl-deploy import: "
_CHILD = f"""
import json, os, sys
sys.path[:], *entry = json.loads(sys.argv[1])
from importlib.metadata import EntryPoint
refusal = None
try:
    EntryPoint(*entry).load()
except (Exception, SystemExit) as error:
    refusal = f"{{type(error).__name__}}: {{error}}"
print("\\n{_REPORT.decode()}" + json.dumps(refusal), flush=True)
os._exit(0)  # without waiting for threads of the package
"""


def load(entry: EntryPoint) -> Any:
    """Import the object that an entry point names.

    Raises:
        InputError: If the import raises, ends Python or takes over a minute, in the child process or in this one.
    """
    refusal = _refusal(entry) if system.starts_processes() else None
    if refusal is None:
        try:
            return entry.load()
        except (Exception, SystemExit) as error:  # another package's code may raise anything
            refusal = f"{type(error).__name__}: {error}"
    raise InputError(f"{entry.value} cannot be loaded ({refusal})")


def _refusal(entry: EntryPoint) -> str | None:
    """Return why a child process cannot import the object, or None."""
    asked = json.dumps([sys.path, entry.name, entry.value, entry.group])
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-c", _CHILD, asked],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"its import takes over {_SECONDS:g} s"
    except OSError as error:
        return f"no process can be started to try its import: {error}"
    last = child.stdout.rstrip().rpartition(b"\n")[2]
    if last.startswith(_REPORT):
        refusal: str | None = json.loads(last.removeprefix(_REPORT))
        return refusal
    ending = f"signal {-child.returncode}" if child.returncode < 0 else f"exit code {child.returncode}"
    return f"its import ends Python with {ending}"
