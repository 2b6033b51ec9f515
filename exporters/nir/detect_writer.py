"""Detect the writer of a NIR file without a dialect, and the options that the file leaves open even then.

Frameworks leave traces: node names, number precision, and the formula of r. A writer is named only if the traces are
its own; every other file needs its dialect from its user.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import nir
import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.remedies import option, remedy
from stl_deploy.errors import InputError
from stl_deploy.exporters.nir.dialect import PRESETS, SUMMARIES, Dialect, load_dialect
from stl_deploy.exporters.nir.kinds import NEURONS
from stl_deploy.exporters.nir.lower import metadata_dialect, own_metadata

_CURRENT = (nir.CubaLI, nir.CubaLIF)
_LEAKY = (nir.LI, nir.LIF, *_CURRENT)
_RESETTING = nir.IF | nir.LIF | nir.CubaLIF
_TO_A_VALUE = ("value", "value_delayed", "snntorch_zero", "snntorch_zero_now")
_ROUNDING = 1e-5
"""Relative error of r and τ stored in float32."""
_SNNTORCH_DT = 1e-4
_NORSE_LONGEST = 1e-4
"""Norse writes dt·τ, so a τ of 0.1 s with its dt of 1e-3; read in seconds it would be shorter than any time step."""


@dataclass(frozen=True)
class Writer:
    """A framework recognised by a file's form: the preset's name, the dialect, and the traces."""

    preset: str
    dialect: Dialect
    trace: str


@dataclass(frozen=True)
class DialectChoice:
    """The dialect in which a graph is read; its source; that in one sentence; options left open."""

    dialect: Dialect
    told_by: Literal["user", "metadata", "form", "nothing"]
    reason: str
    unspecified_options: str = ""


def resolve_dialect(graph: nir.NIRGraph, asked: object, where: object, *, or_spec: bool = False) -> DialectChoice:
    """Choose a graph's dialect: ``asked``, else its own metadata, else the writer's by its form.

    asked: a dialect, or what `load_dialect` takes. where: name of the graph in messages.
    or_spec: use ``spec`` if nothing determines it. Raises InputError, with the candidates, if nothing determines it
    and it matters, unless ``or_spec``.
    """
    own = own_metadata(graph)
    if asked is not None:
        dialect = asked_dialect(graph, asked)
        named = asked if isinstance(asked, str | Path) else "the one given"
        said = "; ".join(text for text in (unspecified_options(graph, dialect), ignored_fields(graph, dialect)) if text)
        if "dialect" in own:
            other = f"{where}: the file declares another dialect than {named}; read as asked, it may spike otherwise"
            said = "" if metadata_dialect(own) == dialect else other
        return DialectChoice(dialect, "user", f"Dialect: {named} (as asked).", said)
    if "dialect" in own:
        return DialectChoice(metadata_dialect(own), "metadata", "Dialect: as the graph's metadata declare.")
    writer = detect_writer(graph)
    if writer is not None:
        reason = f"Dialect: {writer.preset}, as {where} was written by it ({writer.trace})."
        return DialectChoice(writer.dialect, "form", reason, unspecified_options(graph, writer.dialect))
    if depends(graph):
        unstated = (
            f"{where}: the file does not say how it is meant, and its form does not give away who wrote it; name the "
            f"framework ({option('dialect', 'NAME')}): {with_reasons(candidates(graph))}, or a .json file; "
            + remedy(cli="'stl-deploy check FILE --input X.npz'", python="stl_deploy.verbs.measure(FILE, X.npz)")
            + " measures what the choice changes"
        )
        if or_spec:
            return DialectChoice(PRESETS["spec"], "nothing", "Dialect: spec.", f"dialect-unstated: {unstated}")
        raise InputError(unstated)
    return DialectChoice(PRESETS["spec"], "nothing", "Dialect: none needed, as nothing in the graph depends on it.")


def asked_dialect(graph: nir.NIRGraph, asked: object) -> Dialect:
    """Return a dialect, loading it if need be; a missing time step is that of the graph's metadata."""
    if isinstance(asked, Dialect):
        return asked
    written = own_metadata(graph).get("dialect")
    metadata = written if isinstance(written, Mapping) else graph.metadata
    dt: Any = metadata.get("dt") if isinstance(metadata, Mapping) else None
    try:
        base = Dialect(dt=dt.tolist() if isinstance(dt, np.ndarray | np.generic) else dt)
    except InputError:
        base = Dialect()
    return load_dialect(asked, base)


def depends(graph: nir.NIRGraph) -> bool:
    """Return whether a graph computes anything that a dialect decides."""
    return any(isinstance(node, (*NEURONS, nir.Delay)) for _, node in _flat(graph))


def detect_writer(graph: nir.NIRGraph) -> Writer | None:
    """Return the framework that wrote a graph, if the graph's form is that of one alone."""
    nodes = dict(_flat(graph))
    if not any(isinstance(node, NEURONS) for node in nodes.values()):
        return None
    try:
        return next((found for ask in _WRITERS if (found := ask(nodes)) is not None), None)
    except (AttributeError, TypeError, ValueError):  # a field is missing or no number: lowering says which
        return None


def candidates(graph: nir.NIRGraph) -> list[str]:
    """Return the presets of the frameworks that write all kinds of nodes in a graph, and ``spec``."""
    kinds = {type(node) for _, node in _flat(graph)} - {nir.Input, nir.Output}
    return [name for name in PRESETS if name != "stl" and kinds <= _WRITES.get(name.split("_")[0], kinds)]


def with_reasons(names: Iterable[str]) -> str:
    """The presets, with what sets each apart."""
    return ", ".join(f"{name} ({SUMMARIES[name]})" for name in names)


def unspecified_options(graph: nir.NIRGraph, dialect: Dialect) -> str:
    """List options that the framework's files leave open, with their dialects; none if they do not matter."""
    nodes = [node for _, node in _flat(graph)]
    leaky = any(isinstance(node, nir.LI | nir.LIF) for node in nodes)
    if dialect in (PRESETS["sinabs"], PRESETS["sinabs_hard"], PRESETS["sinabs_reader"]) and leaky:
        return (
            "Sinabs's files do not say whether its leaky neurons scale their input by 1 - decay (norm_input=True, its "
            "default); read as not scaled; the dialect sinabs_norm scales it"
        )
    if dialect == PRESETS["sinabs"] and any(isinstance(node, nir.IF) for node in nodes):
        return (
            "Sinabs's files do not say whether potentials stop at minus the threshold; read as not; with the dialect "
            "sinabs_reader they do, as in its from_model and from_nir"
        )
    if dialect in (PRESETS[name] for name in PRESETS if name.startswith("snntorch")):
        (name,) = (name for name in PRESETS if PRESETS[name] == dialect)
        others = ", ".join(other for other in PRESETS if other.startswith("snntorch") and other != name)
        return f"snnTorch's files do not say the reset; read as {name}; others: {others}"
    if dialect == PRESETS["norse"] and any(isinstance(node, _RESETTING) and not np.any(node.v_reset) for node in nodes):
        return "Norse's files do not say what its neurons reset to (v_reset); read as 0, its default"
    if dialect == PRESETS["rockpool"] and any(isinstance(node, NEURONS) for node in nodes):
        return "Rockpool's files do not say the neurons' bias; read as 0, its default"
    return ""


def ignored_fields(graph: nir.NIRGraph, dialect: Dialect) -> str:
    """Return the first field with a meaningful value that the dialect ignores, or nothing.

    r is meaningless if it is 1, or a framework's function of τ and dt that scales no input.
    """
    for name, node in _flat(graph):
        own = dialect.of_node(name)
        resets = isinstance(node, _RESETTING) and own.reset not in _TO_A_VALUE
        try:
            if resets and np.any(node.v_reset):
                return f"the reset of this dialect, {own.reset}, ignores v_reset, which is not 0 at '{name}'"
            if isinstance(node, _LEAKY) and _scales_nothing(own, node) and not _says_nothing(own, node):
                return f"this dialect ignores r, which is not 1 at '{name}'; if it scales input, name another"
        except (AttributeError, TypeError, ValueError):  # a field is missing or no number: lowering says which
            continue
    return ""


def _scales_nothing(dialect: Dialect, node: nir.NIRNode) -> bool:
    exponential = dialect.leak == "exp" or (isinstance(node, _CURRENT) and dialect.synapse == "exp_add")
    return exponential or dialect.gain != "r"


def _says_nothing(dialect: Dialect, node: nir.NIRNode) -> bool:
    r, tau = _r(node), _tau(node)
    with np.errstate(all="ignore"):
        of_rockpool = np.allclose(_rockpool_dt(tau, r), dialect.dt, rtol=1e-3)
    return of_rockpool or any(_close(r, made) for made in (1.0, 1 / tau, tau / dialect.dt))


def _flat(graph: nir.NIRGraph, prefix: str = "") -> Iterator[tuple[str, nir.NIRNode]]:
    for name, node in graph.nodes.items():
        if isinstance(node, nir.NIRGraph):
            yield from _flat(node, f"{prefix}{name}.")
        else:
            yield prefix + name, node


def _neurons(nodes: dict[str, nir.NIRNode]) -> list[nir.NIRNode]:
    return [node for node in nodes.values() if isinstance(node, NEURONS)]


def _inner(nodes: dict[str, nir.NIRNode]) -> list[str]:
    return [name for name, node in nodes.items() if not isinstance(node, nir.Input | nir.Output)]


def _tau(node: nir.NIRNode) -> NDArray[np.float64]:
    return np.asarray(node.tau_mem if isinstance(node, _CURRENT) else node.tau, np.float64)


def _r(node: nir.NIRNode) -> NDArray[np.float64]:
    return np.asarray(node.r, np.float64)


def _close(found: NDArray[np.float64], expected: NDArray[np.float64] | float) -> bool:
    return bool(np.allclose(found, expected, rtol=_ROUNDING, atol=0))


def _snntorch(nodes: dict[str, nir.NIRNode]) -> Writer | None:
    """Match snnTorch: recurrent layers as ``x.lif`` and ``x.w_rec``, and r = τ/1e-4 everywhere."""
    recurrent = [name for name in nodes if name.endswith(".w_rec")]
    paired = all(name.removesuffix("w_rec") + "lif" in nodes for name in recurrent)
    if not recurrent or not paired or not all(isinstance(node, _LEAKY) for node in _neurons(nodes)):
        return None
    with np.errstate(invalid="ignore"):
        if not all(_close(_r(node), _tau(node) / _SNNTORCH_DT) for node in _neurons(nodes)):
            return None
    return Writer("snntorch", PRESETS["snntorch"], "its recurrent layers are named lif and w_rec, and r is τ/1e-4")


def _spikingjelly(nodes: dict[str, nir.NIRNode]) -> Writer | None:
    """Match SpikingJelly: torch.fx's names, and neurons in float64."""
    fx = "input_1" in nodes and all(re.fullmatch(r"_\d+", name) for name in _inner(nodes))
    if not fx or any(np.asarray(node.v_threshold).dtype != np.float64 for node in _neurons(nodes)):
        return None
    steps = [1 / _r(node) if isinstance(node, nir.IF) else _tau(node) / _r(node) for node in _neurons(nodes)]
    unscaled = [step for step, node in zip(steps, _neurons(nodes), strict=True) if not _close(_r(node), 1.0)]
    dt = PRESETS["spikingjelly"].dt
    if unscaled:
        dt = float(f"{float(unscaled[0].flat[0]):.9g}")
    if not all(_close(step, dt) for step in unscaled):
        return None
    return Writer("spikingjelly", replace(PRESETS["spikingjelly"], dt=dt), f"names of torch.fx, float64; dt {dt:g}")


def _rockpool(nodes: dict[str, nir.NIRNode]) -> Writer | None:
    """Match Rockpool: names that end in its classes, and r = τ·exp(-dt/τ)/dt."""
    if not all(re.search(r"_\w*(LIF|Linear|ExpSyn)\w*Torch$", name) for name in _inner(nodes)):
        return None
    steps = [_rockpool_dt(_tau(node), _r(node)) for node in _neurons(nodes)]
    dt = float(f"{float(steps[0].flat[0]):.4g}")
    if not all(np.allclose(step, dt, rtol=1e-3) for step in steps):
        return None
    return Writer("rockpool", replace(PRESETS["rockpool"], dt=dt), f"names of its classes; dt {dt:g}")


def _rockpool_dt(tau: NDArray[np.float64], r: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solve r = e^-u/u, u = dt/τ, by Newton's method on ln r + u + ln u = 0, which is concave and rises."""
    u = np.full_like(r, 1e-9)
    for _ in range(100):
        u = u - (np.log(r) + u + np.log(u)) / (1 + 1 / u)
    return np.asarray(u * tau)


def _norse(nodes: dict[str, nir.NIRNode]) -> Writer | None:
    """Match Norse: names by number, r = 1, and time constants that have been multiplied by a dt too many."""
    leaky = [node for node in _neurons(nodes) if isinstance(node, _LEAKY)]
    numbered = all(name.isdigit() for name in _inner(nodes))
    if not numbered or not leaky or not all(_close(_r(node), 1.0) for node in _neurons(nodes)):
        return None
    # Names of numbers and r = 1 are common; time constants below a squared dt are not.
    if max(_tau(node).max() for node in leaky) > _NORSE_LONGEST:
        return None
    return Writer("norse", PRESETS["norse"], "r is 1 and its time constants are in units of dt squared")


def _spyx(nodes: dict[str, nir.NIRNode]) -> Writer | None:
    """Match Spyx: names layer_0 and on, and r = 1/τ = 1 - β."""
    leaky = [node for node in _neurons(nodes) if isinstance(node, _LEAKY)]
    if not leaky or not all(re.fullmatch(r"layer_\d+(\.layer_\d+)?(\.\w+)?", name) for name in _inner(nodes)):
        return None
    if not all(_close(_r(node) * _tau(node), 1.0) for node in leaky):
        return None
    return Writer("spyx", PRESETS["spyx"], "its layers are named layer_0 and on, and r is 1/τ")


_WRITERS: tuple[Callable[[dict[str, nir.NIRNode]], Writer | None], ...] = (
    _snntorch,
    _spikingjelly,
    _rockpool,
    _norse,
    _spyx,
)
_DENSE = {nir.Affine, nir.Linear}
_WRITES: dict[str, set[type[nir.NIRNode]]] = {
    "snntorch": _DENSE | {nir.Conv2d, nir.AvgPool2d, nir.Flatten, nir.LIF, nir.CubaLIF},
    "norse": {nir.Affine, nir.Conv2d, nir.LIF, nir.CubaLIF, nir.LI, nir.IF},
    "spikingjelly": _DENSE | {nir.Conv1d, nir.Conv2d, nir.AvgPool2d, nir.Flatten, nir.IF, nir.LIF, nir.CubaLIF},
    "sinabs": {nir.Affine, nir.Conv1d, nir.Conv2d, nir.SumPool2d, nir.Flatten, nir.IF, nir.LIF, nir.LI},
    "rockpool": _DENSE | {nir.CubaLIF, nir.LIF, nir.LI},
    "spyx": _DENSE | {nir.Conv2d, nir.SumPool2d, nir.Flatten, nir.IF, nir.LIF, nir.CubaLIF},
}
"""The kinds of nodes that each framework's writer knows, by the first word of its presets' names."""
