"""The verb models, and run without training: ready-made models go the whole way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stl_deploy._util.console import Console
from stl_deploy._util.lock import alone_in
from stl_deploy.config.load import load_config
from stl_deploy.pipeline.run import RunResult, run
from stl_deploy.training import pretrained
from stl_deploy.training.model_file import CONFIG_FILE
from stl_deploy.training.run_folder import forget_results, refuse_replacing


def models(*, say: Console | None = None) -> list[dict[str, Any]]:
    """The ready-made models and what their cards say (JSON-ready)."""
    say = say or Console(quiet=True)
    cards = [pretrained.card(name) for name in pretrained.names()]
    say.table(
        ["model", "T", "parameters", "test accuracy (95 %)", "ANN twin", "data", "licence of the data"],
        [
            [c.name, str(c.time_steps), f"{c.parameters:,}", str(c.accuracy), str(c.twin_accuracy), c.data, c.licence]
            for c in cards
        ],
    )
    for about in cards:
        if about.share_alike:
            say.say(
                f"{about.name}: the licence of its data asks for derived works to be shared alike ({about.licence})"
            )
    say.say("use one:  stl-deploy run NAME --pretrained")
    return [about.as_dict() for about in cards]


def run_pretrained(
    name: str,
    run_dir: Path,
    *,
    data_dir: Path | None = None,
    overwrite: bool = False,
    lava: bool = True,
    twin: bool = True,
    say: Console | None = None,
) -> RunResult:
    """The whole way but training: the model ``name`` is unpacked into ``run_dir``, then `run` goes on from there.

    data_dir: where the dataset's files are; None: downloaded. overwrite: a training that the folder holds may go.
    Raises InputError if there is no such model, and as `run`.
    """
    say = say or Console(quiet=True)
    pretrained.card(name)
    refuse_replacing(run_dir, resume=False, overwrite=overwrite)
    with alone_in(run_dir):
        say.step(f"Unpacking the ready-made model {name}")
        forget_results(run_dir)
        about = pretrained.unpack(name, run_dir, None if data_dir is None else str(data_dir))
        say.say(f"trained by '{about.command}'; test accuracy {about.accuracy} on {about.accuracy.samples} samples")
        return run(
            load_config(run_dir / CONFIG_FILE), run_dir, resume=True, lava=lava, twin="kept" if twin else False, say=say
        )
