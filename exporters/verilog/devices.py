"""FPGAs by name: cells, RAM and multipliers, as nextpnr counts them."""

from __future__ import annotations

from dataclasses import dataclass

from stl_deploy._util.remedies import named, require_one_of


@dataclass(frozen=True)
class Family:
    """RAM of a family. block_bits, widths: of one block, and what it can be read in. byte: bits written at once.

    cost: what yosys counts for a block, in bits of a memory made of flip-flops. lut_ram: small memories stand in logic
    cells of 16 words of 4 bits. scaled: of these bits, only the used ones cost. loaded: large memories of one port,
    ``(blocks, bits, words)``, that a bitstream cannot fill.
    """

    block_bits: int
    widths: tuple[int, ...]
    byte: int
    cost: int
    lut_ram: bool
    loaded: tuple[int, int, int] | None = None
    scaled: bool = False


@dataclass(frozen=True)
class Device:
    """One FPGA. cells: of logic; multipliers: of 16 bits or more; family None: any device."""

    name: str
    title: str
    cells: int
    blocks: int
    multipliers: int
    family: Family | None

    @property
    def loaded(self) -> bool:
        """Whether the weights stand in memories that are filled after configuration."""
        return self.family is not None and self.family.loaded is not None

    @property
    def bits(self) -> int:
        """Bits of all its RAM."""
        if self.family is None:
            return 0
        count, width, words = self.family.loaded or (0, 0, 0)
        return self.blocks * self.family.block_bits + count * width * words


_ICE40 = Family(4096, (2, 4, 8, 16), 1, 64, False)
_UP5K = Family(4096, (2, 4, 8, 16), 1, 64, False, (4, 16, 16384))
_ECP5 = Family(18432, (1, 2, 4, 9, 18, 36), 9, 128, True)
_GOWIN = Family(18432, (1, 2, 4, 9, 18, 36), 36, 128, True, scaled=True)
GENERIC = Device("generic", "any device", 0, 0, 0, None)
DEVICES = {
    device.name: device
    for device in (
        Device("up5k", "Lattice iCE40 UP5K", 5280, 30, 8, _UP5K),
        Device("hx8k", "Lattice iCE40 HX8K", 7680, 32, 0, _ICE40),
        Device("ecp5-25f", "Lattice ECP5 25F", 24288, 56, 28, _ECP5),
        Device("ecp5-85f", "Lattice ECP5 85F", 83640, 208, 156, _ECP5),
        Device("gw1nr-9", "Gowin GW1NR-9", 8640, 26, 10, _GOWIN),
    )
}


def device_of(name: str | None) -> Device:
    """Return the device of that name, by default `GENERIC`; raise InputError with the known names."""
    if name is None or name == GENERIC.name:
        return GENERIC
    require_one_of(name, [*DEVICES, GENERIC.name], named("device"))
    return DEVICES[name]
