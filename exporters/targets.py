"""Targets: two protocols, and the one registry behind every list of formats and backends.

A *Format* writes a Program as an artifact (a file, or a folder) and loads it again; a *Runner* runs a network. Built-in
targets are the folders listed in `_OURS`; other packages register through the entry point group ``stl_deploy.targets``:

    [project.entry-points."stl_deploy.targets"]
    json = "their_package:JsonFormat"

An entry point names a Format (an object), a Runner (a class), or an iterable of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache, partial
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util import foreign
from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.remedies import did_you_mean, named, option, require_name
from stl_deploy._util.untrusted import one_line
from stl_deploy.errors import InputError
from stl_deploy.graph.check import NIR_NODES, Kinds, refused
from stl_deploy.graph.findings import Finding, from_error
from stl_deploy.graph.program import Program
from stl_deploy.graph.readout import Readout
from stl_deploy.graph.run import NetworkInput, Result, Stream
from stl_deploy.graph.show import Row

GROUP = "stl_deploy.targets"
LONGEST_PREFIX = 32
"""Characters of the prefix of an export's names."""
Model = Literal["reference", "loihi", "xylo"]
"""Our models that an artifact can be held to: the Program in float32, Loihi's integers, and Xylo's."""
INTEGER_MODELS = ("loihi", "xylo")
Network = Program | Path
"""Input of a Runner: a Program, or the artifact of a Format in its ``reads``."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Options:
    """Options that the pipeline passes to every target; a target's subclass adds the user's options as fields.

    Attributes:
        origin: Source of the Program (``source``, ``sha256``), for the artifact's metadata.
        calibration: Loads real input ``[T, B, *shape]`` for choosing integers; None: only x.
        is_random: Whether x is random, which messages with percentages mention.
        x, labels: Input ``[T, B, *shape]`` for verifying the artifact, and ``[B]``.
        progress: Called with (done, total) steps by long work.
        deadline: Seconds that an outside tool may take without progress.
        say: Prints messages for the user.
    """

    origin: Mapping[str, str] = field(default_factory=dict)
    calibration: Callable[[], NDArray[Any]] | None = None
    x: NetworkInput | None = None
    labels: NDArray[np.int64] | None = None
    progress: Callable[[int, int], None] | None = None
    deadline: float = 600.0
    is_random: bool = False
    say: Console = QUIET


class Runner(Protocol):
    """A network, ready to run. The class is registered; the class of a `Format`'s Runner need not be.

    name: as ``--backend`` takes it. label: modelled, simulated or measured. reads: names of the formats whose artifacts
    it runs as they are. options: a subclass of `Options`. agrees_with: our model that it must equal on every spike,
    given the same network; None: agreement is reported, not required. takes: the kinds of nodes that it runs.
    session: its `Stream`, made from a Program and a function of a step's input; None: it takes whole sequences.
    """

    name: str
    description: str
    label: Literal["measured", "simulated"] = "simulated"
    reads: tuple[str, ...] = ()
    options: type[Options] = Options
    agrees_with: Model | None = None
    takes: Kinds = NIR_NODES
    session: type[Stream] | None = None

    def __init__(self, network: Network, options: Any) -> None:
        """Prepare a network. Raises InputError or UnsupportedError for one that cannot run this way."""

    @classmethod
    def available(cls) -> str | None:
        """Return None if it can run on this machine, else the reason and the remedy, in one sentence."""
        return None

    def run(self, x: NetworkInput, record: bool = False) -> Result:
        """Run on ``x`` ``[T, B, *shape]`` from rest; every array of the Result has the T steps of x.

        record: also each spiking node's spikes. Raises InputError for an x that does not fit, ToolError.
        """
        ...


class Format(Protocol):
    """An artifact: its writer and its reader.

    suffix: ending of its files' names; None for a folder. folder: the file that identifies a folder of this kind; None
    for files. bare: whether that file is an artifact without its folder, too. by_default: whether ``check`` includes it
    by default. options: a subclass of `Options`.
    takes: the kinds of nodes that it holds; a Program with another is refused before the Format sees it.
    """

    name: str
    description: str
    suffix: str | None = None
    folder: str | None = None
    bare: bool = False
    by_default: bool = True
    options: type[Options] = Options
    takes: Kinds = NIR_NODES

    def check(self, program: Program) -> Iterable[Finding]:
        """Return findings, node by node; may raise an UnsupportedError for the first node that it cannot hold."""
        ...

    def write(self, program: Program, path: Path, options: Any) -> Mapping[str, Any]:
        """Write the artifact (a folder's path does not exist yet); return facts for its manifest, JSON-ready.

        Raises UnsupportedError for a Program that it cannot hold.
        """
        ...

    def load(self, path: Path) -> Runner:
        """Read an untrusted artifact back; raise InputError for one that is damaged or not ours."""
        ...


@runtime_checkable
class OfProgram(Protocol):
    """A Runner whose artifact lacks parts of its Program: the input's grid, names of nodes, a readout."""

    def of(self, program: Program) -> Runner:
        """Return the Runner as a run of ``program``; raise InputError if it was not made from it."""
        ...


@runtime_checkable
class HasDeadline(Protocol):
    """A Runner that waits for an outside tool, as a compiler."""

    def within(self, seconds: float) -> Runner:
        """Return the Runner with a deadline in seconds for the tool."""
        ...


@runtime_checkable
class OfModel(Protocol):
    """A Runner that must equal a model of its own instead of the one in ``agrees_with``."""

    def model(self, program: Program) -> Runner | None:
        """Return the model; None: the one named."""
        ...


@runtime_checkable
class DeclaresInputGrid(Protocol):
    """A Runner whose artifact may declare its input's grid."""

    @property
    def input_bits(self) -> int | None:
        """Fraction bits of the input's grid; 0: integers alone; None: not declared."""
        ...


@runtime_checkable
class HasReadout(Protocol):
    """A Runner whose artifact may declare its readout."""

    @property
    def readout(self) -> Readout | None:
        """Readout of its file; None if it was made of a Program, or its file has none."""
        ...


@runtime_checkable
class ChecksFor(Protocol):
    """A Format whose check depends on the user's options, such as the chip."""

    options: type[Options]

    def check_for(self, program: Program, options: Any) -> Iterable[Finding]:
        """Check as `Format.check`, with options of the Format's class."""
        ...


@runtime_checkable
class HasForms(Protocol):
    """A Format in whose place another stands where the user's options say so."""

    def form(self, given: Mapping[str, Any]) -> Format:
        """Return the Format for these options."""
        ...


def form_of(target: Format, given: Mapping[str, Any]) -> Format:
    """Return a Format as the user's options want it."""
    return target.form(given) if isinstance(target, HasForms) else target


@runtime_checkable
class ListsLayers(Protocol):
    """A Format whose artifacts list their layers."""

    def rows(self, path: Path) -> Sequence[Row]:
        """Return one row for each layer, in order; raise as `Format.load`."""
        ...


@dataclass(frozen=True)
class Check:
    """A target for `check` alone: a chip, or a framework's reader. instead: what to export for it, as a remedy."""

    name: str
    description: str
    check: Callable[[Program], Iterable[Finding]]
    instead: Callable[[], str] = lambda: ""


Target = Format | type[Runner] | Check
T = TypeVar("T")

_OURS = ("nir", "program", "onnx", "netx", "lava", "witnesses", "verilog", "c", "xylo")
"""Folders beside this file; the ``TARGETS`` of each one's ``target`` are loaded when needed."""
_ELSEWHERE = ("nn",)
"""Folders of the package, loaded as a plugin is: by name, since no exporter imports torch modules."""


class Registry:
    """Targets by name: Formats, Runners, and Checks, each kind with names of its own."""

    def __init__(self) -> None:
        self.formats: dict[str, Format] = {}
        self.runners: dict[str, type[Runner]] = {}
        self.checks: dict[str, Check] = {}
        self.broken: dict[str, str] = {}
        """Why an installed package's target could not be taken, by its entry point's name."""

    def add(self, target: Target) -> None:
        """Add a target; raise InputError for a name that is taken, or an object that is no target."""
        if isinstance(target, Check):
            _put(self.checks, target.name, target)
        elif isinstance(target, type) and hasattr(target, "run"):
            complete_runner(target)
            _put(self.runners, target.name, target)
        elif not isinstance(target, type) and hasattr(target, "write"):
            _complete(target, type(target), ("name", "description", "check", "load"), Format)
            if (target.suffix is None) == (target.folder is None):
                raise InputError(f"{target!r}: expected a suffix, or a folder; found both or neither; give one")
            _put(self.formats, target.name, target)
        else:
            raise InputError(f"expected a Format (an object) or a Runner (a class); found {target!r}")


def complete_runner(kind: type[Any]) -> None:
    """Complete a Runner's class with defaults; raise InputError for wrong or missing attributes."""
    _complete(kind, kind, ("name", "description", "run", "available"), Runner)
    if kind.agrees_with not in (None, *get_args(Model)):
        models = ", ".join(f'"{model}"' for model in get_args(Model))
        raise InputError(f"{kind!r}: expected agrees_with {models} or None; found {kind.agrees_with!r}")


def _complete(target: Any, kind: type, required: Sequence[str], protocol: type) -> None:
    """Complete a target's class with the protocol's defaults; raise InputError for missing attributes."""
    missing = [name for name in required if not hasattr(target, name)]
    if missing:
        raise InputError(f"{target!r}: expected {', '.join(required)}; found no {', '.join(missing)}; add them")
    for name in protocol.__annotations__:
        if not hasattr(target, name):
            setattr(kind, name, getattr(protocol, name))


def _put(known: dict[str, T], name: str, target: T) -> None:
    if known.setdefault(name, target) is not target:
        raise InputError(f"expected a name of its own for a target; found '{name}', which is registered; rename it")


@cache
def _known() -> Registry:
    """Return our targets, and those registered in this process."""
    made = Registry()
    for folder in (*(f"exporters.{name}" for name in _OURS), *_ELSEWHERE):
        _add_all(made, import_module(f"stl_deploy.{folder}.target").TARGETS)
    return made


@cache
def registry() -> Registry:
    """Return all targets: those known, and those of installed packages, which are imported now."""
    made = _known()
    for entry in entry_points(group=GROUP):
        try:
            _add_all(made, foreign.load(entry))
        except InputError as error:
            made.broken[entry.name] = str(error)
        except (Exception, SystemExit) as error:  # another package's objects may raise anything
            made.broken[entry.name] = f"{entry.value} cannot be taken ({type(error).__name__}: {error})"
    return made


def why_unavailable(runner: Runner | type[Runner]) -> str | None:
    """Return why a Runner cannot run on this machine, or None; an ``available`` that raises is a reason."""
    try:
        return runner.available()
    except (Exception, SystemExit) as error:  # another package's code may raise anything
        return f"its available() raises {type(error).__name__}: {one_line(error, 200)}"


def _add_all(made: Registry, entries: Any) -> None:
    several = isinstance(entries, Iterable) and not hasattr(entries, "name")
    for target in entries if several else (entries,):
        made.add(target)


def register_target(target: Format | type[Runner]) -> None:
    """Add a Format, or the class of a Runner, in this process; entry points add them in every process.

    Raises:
        InputError: For a registered name, or an object that is not a target.

    Examples:
        >>> stl_deploy.register_target(MyRunner)
        >>> net.simulate(x, backend="mine")
    """
    _known().add(target)


@cache
def _of_folder(folder: str) -> Registry:
    """Return the targets of one of our folders, without importing the others."""
    made = Registry()
    _add_all(made, import_module(f"stl_deploy.exporters.{folder}.target").TARGETS)
    return made


def find_format(name: str) -> Format:
    """Return the Format of that name; raise InputError with the known names."""
    ours = _of_folder(name).formats if require_name(name, "format") in _OURS else {}
    return ours[name] if name in ours else _find("formats", name, "format")


_MODEL_OF = {"netx": "loihi", "nir": "reference"}
"""Formats that have no Runner of their own name, and the model that runs their numbers."""


def find_runner(name: str) -> type[Runner]:
    """Return the Runner of that name, or of a format's name; raise InputError with the known names."""
    name = _MODEL_OF.get(require_name(name, "backend"), name)
    ours = _of_folder(name).runners if name in _OURS else {}
    return ours[name] if name in ours else _find("runners", name, "backend")


def _find(kind: Literal["formats", "runners"], name: str, what: str) -> Any:
    """Return a target; import other packages only for a name that is not known without them."""
    if name in getattr(_known(), kind):
        return getattr(_known(), kind)[name]
    known = getattr(registry(), kind)
    if name not in known:
        if name in registry().broken:
            raise InputError(f"the target '{name}' is installed, but {registry().broken[name]}; mend or remove it")
        alone = registry().checks.get(name)
        if alone is not None:
            instead = alone.instead()
            raise InputError(f"expected a {what}; found '{name}', a target of check alone; {instead or 'see targets'}")
        hint = _described_by(known, name) or suggest(name, known)
        raise InputError(f"expected a {what}: {', '.join(known)}; found '{name}'{hint}")
    return known[name]


_HARDWARE = (
    (r"cortex|stm32|arduino|esp32|risc-?v|rv32|nrf\d|rp2040|mcu|micro|avr|zephyr", "c"),
    (r"fpga|ice40|up5k|hx8k|ecp5|gowin|gw1nr|tang|xilinx|artix|zynq|vhdl", "verilog"),
    (r"audio\d?|imu", "xylo"),
    (r"lava|loihi", "netx"),
)
"""Names of hardware, and the format that is for it."""


def suggest(name: str, known: Iterable[str]) -> str:
    """Return a hint at the target that a wrong name means: a chip's, another spelling's, or nothing."""
    spelt = name.lower()
    if spelt in known:
        return f" (did you mean '{spelt}'?)"
    if spelt == "loihi":
        return " (for loihi: 'netx', the files; 'loihi1' or 'loihi2', whether a chip has room)"
    return did_you_mean(name, known) or for_hardware(name)


def for_hardware(name: str) -> str:
    """Return `` (for cortex-m4: 'c')`` if the name is a board's or a chip's with a format, else nothing."""
    to = next((to for pattern, to in _HARDWARE if re.search(pattern, name, re.I)), None)
    return "" if to is None else f" (for {name}: '{to}')"


def _described_by(known: Mapping[str, Any], word: str) -> str:
    """Return the first target whose description has this word, for a message."""
    pattern = re.compile(rf"\b{re.escape(word)}\b", re.I)
    target = next((each for each in known.values() if pattern.search(each.description)), None)
    return "" if target is None else f" ({target.name} is {target.description})"


def format_of(path: Path) -> Format | None:
    """Return the Format of an artifact, by its suffix, or by a folder's identifying file; None if there is none."""
    for targets in (_known, registry):  # other packages are imported only for what is not ours
        for each in targets().formats.values():
            if _belongs(path, each):
                return each
    return None


def _belongs(path: Path, to: Format) -> bool:
    if to.folder is not None:
        return (path / to.folder).is_file() or (to.bare and path.name == to.folder and path.is_file())
    return path.suffix == to.suffix and not path.is_dir()


def findings(target: Format | Check, program: Program, options: Any = None) -> Iterable[Finding]:
    """Return all findings of a target on a Program: nodes of kinds that it does not take, and its own findings.

    options: of the target's class, for one that `ChecksFor` them. Where there are nodes that it does not take, its
    findings on these are left out, and all of them if it cannot judge the rest.
    """
    if isinstance(target, Check):
        return [*_findings(target, program, NIR_NODES, None), *_not_written(target)]
    return _findings(target, program, target.takes, options)


def _not_written(target: Check) -> Iterable[Finding]:
    """Say of a target of check alone what to export."""
    if target.instead():
        yield Finding("check-only", "info", None, f"nothing is written for {target.name} itself", target.instead())


def _findings(target: Format | Check, program: Program, takes: Kinds, options: Any) -> Iterable[Finding]:
    untaken = [from_error(error) for error in refused(program, takes, target.name)]
    tell = target.check
    if options is not None and isinstance(target, ChecksFor):
        tell = partial(target.check_for, options=options)
    if not untaken:
        return tell(program)
    try:
        further = list(tell(program))
    except Exception:  # a target's check may rely on what it takes
        further = []
    strange = {error.node for error in untaken}
    return [*untaken, *(finding for finding in further if finding.node is not None and finding.node not in strange)]


def require_free_prefix(prefix: str, reserved: str, why: str) -> str:
    """Return a prefix of an export's names; raise InputError unless it is an identifier and not ``reserved``."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", prefix, re.ASCII) or len(prefix) > LONGEST_PREFIX:
        raise InputError(
            f"{named('name')}: expected an identifier (a letter, then letters, digits, _; at most {LONGEST_PREFIX}); "
            f"found '{prefix[:60]}'; choose another name, as {option('name', 'kws')}"
        )
    if prefix in reserved.split():
        raise InputError(
            f"{named('name')}: '{prefix}' is {why}; choose another name, as {option('name', prefix + '_net')}"
        )
    return prefix


def settings(kind: type[Options]) -> list[str]:
    """Return the names of the user's options for a target."""
    common = {field.name for field in fields(Options)}
    return [field.name for field in fields(kind) if field.name not in common]


def make_options(target: Format | type[Runner], given: Mapping[str, Any], **common: Any) -> Any:
    """Return a target's options from the user's values, None for unset ones.

    Raises InputError for an option that is not of this target.
    """
    wanted = {name: value for name, value in given.items() if value is not None}
    for name in wanted:
        if name not in settings(target.options):
            known: tuple[Format | type[Runner], ...] = (*registry().formats.values(), *registry().runners.values())
            able = dict.fromkeys(each.name for each in known if name in settings(each.options))
            if not able:
                own = settings(target.options)
                raise InputError(
                    f"expected options of {target.name}: {', '.join(own) or 'none'}; found '{name}'"
                    f"{did_you_mean(name, own)}"
                )
            raise InputError(f"expected {' or '.join(able)} for option '{name}'; found {target.name}; leave it out")
    return target.options(**wanted, **common)


def describe_path(path: Path) -> str:
    """Describe a path of no known kind, for messages."""
    if path.is_dir():
        return "another folder"
    if not path.is_file():
        return "a pipe or device"
    return f"'{path.suffix}'" if path.suffix else "a name without an ending"
