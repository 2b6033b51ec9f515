"""Cost of Loihi's integers: float -> post-training by threshold form -> quantisation-aware, and real Lava's word.

    python -m benchmarks.quantisation RUN... -o OUT

RUN: folders of `stl-deploy train` or `run`. Accuracies are of the whole test split through our integer model; each netx
file also runs on real Lava, on the first --lava-images test images, and every spike is compared with our prediction.
What is done is kept in RUN-loihi, row by row: the same command goes on where it was ended (delete it to start over).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.agreement import against_lava
from benchmarks.quantisation_report import markdown
from stl_deploy._util.console import Console
from stl_deploy._util.files import make_folder, read_json, sha256, write_json, write_text
from stl_deploy._util.working import now_and_then
from stl_deploy.config.run_options import QuantiseOptions
from stl_deploy.errors import InputError, StlDeployError
from stl_deploy.exporters.lava import environment
from stl_deploy.exporters.netx.file import write_netx
from stl_deploy.exporters.netx.forms import FormRow, Models, quantise_forms
from stl_deploy.exporters.netx.model import NetxModel
from stl_deploy.exporters.netx.target import model_of_file
from stl_deploy.runs.folded_run import fold_run
from stl_deploy.runs.inputs import encode_split
from stl_deploy.runs.source import open_program, open_source
from stl_deploy.training.loop import pick_device
from stl_deploy.training.run_files import MODEL
from stl_deploy.verbs.quantising import CALIBRATION, TRAINED, before_training, quantise

NAME = "quantisation"


class Kept:
    """Results in files of a folder, each with the key of what it was made from."""

    def __init__(self, folder: Path, key: dict[str, Any], say: Console) -> None:
        self._folder, self._key, self._say = folder, key, say
        make_folder(folder)

    def get(self, name: str, make: Callable[[], Any], **key: Any) -> Any:
        """Return the kept result of ``make`` for this key, or call it (JSON-ready)."""
        path, key = self._folder / f"{name}.json", self._key | key
        if path.is_file():
            kept = read_json(path)
            if kept["key"] == key:
                self._say.say(f"{name}: kept from before ({path})")
                return kept["value"]
        value = make()
        write_json(path, {"key": key, "value": value})
        return value


class Table:
    """The rows of one run."""

    def __init__(self, run_dir: Path, options: argparse.Namespace, say: Console) -> None:
        if not (run_dir / MODEL).is_file():
            raise InputError(f"{run_dir}: no trained network; make one with: stl-deploy train PRESET -o {run_dir}")
        self.run_dir, self.options, self.say = run_dir, options, say
        self.work = run_dir.with_name(run_dir.name + "-loihi")
        key = {"network": sha256(run_dir / MODEL), "config": sha256(run_dir / "config.yaml"), "images": options.images}
        self.kept = Kept(self.work, key, say)
        say.step(f"{run_dir}: folding")
        self.folded = fold_run(run_dir, self.work / "net.nir")
        self.test = encode_split(self.folded.config, self.folded.data.test, options.images)
        self.models: Callable[[], Models] = cache(self._models)

    def make(self) -> dict[str, Any]:
        """The table, JSON-ready."""
        self.say.step(f"{self.run_dir}: {self.test.x.shape[1]} test images in each threshold form")
        known = self.kept.get("post-training", lambda: [asdict(row) for row in self._before()])
        epochs = self.options.epochs
        trained = self.kept.get("quantisation-aware", lambda: self._train(known), epochs=epochs)
        rows = [*known, trained]
        for row in rows:
            if row["stage"] in ("post-training", TRAINED) and row["refused"] is None:
                row["lava"] = self._lava(row)
        config = self.folded.config
        return {
            "run": self.run_dir.name,
            "dataset": config.dataset.name,
            "T": config.time_steps,
            "mode": config.train.mode,
            "test_images": self.test.x.shape[1],
            "calibration_images": CALIBRATION,
            "epochs": epochs,
            "rows": rows,
        }

    def _models(self) -> Models:
        self.say.say("choosing integers on training images, in each threshold form")
        return quantise_forms(
            self.folded.program, encode_split(self.folded.config, self.folded.data.train, CALIBRATION).x
        )

    def _before(self) -> list[FormRow]:
        return before_training(self.folded, self.models(), self.test, now_and_then(self.say, "test images"))

    def _train(self, known: Iterable[dict[str, Any]]) -> dict[str, Any]:
        options = QuantiseOptions(epochs=self.options.epochs, samples=self.options.images, device=self.options.device)
        rows = [FormRow(**row) for row in known]
        facts = quantise(self.run_dir, self.work / "trained", options, known=rows, say=self.say)
        row: dict[str, Any] = facts["rows"][-1]
        return row

    def _lava(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """Real Lava on the row's netx file; None without Lava."""
        status = environment.status()
        if self.options.no_lava or not status.ready:
            self.say.say(f"no real Lava: {'left out as asked' if self.options.no_lava else status.reason}")
            return None
        count = min(self.options.lava_images, self.test.x.shape[1])
        trained = row["stage"] == TRAINED
        name = f"lava, {'quantisation-aware' if trained else row['form']}"

        def run() -> dict[str, Any]:
            path, model = self._file(row)
            self.say.step(f"{self.run_dir}: {row['stage']}, {row['form']}: {count} images on real Lava")
            x, labels = self.test.x[:, :count], self.test.labels[:count]
            seconds, show = self.options.deadline, now_and_then(self.say, "steps on Lava")
            return asdict(against_lava(model, path, x, labels, deadline=seconds, progress=show))

        entry: dict[str, Any] = self.kept.get(
            name, run, lava_images=count, **({"epochs": self.options.epochs} if trained else {})
        )
        return entry

    def _file(self, row: dict[str, Any]) -> tuple[Path, NetxModel]:
        if row["stage"] == TRAINED:
            folder = self.work / "trained"
            return folder / "net.net", model_of_file(folder / "net.net", open_program(open_source(folder)))
        path, model = self.work / f"{row['form']}.net", self.models()[row["form"]]
        assert isinstance(model, NetxModel)
        write_netx(model.file, path)
        return path, model


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, and write OUT/quantisation.json and .md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quantisation", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="trained run folders")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="where quantisation.json and .md go")
    parser.add_argument("--epochs", type=int, default=5, help="of quantisation-aware training")
    parser.add_argument("--images", type=int, help="test images, default: all")
    parser.add_argument("--lava-images", type=int, default=100, help="of them, on real Lava")
    parser.add_argument("--deadline", type=float, default=1800, help="seconds for one run on Lava")
    parser.add_argument("--device", default="cpu", help="cpu or cuda, for the training")
    parser.add_argument("--no-lava", action="store_true", help="leave real Lava out")
    options = parser.parse_args(arguments)
    try:
        pick_device(options.device, "--device")  # before the long work
        tables = [Table(run, options, Console()).make() for run in options.runs]
    except StlDeployError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    data = {"schema_version": 1, "label": "simulated", "tables": tables}
    text = markdown(data)
    print(text)
    if options.output is not None:
        write_json(options.output / f"{NAME}.json", data)
        write_text(options.output / f"{NAME}.md", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
