"""Options of the C target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from stl_deploy._util.remedies import named, require_one_of
from stl_deploy._util.units import bytes_of
from stl_deploy.config.options import Numbers
from stl_deploy.errors import InputError
from stl_deploy.exporters.c.names import require_prefix
from stl_deploy.exporters.c.packages import Package
from stl_deploy.exporters.targets import Options
from stl_deploy.integers.net import INT16, WIDE, Accumulator


@dataclass(frozen=True, kw_only=True, eq=False)
class COptions(Options):
    """Options of the C target.

    numbers: integers (default), or float32 for any network and a processor with a float unit. flash, ram: the chip's
    memory, as ``256K``. potentials: bits of each potential of neurons that spike, 32 (default) or 16, in which it stops
    at the limits. name: prefix of all names, a C identifier. package: also write a package for this build system or
    registry, into the folder ``NAME_PACKAGE``. trust: run a folder whose C differs from what its Program or integers
    make.
    """

    numbers: Numbers | None = None
    flash: str | int | None = None
    ram: str | int | None = None
    potentials: int | None = None
    name: str | None = None
    package: Package | None = None
    trust: bool = False

    def __post_init__(self) -> None:
        """Raise InputError for invalid sizes, names or packages."""
        if self.numbers not in (None, *get_args(Numbers)):
            raise InputError(f"{named('numbers')}: expected int or float32; found {self.numbers!r}")
        of_integers = [name for name in ("potentials", "package") if getattr(self, name) is not None]
        if self.numbers == "float32" and of_integers:
            raise InputError(f"{named(of_integers[0])} is for C with integers; leave it out of C with float32")
        bytes_of(self.flash, "flash")
        bytes_of(self.ram, "ram")
        if self.potentials not in (None, *POTENTIALS):
            raise InputError(
                f"{named('potentials')}: expected 16 or 32 bits; found {self.potentials!r}; leave it out for 32"
            )
        if self.name is not None:
            require_prefix(self.name)
        if self.package is not None:
            require_one_of(self.package, Package, named("package"))

    @property
    def accumulator(self) -> Accumulator:
        """Widths of u and v."""
        return POTENTIALS[self.potentials or 32]


POTENTIALS = {32: WIDE, 16: INT16}
"""Accumulators by the bits of a potential."""
