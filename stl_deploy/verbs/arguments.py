"""Forms of verbs' parameters on the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from typer.core import TyperCommand, TyperGroup

from stl_deploy.config.options import LONGEST
from stl_deploy.errors import InputError


@dataclass(frozen=True)
class As:
    """The type that typer parses, where it is another than the parameter's."""

    kind: Any


Texts = As(list[str])


class Verbs(TyperGroup):
    """Wrap verbs' descriptions in the help, where they would be cut; load a verb's module when it is asked for."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the whole command."""
        command = super().get_command(ctx, cmd_name)
        return command.whole() if isinstance(command, Later) else command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write name and first sentence of each."""
        rows = [(name, self.commands[name].get_short_help_str(10_000)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class Later(TyperCommand):
    """A verb whose module is not loaded yet."""

    def whole(self) -> Any:
        """Load it."""
        assert self.callback is not None
        return self.callback()


def completed(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Complete for the shell: those of ``names``, looked up only now, that begin as typed."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return complete


def _dialects() -> Iterable[str]:
    from stl_deploy.exporters.nir.dialect import PRESETS

    return PRESETS


def formats() -> Iterable[str]:
    """Formats for export."""
    from stl_deploy.exporters.targets import registry

    return registry().formats


def backends() -> Iterable[str]:
    """Backends for simulation."""
    from stl_deploy.exporters.targets import registry

    return registry().runners


def checks() -> Iterable[str]:
    """Targets for check."""
    from stl_deploy.exporters.targets import registry

    return [*registry().formats, *registry().checks]


def price_lists() -> Iterable[str]:
    """Price lists by name."""
    from stl_deploy.energy.prices.load import list_prices

    return [prices.name for prices in list_prices()]


def codings() -> Iterable[str]:
    """Codings of input values."""
    from stl_deploy.graph.program import InputCoding

    return get_args(InputCoding)


def chips() -> Iterable[str]:
    """Chips whose step time can be given."""
    from stl_deploy.energy.chips.baselines import devices
    from stl_deploy.energy.chips.model import chip_models

    names = [chip.name for chip in chip_models() if chip.real_time_step is None]
    return [f"{name}=" for name in (*names, *(device.key for device in devices() if device.microcontroller))]


def devices() -> Iterable[str]:
    """Devices for training."""
    return ("auto", "cpu", "cuda")


def texts(given: list[str] | None) -> tuple[str, ...]:
    """An option that may be repeated."""
    return tuple(given or ())


def number_or_text(value: int | str | None) -> int | str | None:
    """Return the integer that a text is, else the value itself."""
    try:
        return int(value or "")
    except ValueError:
        return value


def path_text(given: Path | None) -> str | None:
    """Return a path in its form for a configuration."""
    return None if given is None else str(given)


def step_times(given: list[str] | None) -> dict[str, float]:
    """Parse ``CHIP=S`` entries."""
    from stl_deploy.energy.chips.time import parse_step_times

    return parse_step_times(given or ())


SourceArg = Annotated[Path, typer.Argument(metavar="SOURCE", help="A run folder or a .nir file.")]
RUNS_CODE = "may name a Python file, which is run"
"""Marks run folders among a verb's parameters; the command line has --trust for them."""
RunArg = Annotated[Path, RUNS_CODE, typer.Argument(metavar="RUN", help="A run folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON to stdout, for scripts.")]
DialectOption = Annotated[
    str | None,
    typer.Option(
        "--dialect",
        metavar="NAME|FILE.json",
        autocompletion=completed(_dialects),
        help="Conventions of the .nir file; default: from its metadata or form. See: stl-deploy targets.",
    ),
]


def _trust(value: bool) -> bool:
    if value:
        from stl_deploy.data.own import trust

        trust.allow_everything()
    return value


Trust = Annotated[
    bool,
    typer.Option(
        "--trust", callback=_trust, help="Run the Python file named by a run folder, even if it is not yours."
    ),
]
InputGrid = Annotated[
    int | None,
    typer.Option("--input-grid", metavar="BITS", help="Round the input to multiples of 2^-BITS and declare this grid."),
]


def _deadline(value: float) -> float:
    if not 0 < value <= LONGEST:
        raise InputError(f"--deadline: expected seconds above 0, at most {LONGEST:,.0f}; found {value:g}")
    return value


AllowSilent = Annotated[bool, typer.Option("--allow-silent", help="Accept a network of which no layer spikes on x.")]
Deadline = Annotated[
    float,
    typer.Option(
        "--deadline",
        metavar="SECONDS",
        callback=_deadline,
        help="Seconds without progress before an outside tool (a compiler, a simulator) is stopped.",
    ),
]
InputOption = Annotated[
    Path | None,
    typer.Option("--input", "-i", metavar="X.npz", help="x [T, B, *shape] and optionally labels y [B]."),
]
