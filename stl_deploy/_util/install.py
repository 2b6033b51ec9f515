"""Optional packages, and the command that installs them for this installation: a clone, a wheel, an index."""

from __future__ import annotations

import importlib.util
import json
import platform
import shlex
import sys

from stl_deploy.errors import ToolError

NAME = "stl-deploy"
PACKAGES = {
    "torch": (None, "trains and runs torch models"),
    "sklearn": (None, "brings the digits dataset"),
    "matplotlib": (None, "draws reports and training curves"),
    "numba": ("fast", "compiles the fast path on the CPU"),
    "torchvision": ("data", "downloads image datasets"),
    "aedat": ("data", "reads .aedat4 files"),
}
"""By the name that is imported: the extra that brings a package (None: the main install does), and what it does."""


LISTED = (
    "torch",
    "numba",
    "nir",
    "onnx",
    "onnxruntime",
    "numpy",
    "h5py",
    "matplotlib",
    "scikit-learn",
    "torchvision",
)
"""Packages whose versions affect results, by the name that pip knows."""


def versions() -> dict[str, str | None]:
    """Return the version of this package, of Python, and of every package of `LISTED`; None for missing ones."""
    from importlib.metadata import PackageNotFoundError, version

    from stl_deploy import __version__

    by_package: dict[str, str | None] = {NAME: __version__, "python": platform.python_version()}
    for name in LISTED:
        try:
            by_package[name] = version(name) if is_there(_IMPORTED.get(name, name)) else None
        except PackageNotFoundError:
            by_package[name] = None
    return by_package


_IMPORTED = {"scikit-learn": "sklearn"}


def is_there(package: str) -> bool:
    """Return whether a package can be imported, without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ModuleNotFoundError, ValueError):
        return False


def require(*packages: str, purpose: str | None = None) -> None:
    """Raise ToolError, with the install command, unless all of these (keys of `PACKAGES`) are installed.

    purpose: what they are needed for, where `PACKAGES` says it too broadly.
    """
    for package in packages:
        if not is_there(package):
            raise missing(package, purpose)


def missing(package: str, purpose: str | None = None) -> ToolError:
    """Return the error for a package (a key of `PACKAGES`) that is not installed."""
    extra, does = PACKAGES[package]
    return ToolError(f"{package} is not installed; it {purpose or does}: {command(extra)}")


def command(extra: str | None = None) -> str:
    """Return the shell command that installs stl-deploy with an extra, from this installation's origin."""
    return shlex.join([_python(), "-m", "pip", "install", *_requirement(installed_from(), extra)])


def _python() -> str:
    return sys.executable or "python"


def installed_from() -> dict[str, object]:
    """Return pip's origin of this installation (PEP 610); empty for an index, and without an installation."""
    from importlib.metadata import distributions

    for distribution in distributions(name=NAME):  # a source tree on the path has one, too, that tells nothing
        try:
            origin = json.loads(distribution.read_text("direct_url.json") or "{}")
        except (ValueError, OSError):
            continue
        if isinstance(origin, dict) and origin:
            return origin
    return {}


def _requirement(origin: dict[str, object], extra: str | None) -> list[str]:
    suffix = f"[{extra}]" if extra else ""
    url = origin.get("url")
    if not isinstance(url, str):
        return [f"{NAME}{suffix}"]
    folder, vcs = origin.get("dir_info"), origin.get("vcs_info")
    if isinstance(folder, dict):
        from urllib.parse import unquote, urlsplit
        from urllib.request import url2pathname

        place = url2pathname(unquote(urlsplit(url).path))
        return [*(["-e"] if folder.get("editable") else []), f"{place}{suffix}"]
    if isinstance(vcs, dict):
        return [f"{NAME}{suffix} @ {vcs.get('vcs', 'git')}+{url}"]
    return [f"{NAME}{suffix} @ {url}"]
