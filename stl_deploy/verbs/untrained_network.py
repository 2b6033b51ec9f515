"""A network before its training: what `check` asks of it, so that nobody learns a target's limits afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nir
import torch

from stl_deploy._util.console import QUIET, Console
from stl_deploy.data import check_dataset
from stl_deploy.data.encoders import input_coding
from stl_deploy.errors import InputError
from stl_deploy.exporters.nir.check import check
from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.edit import with_metadata
from stl_deploy.exporters.nir.lower import own_metadata
from stl_deploy.graph.findings import Report
from stl_deploy.nn.network import Network
from stl_deploy.pipeline.capture import capture
from stl_deploy.pipeline.check import declared_grid, seen_coding, show, targets_asked
from stl_deploy.pipeline.fold_network import fold
from stl_deploy.runs.configure import configure
from stl_deploy.runs.inputs import analog_bits
from stl_deploy.runs.user_module import load_module, module_input


def check_untrained(
    what: str,
    *,
    input_file: Path | None = None,
    targets: Sequence[str] | None = None,
    input_grid: int | None = None,
    say: Console = QUIET,
    **settings: Any,
) -> Report:
    """Check a network before its training: a preset's name, a configuration's file, or a torch module FILE.py:NAME.

    input_file: x for a module. input_grid: the input will be multiples of 2^-input_grid up to 1. settings: the
    targets' own options. Raises InputError for a bad call, CaptureError for a module without a form as a graph.
    """
    asked = targets_asked(targets, settings)
    graph, dialect = untrained_graph(what, input_file, declared_grid(input_grid))
    say.say(f"{what}: as it is before training, with weights as they are drawn")
    report = check(graph, dialect, asked)
    show(report, say)
    return report


def untrained_graph(
    what: str, input_file: Path | None = None, declared: Mapping[str, Any] | None = None
) -> tuple[nir.NIRGraph, Dialect | None]:
    """The graph of a preset's or configuration's network with weights as drawn, or of the torch module FILE.py:NAME.

    input_file: an npz with ``x`` as the forward takes it. declared: what metadata say of the input. FILE.py:NAME needs
    one, and is run; others take none.
    Raises InputError for a wrong call, CaptureError for a module that has no form as a graph.
    """
    if ".py:" in what:
        if input_file is None:
            raise InputError(f"{what}: expected --input X.npz with x as the module's forward takes it; found none")
        net = capture(load_module(what, None), module_input(input_file), verify=False)
        own = own_metadata(net.graph) | {"input": declared or seen_coding(net.sample)}
        return with_metadata(net.graph, own), net.dialect
    if input_file is not None:
        raise InputError(f"{what}: --input is of a module's check (FILE.py:NAME); a configuration tells its input")
    config = configure(what, [] if declared is None else [f"dataset.input_bits={declared['fraction_bits']}"])
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.train.seed)
        network = Network(config, *check_dataset(config.dataset)).eval()
    coding = input_coding(config.encoder)
    bits = analog_bits(config.dataset) if coding == "analog" else 0
    return fold(network, coding=coding, fraction_bits=bits, exact_grid=config.fold.exact_grid).graph, None
