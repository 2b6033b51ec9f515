"""Environments of witnesses: a Python of the right version with pinned packages, found or built once, apart from ours.

Each lives in ``$STL_DEPLOY_WITNESSES/NAME``, else under the user's cache folder. A stamp written last, after the
package could be imported, is what makes it count: an interrupted install is not taken for a good one.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stl_deploy._util.files import cache_dir, read_json, write_json
from stl_deploy._util.remedies import did_you_mean, remedy
from stl_deploy.errors import InputError, ToolError
from stl_deploy.exporters.lava.environment import (
    Version,
    create,
    discard,
    fill,
    find_python,
    folder_from,
    lock,
    pins_hash,
    step,
)

STAMP = "stl-deploy-witness.json"
HERE = Path(__file__).parent
COMPILERS = ("c++", "g++", "clang++")
SIDE = HERE / "side"
"""Scripts that run in these environments."""


@dataclass(frozen=True)
class Witness:
    """module: imported as a check after the install. requirements: every package, pinned. size: about, in words.

    compiled: whether its package is C++ source, so that the install needs a compiler.
    """

    name: str
    title: str
    version: Version
    module: str
    requirements: Path
    size: str
    licence: str
    compiled: bool = False

    @property
    def location(self) -> Path:
        """Return its environment's folder, built or not."""
        return (folder_from("STL_DEPLOY_WITNESSES") or cache_dir().absolute() / "witnesses") / self.name

    @property
    def python(self) -> Path:
        """Return its interpreter."""
        return self.location / "bin" / "python"

    def reason(self) -> str | None:
        """Return None if it can be used now, else the reason and the remedy."""
        what = "run: " + remedy(
            cli=f"stl-deploy witness install {self.name}", python=f"stl_deploy.verbs.witness_install({self.name!r})"
        )
        if not self.python.exists():
            return f"no environment of {self.title} at {self.location}; {what}"
        try:
            good = read_json(self.location / STAMP)["requirements"] == pins_hash(self.requirements)
        except (InputError, KeyError, TypeError):
            return f"the environment of {self.title} at {self.location} was not finished; {what}"
        return None if good else f"the environment of {self.title} at {self.location} has other packages; {what}"

    def status(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        reason = self.reason()
        return {
            "name": self.name,
            "ready": reason is None,
            "location": str(self.location),
            "python": str(self.python),
            "licence": self.licence,
            "reason": reason,
        }

    def require(self) -> Path:
        """Return its interpreter; raise ToolError with the remedy if it is not ready."""
        reason = self.reason()
        if reason is not None:
            raise ToolError(reason)
        return self.python

    def install(self, python: Path | None = None, say: Callable[[str], None] = lambda line: None) -> None:
        """Build the environment unless it is ready; raise ToolError if no Python fits or a step fails."""
        place = self.location
        with lock(place, self.title):
            if self.reason() is None:
                return
            if self.compiled and not any(shutil.which(name) for name in COMPILERS):
                raise ToolError(
                    f"{self.title} is compiled here: expected a C++ compiler ({', '.join(COMPILERS)}); found none; "
                    "install one (on Debian: apt install g++)"
                )
            create(place, find_python(self.version, self.title, python), "STL_DEPLOY_WITNESSES", say)
            say(f"installing {self.title} ({self.size}; {self.licence})")
            self._fill()
            step([self.python, "-I", "-c", f"import {self.module}"], f"importing {self.title}")
            write_json(place / STAMP, {"requirements": pins_hash(self.requirements)})

    def _fill(self) -> None:
        try:
            fill(self.python, self.requirements, self.title)
        except ToolError as error:
            if self.compiled and "build" in str(error):
                compiler = next(name for name in COMPILERS if shutil.which(name))
                raise ToolError(f"{error}; check that '{compiler}' compiles and links C++ programs here") from None
            raise

    def remove(self) -> int:
        """Remove the environment; return the freed bytes. Raises as `discard` does."""
        return discard(self.location, self.title, "witness install")


BRIAN2 = Witness("brian2", "Brian2", (3, 12), "brian2", HERE / "brian2.txt", "about 200 MB", "CeCILL-2.1")
XYLOSIM = Witness(
    "xylosim",
    "xylosim",
    (3, 11),
    "xylosim.v2",
    HERE / "xylosim.txt",
    "about 85 MB; compiled here with a C++ compiler",
    "SynSense; the package declares no licence",
    compiled=True,
)
WITNESSES = {witness.name: witness for witness in (BRIAN2, XYLOSIM)}


def find_witness(name: str) -> Witness:
    """Find by its backend's name or its own (``Brian2``); raise InputError with the known names."""
    for witness in WITNESSES.values():
        if name.lower() in (witness.name, witness.title.lower()):
            return witness
    raise InputError(f"expected a witness: {', '.join(WITNESSES)}; found '{name}'{did_you_mean(name, WITNESSES)}")


def witness_install(
    name: str, python: Path | None = None, progress: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Build a witness's environment unless it is ready; return its status.

    Raises as `Witness.install` and `find_witness`.
    """
    witness = find_witness(name)
    witness.install(python, progress or (lambda line: None))
    return witness.status()


def witness_status(name: str) -> dict[str, Any]:
    """Return whether a witness can be used, and why not (JSON-ready); raise InputError with the known names."""
    return find_witness(name).status()


def witness_remove(name: str) -> tuple[Path, int]:
    """Remove a witness's environment; return its folder and the freed bytes; raise as `Witness.remove`."""
    witness = find_witness(name)
    return witness.location, witness.remove()
