"""Check in memory: find everything that keeps a network off each target, node by node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any, cast

import numpy as np

from stl_deploy._util.keywords import PLUG_INS
from stl_deploy._util.remedies import did_you_mean, named
from stl_deploy.config.options import CheckOptions, of_target
from stl_deploy.errors import InputError
from stl_deploy.exporters.nir.check import check as check_graph
from stl_deploy.exporters.nir.lower import own_metadata, with_metadata
from stl_deploy.exporters.targets import ChecksFor, findings, form_of, make_options, registry, suggest
from stl_deploy.exporters.targets import settings as option_names
from stl_deploy.graph.check import TargetCheck, check_program
from stl_deploy.graph.exact import Grid, on_grid, with_input
from stl_deploy.graph.findings import CheckReport
from stl_deploy.graph.program import Program
from stl_deploy.graph.run import NetworkInput
from stl_deploy.pipeline.graph_data import GraphData
from stl_deploy.pipeline.network_input import checked_bits

_OPTIONS = [field.name for field in fields(CheckOptions) if field.name != PLUG_INS]


def check(
    net: GraphData, targets: Sequence[str] | None, options: CheckOptions, x: NetworkInput | None = None
) -> CheckReport:
    """Check each node for each target (default: every format's): faithful, approximate or unsupported, and why.

    A captured module whose batch norms have seen no data is checked with drawn statistics, as it will be trained.
    x: representative input, for targets that take integers alone. Raises InputError for a target or an
    option that is not known.
    """
    asked = targets_asked(targets, options, x)
    trained = None if net.original is None else net.original.as_trained(net.program)
    net = net if trained is None else type(net)(trained)
    declared, seen = declared_grid(options.input_grid), seen_coding(x)
    if net.program.origin is None:
        return check_as_program(net.program, asked, declared, seen)
    graph = with_metadata(net.graph, with_input(own_metadata(net.graph), declared, seen))
    return check_graph(graph, net.dialect, asked)


def check_as_program(
    program: Program,
    asked: Mapping[str, TargetCheck],
    declared: Mapping[str, Any] | None,
    seen: Mapping[str, Any] | None,
) -> CheckReport:
    """Return the report on a Program that is no NIR graph; declared, seen: as `with_input` takes them."""
    return check_program(replace(program, metadata=with_input(program.metadata, declared, seen)), asked)


def declared_grid(bits: int | None) -> dict[str, Any] | None:
    """Return metadata of an input of multiples of 2^-bits up to 1; raise InputError for bits outside 0…24."""
    if bits is None:
        return None
    return {"fraction_bits": checked_bits(bits), "max": 1.0}


def seen_coding(x: NetworkInput | None) -> dict[str, Any] | None:
    """Return metadata of the input as ``x`` shows it; None without x."""
    if x is None:
        return None
    arrays = list(x.values()) if isinstance(x, Mapping) else [np.asarray(x)]
    return {"coding": "graded" if all(on_grid(array, Grid(0, np.inf)) for array in arrays) else "analog"}


def targets_asked(
    targets: Sequence[str] | None, options: CheckOptions, x: NetworkInput | None = None
) -> dict[str, TargetCheck]:
    """Return each target's check; by default of every format except those checked by name only.

    options: of the targets that are named. x: input that those may count by.
    Raises InputError for a name or an option that is none of theirs.
    """
    known: dict[str, TargetCheck] = {n: partial(findings, kind) for n, kind in registry().formats.items()}
    known |= {n: partial(findings, kind) for n, kind in registry().checks.items()}
    for name in cast(Sequence[object], targets or ()):
        if not isinstance(name, str):
            kind = type(name).__name__
            raise InputError(
                f"expected names of targets, each by itself, as check('onnx', 'c'); found a {kind}: {name!r}"
            )
        if name not in known:
            raise InputError(f"expected a target: {', '.join(known)}; found '{name}'{suggest(name, known)}")
    default = [name for name, kind in registry().formats.items() if kind.by_default]
    asked = {name: ask for name, ask in known.items() if name in (targets or default)}
    given = of_target(options)
    return asked | (_with_options(list(asked), given, x) if given or x is not None else {})


def _with_options(asked: Sequence[str], given: Mapping[str, Any], x: NetworkInput | None) -> dict[str, TargetCheck]:
    """The checks that these options change; raises InputError for an option that none of those asked has."""
    able = {name for name in asked if isinstance(registry().formats.get(name), ChecksFor)}
    for key in given:
        takers = [
            name
            for name, kind in registry().formats.items()
            if isinstance(kind, ChecksFor) and key in option_names(kind.options)
        ]
        if not able & {*takers}:
            raise InputError(
                f"expected {named('targets')} {' or '.join(takers)} for option '{key}'; found {', '.join(asked)}; "
                "name it"
                if takers
                else f"expected options of check: {', '.join(_OPTIONS)}; found '{key}'{did_you_mean(key, _OPTIONS)}"
            )
    made: dict[str, TargetCheck] = {}
    for name in able:
        kind = form_of(registry().formats[name], given)
        own = {option: value for option, value in given.items() if option in option_names(kind.options)}
        made[name] = partial(findings, kind, options=replace(make_options(kind, own), x=x))
    return made
