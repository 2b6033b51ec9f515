"""The frameworks' versions that captures are held with (docs/measurements/capture-conformance.md)."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from torch import nn

PROVED = {
    "snntorch": ("0.8.0", "1.0.0"),
    "spikingjelly": ("0.0.0.0.14", "2.0.0"),
    "norse": ("1.1.0",),
}
"""The oldest that still works with today's torch, and the newest."""


def version_warnings(model: nn.Module) -> tuple[str, ...]:
    """One sentence for each framework in ``model`` whose version is not one of `PROVED`."""
    used = sorted({type(module).__module__.partition(".")[0] for module in model.modules()} & set(PROVED))
    found = []
    for name in used:
        try:
            installed = version(name)
        except PackageNotFoundError:
            installed = "of no known version"
        if installed not in PROVED[name]:
            proved = " and ".join(PROVED[name])
            found.append(f"captures are held with {name} {proved}; found {installed}; this capture's own proof holds")
    return tuple(found)
