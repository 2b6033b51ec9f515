"""ONNX as a Format, and ONNX Runtime as its Runner."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stl_deploy._util.remedies import named, option, require_one_of
from stl_deploy._util.temporary import temporary_folder
from stl_deploy.config.options import OnnxForm, Precision, Runtime
from stl_deploy.errors import InputError
from stl_deploy.exporters.nir.target import Reference
from stl_deploy.exporters.onnx.exact_sums import to_planes
from stl_deploy.exporters.onnx.export import export_onnx
from stl_deploy.exporters.onnx.model import OnnxModel, OnnxStream
from stl_deploy.exporters.targets import Format, Network, Options, Runner, settings
from stl_deploy.graph.check import ALL_NODES, check_sums
from stl_deploy.graph.exact import input_bits
from stl_deploy.graph.findings import Finding
from stl_deploy.graph.program import Floats, Norm, Program
from stl_deploy.graph.readout import Readout, readout_of
from stl_deploy.graph.run import CHUNK, NetworkInput, Result, Stream
from stl_deploy.graph.show import Row

TAKES = ALL_NODES - {Norm}
"""A norm rounds once from float64; it is folded into weights before."""


_BOTH = ("steps", "batch")
_EACH: Mapping[OnnxForm, Sequence[str]] = {"sequence": _BOTH, "unrolled": _BOTH, "step": ("batch",)}
FORMS: Mapping[Runtime, Mapping[OnnxForm, Sequence[str]]] = {
    "openvino": {"sequence": (), "unrolled": ("steps",), "step": ()},
    "tract": {"unrolled": _BOTH, "step": ("batch",)},
    "emx": _EACH,
    "iree": {form: (*sizes, "opset") for form, sizes in _EACH.items()},
}
"""The forms that other runtimes took in `make runtimes`, and the options that these need. tract's Scan fails, emx takes
no free sizes, and IREE computes other spikes with them, and needs opset 16."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OnnxOptions(Options):
    """As `export_onnx` takes them. runtime: the one that the file is for, which must take its form."""

    form: OnnxForm = "sequence"
    precision: Precision = "float32"
    steps: int | None = None
    batch: int | None = None
    opset: int | None = None
    runtime: Runtime | None = None

    def __post_init__(self) -> None:
        """Raise InputError for a runtime that is not known."""
        if self.runtime is not None:
            require_one_of(self.runtime, Runtime, named("runtime"))


def _exported(program: Program, **options: Any) -> OnnxModel:
    with temporary_folder() as folder:
        path = folder / "net.onnx"
        export_onnx(program, path, **options)
        return OnnxModel.load(path)


class OnnxSession(Stream):
    """A `Stream` whose steps ONNX Runtime computes; sums are made in integers where these give the same bits."""

    def __init__(self, program: Program, given: Callable[[Any], NetworkInput] | None = None) -> None:
        precision: Precision = "integer" if to_planes(program) else "float32"
        self._onnx = OnnxStream(_exported(program, form="step", precision=precision, record=False))
        super().__init__(program, given)

    def reset(self) -> None:
        """Return to rest; the next step may bring another number of samples."""
        self._onnx.reset()

    def _advance(self, arrays: Mapping[str, Floats]) -> dict[str, Floats]:
        return dict(self._onnx.advance(arrays).outputs)


class OnnxRuntime(Runner):
    """Run one of our files in ONNX Runtime; a Program is exported first."""

    name = "onnx"
    description = "ONNX Runtime"
    label = "measured"
    reads = ("onnx",)
    agrees_with = "reference"
    takes = TAKES
    session = OnnxSession

    def __init__(self, network: Network, options: Options) -> None:
        self.file = OnnxModel.load(network) if isinstance(network, Path) else _exported(network)

    @property
    def input_bits(self) -> int | None:
        """See `stl_deploy.exporters.targets.DeclaresInputGrid`."""
        return input_bits(self.file.metadata)

    @property
    def readout(self) -> Readout | None:
        """See `stl_deploy.exporters.targets.HasReadout`."""
        return readout_of(self.file.metadata)

    def run(self, x: NetworkInput, record: bool = False) -> Result:
        """See `stl_deploy.exporters.targets.Runner`."""
        return self.file.run(x, record=tuple(self.file.interface.spikes) if record else (), chunk=CHUNK)

    def model(self, program: Program) -> Reference | None:
        """Return the reference with float64 sums, for a file that has them."""
        if self.file.interface.precision == "exact":
            return Reference(program, Options(), double=True, name="sums in float64")
        return None


class Onnx(Format):
    """Standard operators only: the whole sequence in one call, with or without Scan, or one step with its states."""

    name = "onnx"
    description = "the whole sequence in one call, or one step with explicit states; standard operators only"
    suffix = ".onnx"
    options = OnnxOptions
    takes = TAKES

    def check(self, program: Program) -> Iterable[Finding]:
        """Return findings: every node is held; sums off an exact grid may be added up in another order."""
        return check_sums(program)

    def check_for(self, program: Program, options: OnnxOptions) -> Iterable[Finding]:
        """Check as `check`; name the forms that ``options.runtime`` takes."""
        yield from self.check(program)
        if options.runtime is not None:
            forms = ", or ".join(_asked_for(form, names) for form, names in FORMS[options.runtime].items())
            yield Finding("runtime-forms", "info", None, f"{options.runtime} takes {forms}")

    def write(self, program: Program, path: Path, options: OnnxOptions) -> Mapping[str, Any]:
        """See `export_onnx`; raise InputError for a form that ``options.runtime`` does not take."""
        if options.runtime is not None:
            _require_form(options, options.runtime)
        chosen = {name: getattr(options, name) for name in settings(OnnxOptions) if name != "runtime"}
        export_onnx(program, path, **chosen, provenance=options.origin)
        return {"target": self.name, **chosen}

    def rows(self, path: Path) -> list[Row]:
        """Return the tensors of the file: inputs, outputs, and spikes by node."""
        model = OnnxModel.load(path)
        about = f"{model.interface.form} form, {model.interface.precision}"
        kinds = {"Input": model.interface.inputs, "Output": model.interface.outputs, "Spikes": model.interface.spikes}
        return [
            Row(node, kind, model.shape_of(tensor), (), None, None, about)
            for kind, tensors in kinds.items()
            for node, tensor in tensors.items()
        ]

    def load(self, path: Path) -> OnnxRuntime:
        """Open the file in ONNX Runtime."""
        return OnnxRuntime(path, Options())


def _require_form(options: OnnxOptions, runtime: Runtime) -> None:
    forms = FORMS[runtime]
    form = options.form if options.form in forms else next(iter(forms))
    if form != options.form or any((getattr(options, name) or 0) < _LEAST.get(name, 1) for name in forms[form]):
        raise InputError(
            f"expected a file that {runtime} takes; found other options; export with {_asked_for(form, forms[form])}",
            slug="runtime-lacks-form",
        )


_LEAST = {"opset": 16}
_VALUES = {"steps": "T", "batch": "B", "opset": 18}


def _asked_for(form: OnnxForm, names: Sequence[str]) -> str:
    """Return the options of a form that needs others."""
    return " ".join([option("form", form), *(option(name, _VALUES[name]) for name in names)])


TARGETS = (Onnx(), OnnxRuntime)
