"""The verb run without training: a ready-made model goes the whole way."""

from __future__ import annotations

from pathlib import Path

from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.lock import alone_in
from stl_deploy.data import load_dataset
from stl_deploy.pipeline.train import size_sentence
from stl_deploy.training.pretrained.unpacking import configuration, unpack
from stl_deploy.training.run_folder import refuse_replacing
from stl_deploy.verbs.whole_way import RunResult, run


def run_pretrained(
    name: str,
    run_dir: Path,
    *,
    data_dir: Path | None = None,
    overwrite: bool = False,
    lava: bool = True,
    twin: bool = True,
    say: Console = QUIET,
) -> RunResult:
    """The whole way but training: the model ``name`` is unpacked into ``run_dir``, then `run` goes on from there.

    data_dir: where the dataset's files are; None: downloaded. overwrite: a training that the folder holds may go.
    Raises InputError if there is no such model, and as `run`.
    """
    where = None if data_dir is None else str(data_dir)
    config = configuration(name, where)
    refuse_replacing(run_dir, resume=False, overwrite=overwrite)
    with alone_in(run_dir):
        say.step(f"Unpacking the ready-made model {name}")
        data = load_dataset(config.dataset)
        say.say(size_sentence(data))
        about = unpack(name, run_dir, where)
        say.say(f"trained by '{about.command}'; test accuracy {about.accuracy} on {about.accuracy.samples} samples")
        return run(config, run_dir, resume=True, lava=lava, twin="kept" if twin else False, data=data, say=say)
