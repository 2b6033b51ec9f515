"""Verbs that train: run, train, eval, fold, quantise."""

from __future__ import annotations

from collections.abc import Iterable
from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from stl_deploy.cli.options import (
    DialectOption,
    FoldThresholds,
    InputGrid,
    JointWeights,
    Json,
    LearningMode,
    RunArg,
    Trust,
    completed,
)
from stl_deploy.cli.output import console, emit_json, tell_if_interrupted
from stl_deploy.errors import InputError


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
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one key, as in --set train.epochs=3. May be repeated."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the folder's checkpoint.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run or training that the folder holds.")]
Mode = Annotated[
    LearningMode | None, typer.Option(help="stl: weights and thresholds; sl: weights; tl: thresholds; ann: ReLU.")
]
Seed = Annotated[int | None, typer.Option(help="Seed of weights, order, encoding and dropout.")]
Device = Annotated[
    str | None, typer.Option(autocompletion=completed(lambda: ("auto", "cpu", "cuda")), help="auto, cpu or cuda.")
]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="DIR", help="Where the dataset's files are already; default: downloaded."),
]
TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Also write for TensorBoard, into the run folder's tensorboard.")
]
Output = Annotated[Path | None, typer.Option("-o", "--output", metavar="DIR", help="The run folder.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command("run")(run)
    app.command("train")(train)
    app.command("eval")(evaluate)
    app.command("fold")(fold)
    app.command("join")(join)
    app.command("quantise")(quantise)


def _overrides(
    changes: list[str] | None,
    mode: str | None,
    seed: int | None,
    device: str | None,
    data_dir: Path | None,
    input_grid: int | None,
) -> list[str]:
    named = {
        "train.mode": mode,
        "train.seed": seed,
        "train.device": device,
        "dataset.data_dir": None if data_dir is None else dumps(str(data_dir)),
        "dataset.input_bits": input_grid,
    }
    return [f"{key}={value}" for key, value in named.items() if value is not None] + (changes or [])


def run(
    which: Which,
    output: Output = None,
    mode: Mode = None,
    seed: Seed = None,
    device: Device = None,
    data_dir: DataDir = None,
    input_grid: InputGrid = None,
    changes: Set = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Take the ready-made model of that name instead of training.")
    ] = False,
    no_lava: Annotated[bool, typer.Option("--no-lava", help="Leave Lava out even if it is installed.")] = False,
    no_twin: Annotated[bool, typer.Option("--no-twin", help="Do not train the ANN twin to compare with.")] = False,
    no_frontier: Annotated[
        bool,
        typer.Option("--no-frontier", help="Do not train narrower ANNs, to find the cheapest that is as accurate."),
    ] = False,
    _trust: Trust = False,
    json: Json = False,
) -> None:
    """The whole way: train, fold, export all, verify all, simulate, energy, report."""
    target = output or Path("runs") / Path(which).stem
    console().step(f"{which}: the whole way into {target}")  # torch takes its time to load
    tell_if_interrupted(target)
    if pretrained:
        from stl_deploy.verbs.pretrained_run import run_pretrained

        if mode or seed is not None or device or input_grid is not None or changes or resume:
            raise InputError(
                "--pretrained takes the model as it is: leave out --mode, --seed, --device, --input-grid, --set, "
                "--resume"
            )
        result = run_pretrained(
            which, target, data_dir=data_dir, overwrite=overwrite, lava=not no_lava, twin=not no_twin, say=console()
        )
    else:
        from stl_deploy.runs.configure import configure
        from stl_deploy.verbs.whole_way import run as run_all

        config = configure(which, _overrides(changes, mode, seed, device, data_dir, input_grid))
        result = run_all(
            config,
            target,
            resume=resume,
            overwrite=overwrite,
            lava=not no_lava,
            twin=not no_twin,
            frontier=not no_frontier,
            say=console(),
        )
    emit_json(result.as_dict(), json)


def train(
    which: Annotated[
        str | None,
        typer.Argument(
            metavar="PRESET|CONFIG.yaml",
            help="A preset's name or a configuration file; default: digits, with --resume that of the folder.",
            show_default=False,
            autocompletion=completed(_presets),
        ),
    ] = None,
    output: Output = None,
    mode: Mode = None,
    seed: Seed = None,
    device: Device = None,
    data_dir: DataDir = None,
    input_grid: InputGrid = None,
    changes: Set = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    tensorboard: TensorBoard = False,
    config_file: Annotated[
        Path | None, typer.Option("--config", metavar="CONFIG.yaml", help="The same as naming the file.")
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the configuration as YAML (--json: as JSON) and stop.")
    ] = False,
    _trust: Trust = False,
    json: Json = False,
) -> None:
    """Train one model, with thresholds learned together with the weights."""
    from stl_deploy.config.load import dump_config
    from stl_deploy.pipeline.train import train as train_one
    from stl_deploy.runs.configure import configure
    from stl_deploy.training.run_files import CONFIG

    name = str(config_file) if config_file is not None else which
    if resume and (name is None or Path(name).is_dir()):  # the folder of a run: its own configuration
        output = output if name is None else output or Path(name)
        name = str(output / CONFIG) if output is not None and (output / CONFIG).is_file() else name
    name = name or "digits"
    more = ["train.tensorboard=true"] if tensorboard else []
    config = configure(name, _overrides(changes, mode, seed, device, data_dir, input_grid) + more)
    if print_config:
        if json:
            emit_json(config.model_dump(mode="json"), json)
        else:
            typer.echo(dump_config(config), nl=False)
        return
    run_dir = output or Path("runs") / Path(name).stem
    tell_if_interrupted(run_dir)
    emit_json(train_one(config, run_dir, resume=resume, overwrite=overwrite, say=console()), json)


def evaluate(run_dir: RunArg, _trust: Trust = False, json: Json = False) -> None:
    """Accuracy, spike rates and thresholds of a trained model on its test split."""
    console().step(f"{run_dir}: running its test split")  # torch takes its time to load
    from stl_deploy.pipeline.train import evaluate as evaluate_run

    emit_json(evaluate_run(run_dir, say=console()), json)


def fold(
    source: Annotated[Path, typer.Argument(metavar="RUN|FILE.nir", help="A trained run, or a .nir file.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="NET.nir", help="Default: RUN/net.nir.")
    ] = None,
    thresholds: Annotated[
        FoldThresholds, typer.Option(help="keep: one per neuron in the graph; weights: absorbed, each is 1.")
    ] = "keep",
    exact_grid: Annotated[
        bool | None,
        typer.Option("--exact-grid/--no-exact-grid", help="Round to grids on which float32 sums are exact."),
    ] = None,
    merge_pools: Annotated[
        bool, typer.Option("--merge-pools", help="Of a .nir file: average pools go into weights beside them.")
    ] = False,
    dialect: DialectOption = None,
    input_grid: InputGrid = None,
    _trust: Trust = False,
    json: Json = False,
) -> None:
    """Fold BatchNorm, pooling, voting and thresholds into a NIR graph, and prove that it spikes the same."""
    from stl_deploy.runs.source import is_nir

    if is_nir(source):
        from stl_deploy.pipeline.fold_file import fold_file

        if output is None:
            raise InputError(f"{source}: expected -o NET.nir, the file to write")
        result = fold_file(
            source,
            output,
            thresholds=thresholds,
            exact_grid=bool(exact_grid),
            merge_pools=merge_pools,
            dialect=dialect,
            input_grid=input_grid,
            say=console(),
        )
    else:
        from stl_deploy.pipeline.fold import fold as fold_one

        if merge_pools or dialect is not None:
            raise InputError("--merge-pools and --dialect are of a .nir file; fold the run first, then its net.nir")
        result = fold_one(
            source,
            output or source / "net.nir",
            thresholds=thresholds,
            exact_grid=exact_grid,
            input_grid=input_grid,
            say=console(),
        )
    emit_json(result, json)


def join(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Two or more run folders of the same data.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="The folder of the joint network.")],
    weights: Annotated[
        JointWeights, typer.Option(help="Of the members' votes: equal, or learned on the validation split.")
    ] = "equal",
    _trust: Trust = False,
    json: Json = False,
) -> None:
    """Several trained runs decide together: one merged graph that exports and verifies like any other (our reading)."""
    from stl_deploy.verbs.joining import join as join_runs

    emit_json(join_runs(runs, output, weights=weights, say=console()).as_dict(), json)


def quantise(
    run_dir: RunArg,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="The new run folder.")],
    epochs: Annotated[int, typer.Option(help="Epochs of fine-tuning; 0 rounds only.")] = 10,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate to begin with; default: 0.3 of the run's (one_cycle: 0.03).")
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Test images to compare on; default: all.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda, for the training.")] = "cpu",
    input_grid: InputGrid = None,
    resume: Resume = False,
    _trust: Trust = False,
    json: Json = False,
) -> None:
    """Train a run's weights and thresholds as Loihi's and C's integers, into a new run folder.

    8-bit weights, 12-bit decays, one whole threshold per population (thresholds per pixel are projected to channels
    first). Prints accuracy float -> post-training (by threshold form) -> quantisation-aware. Norms are folded and
    dropout is off; the epoch of lowest validation loss is kept, the start among them.
    """
    from stl_deploy.pipeline.quantise import UNFINISHED, QuantiseOptions
    from stl_deploy.pipeline.quantise import quantise as quantise_run

    tell_if_interrupted(output / UNFINISHED)
    options = QuantiseOptions(epochs, lr, samples, device, input_grid, resume)
    emit_json(quantise_run(run_dir, output, options, say=console()), json)
