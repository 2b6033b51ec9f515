"""Verbs that train: run, train."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from stl_deploy.cli.command import command
from stl_deploy.cli.output import console, emit_json
from stl_deploy.config.run_options import RunOptions, TrainOptions
from stl_deploy.errors import InputError
from stl_deploy.verbs.arguments import Json, Trust, completed


def _presets() -> Iterable[str]:
    from stl_deploy.config.load import preset_names

    return preset_names()


Which = Annotated[
    str,
    typer.Argument(
        metavar="PRESET|CONFIG.yaml",
        help="A preset's name or a configuration file.",
        autocompletion=completed(_presets),
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue from the folder's checkpoint.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run or training in the folder.")]
Output = Annotated[Path | None, typer.Option("-o", "--output", metavar="DIR", help="The run folder.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command("run")(command(run))
    app.command("train")(command(train))


def run(
    which: Which,
    changes: TrainOptions,
    options: RunOptions,
    output: Output = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Use the ready-made model of that name instead of training.")
    ] = False,
    _trust: Trust = False,
    json: Json = False,
) -> None:
    """The whole way: train, fold, export all, verify all, simulate, energy, report."""
    target = output or Path("runs") / Path(which).stem
    console().step(f"{which}: the whole way into {target}")  # torch takes its time to load
    console().keep(target)
    if pretrained:
        from stl_deploy.verbs import run_pretrained

        if replace(changes, data_dir=None) or options.resume:
            raise InputError(
                "--pretrained uses the model unchanged: leave out --mode, --seed, --device, --input-grid, --set, "
                "--resume"
            )
        result = run_pretrained(
            which,
            target,
            data_dir=None if changes.data_dir is None else Path(changes.data_dir),
            overwrite=options.overwrite,
            lava=options.lava,
            twin=bool(options.twin),
            say=console(),
        )
    else:
        from stl_deploy.verbs import configure
        from stl_deploy.verbs import run as run_all

        result = run_all(configure(which, changes.changes), target, options=options, say=console())
    emit_json(result.as_dict(), json)


def train(
    changes: TrainOptions,
    which: Annotated[
        str | None,
        typer.Argument(
            metavar="PRESET|CONFIG.yaml",
            help="A preset's name or a configuration file; default: digits, or with --resume the folder's.",
            show_default=False,
            autocompletion=completed(_presets),
        ),
    ] = None,
    output: Output = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the configuration as YAML (--json: as JSON) and stop.")
    ] = False,
    _trust: Trust = False,
    json: Json = False,
) -> None:
    """Train one model, with thresholds learned together with the weights."""
    from stl_deploy.config.load import dump_config
    from stl_deploy.runs.configure import configure
    from stl_deploy.training.run_files import CONFIG
    from stl_deploy.verbs import train as train_one

    if resume and (which is None or Path(which).is_dir()):  # the folder of a run: its own configuration
        output = output if which is None else output or Path(which)
        which = str(output / CONFIG) if output is not None and (output / CONFIG).is_file() else which
    which = which or "digits"
    config = configure(which, changes.changes)
    if print_config:
        if json:
            emit_json(config.model_dump(mode="json"), json)
        else:
            typer.echo(dump_config(config), nl=False)
        return
    run_dir = output or Path("runs") / Path(which).stem
    console().keep(run_dir)
    emit_json(train_one(config, run_dir, resume=resume, overwrite=overwrite, say=console()), json)
