"""The verbs and their options. Each imports its needs when it is called, so that `--help` is fast."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import typer

from stl_deploy._util import processes
from stl_deploy.cli import costs, setup, training
from stl_deploy.cli.command import verb_command
from stl_deploy.errors import InputError
from stl_deploy.verbs.arguments import Later, Verbs

app = typer.Typer(
    cls=Verbs,
    name="stl-deploy",
    help=(
        "Train, convert, verify and cost spiking neural networks.\n\n"
        "Start with:  stl-deploy run digits\n\n"
        "SOURCE is a run folder or a .nir file (for simulate, check and show also what export wrote). Human text goes "
        "to stderr, --json data to stdout. Exit codes: 0 done; 1 a check failed; 2 the call or its input is wrong; 70 "
        "a defect of ours; 130 interrupted.\n\n"
        "Global options: -q/--quiet prints less, -v/--verbose more, --debug shows tracebacks."
    ),
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def version(value: bool) -> None:
    """Print the version and stop."""
    if value:
        from stl_deploy import __version__

        typer.echo(f"stl-deploy {__version__}")
        raise typer.Exit


_PATIENCE = 5.0
"""Seconds in which the process that speaks should have ended: torchrun ends all of them with the first."""


@app.callback()
def root(
    context: typer.Context,
    _version: bool = typer.Option(False, "--version", callback=version, is_eager=True, help="Print the version."),
) -> None:
    """Common to all verbs."""
    count = processes.world_size()
    if count > 1 and context.invoked_subcommand != "train":
        if processes.rank():
            time.sleep(_PATIENCE)
            raise typer.Exit(InputError.exit_code)
        del os.environ["WORLD_SIZE"]  # the processes never meet, so this one speaks without asking the others
        raise InputError(
            f"{count} processes for '{context.invoked_subcommand}'; torchrun takes train, all other verbs run in one "
            "process; outside of torchrun, unset WORLD_SIZE and RANK"
        )


GENERATED = {
    "export": "Write one artifact and its manifest; it is read back and run unless --no-verify.",
    "check": "Per node: faithful, approximate or unsupported, with the reason and the remedy.",
    "show": "The layers as a table: shapes, parameters, synapses, neuron constants, threshold ranges; and a drawing.",
    "verify": "Spike agreement by layer, and the first spike that differs (layer, step, neuron).\n\n"
    "A .net file also runs on real Lava, where that is installed, and must spike there as our integer model does.",
    "simulate": "Run a network on an input and write its outputs.",
    "fold": "Fold BatchNorm, pooling, voting and thresholds into a NIR graph, and prove that it spikes the same.",
    "capture": "Make a graph of a torch module (own, snnTorch, SpikingJelly, Norse, Sinabs, Rockpool), proved to "
    "spike as the module does.",
    "synthesise": "Place and route a Verilog folder with open tools: cells, RAM blocks, clock, bitstream, latency.",
    "convert": "Make a spiking network of a trained ReLU network: thresholds calibrated, then learned if asked.",
    "fpga-run": "Run an input on a board that holds the bitstream; outputs are compared. Untested on hardware.",
    "eval": "Accuracy, spike rates and thresholds of a trained model on its test split; accuracy of a network's file.",
    "join": "Several trained runs decide together: one merged graph that exports and verifies like any other "
    "(our reading).",
    "quantise": "Train a run's weights and thresholds as Loihi's and C's integers, into a new run folder.\n\n"
    "8-bit weights, 12-bit decays, one whole threshold per population (thresholds per pixel are projected to channels "
    "first). Prints accuracy float -> post-training (by threshold form) -> quantisation-aware. Norms are folded and "
    "dropout is off; the epoch of lowest validation loss is kept, the start among them.",
    "optimise": "Sweep time steps, width, synop budget, pruning and early exit on validation data; recommend a point, "
    "or none.",
    "nir-conformance": "Test a reader of NIR files on graphs whose spikes are known under every dialect.",
    "doctor": "Versions, sizes, devices, Lava: what is there and which path will be taken.",
    "targets": "List what can be exported and simulated, and the known NIR dialects.",
    "datasets": "The datasets that presets and configurations can name.",
    "models": "The ready-made models: accuracy, energy, data and licence; for run NAME --pretrained.",
    "prices": "The price lists, and the powers of the chips' lines, with scope, source and grade of evidence.",
}
"""Help of the verbs whose parameters are those of their functions in `stl_deploy.verbs`."""


def _loading(name: str) -> Callable[[], Any]:
    def load() -> Any:
        python = "evaluate" if name == "eval" else name.replace("-", "_")
        return verb_command(python, name, GENERATED[name])

    return load


for name, text in GENERATED.items():
    app.command(name, cls=Later, help=text)(_loading(name))
training.register(app)
costs.register(app)
setup.register(app)
