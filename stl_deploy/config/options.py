"""Options of the verbs, one dataclass each: source of method keywords, command-line options and docs.

An options class has a twin, a TypedDict, that names its fields for ``**options: Unpack[...]``; a test holds them equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, Literal, TypedDict, TypeVar

from stl_deploy._util.remedies import named, require_one_of
from stl_deploy.errors import InputError

FoldThresholds = Literal["keep", "weights"]
FoldDelays = Literal["keep", "steps"]
ThresholdForm = Literal["folded", "per-neuron", "per-layer", "projected", "unrolled"]
"""The last two are folded, after `stl_deploy.integers.per_pixel` has made the thresholds foldable."""
OnnxForm = Literal["sequence", "step", "unrolled"]
Precision = Literal["float32", "exact", "integer"]
"""``exact``: synaptic sums in float64, rounded once. ``integer``: sums in integers, where that gives the bits of
``float32``."""
Numbers = Literal["int", "float32"]
Runtime = Literal["openvino", "tract", "emx", "iree"]
"""Runtimes of ONNX beside ONNX Runtime."""
Reader = Literal["snntorch", "norse", "spikingjelly", "sinabs"]
Time = Literal["first", "second", "step", "inside", "none"]
"""Position of time in the input of a module's forward, ``inside`` it, or ``none``: a module without time."""
Start = Literal["drawn", "zeros"]
"""Start of states for which a module draws random numbers: as drawn, which capture refuses, or from zeros."""
LearningMode = Literal["stl", "sl", "tl", "ann"]
LONGEST = 1e6
"""Seconds that a deadline may be away: waits of the operating system end at 2^31 ms."""
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Presentation of a field on the command line.

    names: default: ``--`` and the field's name. of_target: an option that one target or backend has. choices: the shell
    completes these names (a list in `stl_deploy.verbs.arguments`). switches: one flag for each value but the default.
    kind: the type that typer parses, where it is another than the field's; parse: the function of
    `stl_deploy.verbs.arguments` from that to the field's value.
    """

    help: str
    names: tuple[str, ...] = ()
    metavar: str | None = None
    of_target: bool = False
    hidden: bool = False
    choices: str | None = None
    switches: Mapping[str, str] | None = None
    kind: Any = None
    parse: str | None = None


def option(default: T, help: str, *names: str, **shown: Any) -> T:
    """Return a field with its default and its help; see `Shown`."""
    made: Any = field(default=default, metadata={"shown": Shown(help=help, names=names, **shown)})
    return made  # type: ignore[no-any-return]


def mapping(help: str, *names: str, **shown: Any) -> Any:
    """Return an `option` for a mapping that is empty by default."""
    return field(default_factory=dict, metadata={"shown": Shown(help=help, names=names, **shown)})


def shown(field_of_options: Field[Any]) -> Shown:
    """Return a field's presentation on the command line."""
    presentation: Shown = field_of_options.metadata["shown"]
    return presentation


def of_target(options: Any) -> dict[str, Any]:
    """Return the set options of single targets, plug-ins included."""
    own = [field for field in fields(options) if shown(field).of_target]
    given = {field.name: value for field in own if (value := getattr(options, field.name)) != field.default}
    return given | dict(options.target_options)


def _deadline(seconds: float) -> None:
    if not 0 < seconds <= LONGEST:
        raise InputError(f"{named('deadline')}: expected seconds above 0, at most {LONGEST:,.0f}; found {seconds:g}")


def input_grid_option() -> int | None:
    """Return the field of the input grid, which several verbs have."""
    return option(
        None,
        "Round the input to multiples of 2^-BITS and declare this grid.",
        "--input-grid",
        metavar="BITS",
    )


def _seconds() -> float:
    return option(
        600.0,
        "Seconds without progress before an outside tool (a compiler, a simulator) is stopped.",
        "--deadline",
        metavar="SECONDS",
    )


def _plug_in() -> Any:
    return mapping("Options of another package's target, by name.", hidden=True)


DEVICES = r"^(auto|cpu|cuda(:\d+)?)$"
"""Names of devices that torch trains on."""
_DEVICE = (
    "xylo: audio2, audio3 or imu (default: the first that fits); verilog: up5k, hx8k, ecp5-25f, ecp5-85f, gw1nr-9 or "
    "generic."
)


@dataclass(frozen=True, kw_only=True)
class FoldOptions:
    """Options of fold.

    thresholds: ``weights`` divides each neuron's weights by its threshold. exact_grid: round weights to grids on which
    float32 sums are exact; None: as configured for a run, no for a .nir file, else yes. delays: ``steps`` rounds
    learned fractional delays to whole steps, which changes the network.
    Raises InputError for unknown thresholds or delays.
    """

    thresholds: FoldThresholds = option(
        "keep", "keep: one per neuron in the graph; weights: fold them, so that each is 1."
    )
    exact_grid: bool | None = option(
        None, "Round to grids on which float32 sums are exact.", "--exact-grid/--no-exact-grid"
    )
    merge_pools: bool = option(False, "For a .nir file: fold average pools into adjacent weights.", "--merge-pools")
    delays: FoldDelays = option("keep", "steps: round fractional delays to whole steps and print the change.")
    input_grid: int | None = input_grid_option()

    def __post_init__(self) -> None:
        require_one_of(self.delays, FoldDelays, "delays")
        require_one_of(self.thresholds, FoldThresholds, "thresholds")


class FoldKeywords(TypedDict, total=False):
    """Fields of `FoldOptions`."""

    thresholds: FoldThresholds
    exact_grid: bool | None
    merge_pools: bool
    delays: FoldDelays
    input_grid: int | None


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of export and its verification. Raises InputError for an invalid deadline."""

    thresholds: ThresholdForm | None = option(
        None,
        "netx: folded (the default: one per population), per-layer, or per-neuron (simulation only); where thresholds "
        "differ between pixels: unrolled (dense, exact) or projected (channel means). A table shows the cost of each.",
        of_target=True,
    )
    form: OnnxForm | None = option(
        None,
        "onnx: sequence (the default: all steps in one call), unrolled (the same without Scan) or step (streaming).",
        of_target=True,
    )
    steps: int | None = option(None, "onnx: static number of steps.", metavar="T", of_target=True)
    batch: int | None = option(None, "onnx: static number of samples.", metavar="B", of_target=True)
    opset: int | None = option(
        None, "onnx: version of the operators; default: the lowest.", metavar="N", of_target=True
    )
    runtime: Runtime | None = option(
        None, "onnx: for openvino, tract, emx or iree: refuse forms that it does not take.", of_target=True
    )
    precision: Precision | None = option(
        None,
        "onnx: precision of weights and sums.",
        of_target=True,
        switches={
            "exact": "onnx: sum in float64, for weights off the exact grid (slow).",
            "integer": "onnx: integer sums, same spikes; faster on processors with fast 8-bit products.",
        },
    )
    reader: Reader | None = option(None, "nir: rewrite the graph for this framework's reader.", "--for", of_target=True)
    numbers: Numbers | None = option(
        None,
        "c: int (default), or float32: any network, Cells included, for processors with a float unit.",
        of_target=True,
    )
    flash: str | None = option(
        None, "c: flash limit, as 256K; exit code 1 if exceeded.", metavar="BYTES", of_target=True
    )
    ram: str | None = option(None, "c: RAM limit, as 64K; exit code 1 if exceeded.", metavar="BYTES", of_target=True)
    potentials: int | None = option(
        None, "c: bits of each potential, 32 (default) or 16: about half the RAM.", metavar="BITS", of_target=True
    )
    device: str | None = option(None, _DEVICE, "--device", metavar="DEVICE", of_target=True)
    round_decays: bool = option(
        False, "xylo: round other decays to the nearest 1 - 2^-k.", "--round-decays", of_target=True
    )
    lanes: int | None = option(
        None,
        "verilog: neurons processed in parallel, a power of two (default: up to 8, depending on layer sizes).",
        of_target=True,
    )
    name: str | None = option(
        None, "c, verilog: prefix of all names and files; default: net, snn.", metavar="PREFIX", of_target=True
    )
    package: str | None = option(
        None,
        "c: also write a package: cmake, arduino, platformio, zephyr, esp-idf or cmsis-pack.",
        metavar="KIND",
        of_target=True,
    )
    overwrite: bool = option(False, "Replace a folder whose files were edited.", "--overwrite")
    input_grid: int | None = input_grid_option()
    verified: bool = option(True, "Read the artifact back and run it.", "--verify/--no-verify")
    allow_silent: bool = option(False, "Accept a network of which no layer spikes on x.", "--allow-silent")
    deadline: float = _seconds()
    target_options: Mapping[str, Any] = _plug_in()

    def __post_init__(self) -> None:
        _deadline(self.deadline)


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Options of check. Raises InputError for an unknown form of thresholds."""

    input_grid: int | None = input_grid_option()
    thresholds: ThresholdForm | None = option(None, "netx: as for export.", of_target=True)
    device: str | None = option(None, _DEVICE, "--device", metavar="DEVICE", of_target=True)
    lanes: int | None = option(None, "verilog: neurons processed in parallel.", of_target=True)
    runtime: Runtime | None = option(None, "onnx: name the forms that this runtime takes.", of_target=True)
    numbers: Numbers | None = option(None, "c: int (default) or float32.", of_target=True)
    flash: str | None = option(None, "c: flash limit, as 256K (estimated).", metavar="BYTES", of_target=True)
    ram: str | None = option(None, "c: RAM limit, as 64K (estimated).", metavar="BYTES", of_target=True)
    potentials: int | None = option(
        None, "c: bits of each potential, 32 (default) or 16.", metavar="BITS", of_target=True
    )
    target_options: Mapping[str, Any] = _plug_in()

    def __post_init__(self) -> None:
        if self.thresholds is not None:
            require_one_of(self.thresholds, ThresholdForm, "thresholds")


class CheckKeywords(TypedDict, total=False):
    """Fields of `CheckOptions`."""

    input_grid: int | None
    thresholds: ThresholdForm | None
    device: str | None
    lanes: int | None
    runtime: Runtime | None
    numbers: Numbers | None
    flash: str | None
    ram: str | None
    potentials: int | None
    target_options: Mapping[str, Any]


class ExportKeywords(CheckKeywords, total=False):
    """Fields of `ExportOptions`: all of check, and how to write."""

    form: OnnxForm | None
    steps: int | None
    batch: int | None
    opset: int | None
    precision: Precision | None
    reader: Reader | None
    round_decays: bool
    name: str | None
    package: str | None
    overwrite: bool
    verified: bool
    allow_silent: bool
    deadline: float


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """Options of verify. Raises InputError for an invalid deadline.

    lava: also run artifacts on every other backend that reads them and must equal one of our models, such as Lava.
    cflags: the C's compiler flags, as a shell would split them.
    """

    input_grid: int | None = input_grid_option()
    lava: bool = option(True, "Skip Lava and other simulators even if they are installed.", "--no-lava")
    cflags: str | None = option(None, "c: build with the flags that ship, as '-O3 -march=native'.", metavar="FLAGS")
    allow_silent: bool = option(False, "Accept a network of which no layer spikes.", "--allow-silent")
    deadline: float = _seconds()

    def __post_init__(self) -> None:
        _deadline(self.deadline)


class VerifyKeywords(TypedDict, total=False):
    """Fields of `VerifyOptions`."""

    input_grid: int | None
    lava: bool
    cflags: str | None
    allow_silent: bool
    deadline: float


@dataclass(frozen=True, kw_only=True)
class SimulateOptions:
    """Options of simulate. Raises InputError for an invalid deadline."""

    record: bool = option(False, "Also write the spikes of every spiking node.", "--record")
    input_grid: int | None = input_grid_option()
    thresholds: ThresholdForm | None = option(None, "loihi, lava: as for export.", of_target=True)
    trust: bool = option(False, "c: compile and run a folder even if its C was edited.", "--trust", of_target=True)
    allow_silent: bool = option(False, "Accept a network of which no layer spikes.", "--allow-silent")
    deadline: float = _seconds()
    target_options: Mapping[str, Any] = _plug_in()

    def __post_init__(self) -> None:
        _deadline(self.deadline)


class SimulateKeywords(TypedDict, total=False):
    """Fields of `SimulateOptions`."""

    record: bool
    input_grid: int | None
    thresholds: ThresholdForm | None
    trust: bool
    allow_silent: bool
    deadline: float
    target_options: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class EnergyOptions:
    """Options of energy: counting, prices and comparison.

    step_time: measured seconds of one time step by chip name, such as ``loihi1``, instead of the predicted time.
    margin: accuracy margin in percentage points; None: 0.5, and labels are optional.
    """

    prices: tuple[str, ...] = option(
        (),
        "Price list; repeatable.",
        "--prices",
        metavar="NAME|FILE.toml",
        choices="price_lists",
        kind=list[str] | None,
        parse="texts",
    )
    input_coding: str | None = option(None, "Kind of input values: spikes, graded or analog.", choices="codings")
    input_grid: int | None = input_grid_option()
    step_time: Mapping[str, float] = mapping(
        "Measured seconds of one time step on a chip, as in loihi1=66e-6; repeatable.",
        metavar="CHIP=S",
        choices="chips",
        kind=list[str] | None,
        parse="step_times",
    )
    margin: float | None = option(
        None, "Largest accuracy difference to the ANN that counts as equal, in points (0.5).", metavar="POINTS"
    )


class EnergyKeywords(TypedDict, total=False):
    """Fields of `EnergyOptions`."""

    prices: tuple[str, ...]
    input_coding: str | None
    input_grid: int | None
    step_time: Mapping[str, float]
    margin: float | None


@dataclass(frozen=True, kw_only=True)
class TradeoffOptions:
    """Points of the trade-off between accuracy and energy, besides each network as it is.

    early_exit: stop each sample once its leading score exceeds the next by a margin; the margins tried are
    the quartiles of the samples' final leads.
    """

    over_steps: bool = option(False, "Accuracy against energy at 1, 2, ... T time steps.", "--over-steps")
    early_exit: bool = option(False, "Accuracy against energy if each sample stops once it is decided.", "--early-exit")

    def __bool__(self) -> bool:
        """Return whether any point is requested."""
        return self.over_steps or self.early_exit
