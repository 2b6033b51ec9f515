"""A run folder is of one run: nothing is replaced unasked, two writers never meet, and no verb believes a mixed one."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stl_deploy import verbs
from stl_deploy._util import system, temporary
from stl_deploy._util.files import sha256, write_text
from stl_deploy._util.lock import NAME, alone_in
from stl_deploy.config.options import TradeoffOptions
from stl_deploy.errors import InputError
from stl_deploy.runs.configure import configure
from stl_deploy.runs.manifest import check_unchanged, record_files
from stl_deploy.training.run_files import MANIFEST
from stl_deploy.verbs import whole_way as run_module
from stl_deploy.verbs.weighing import tradeoff
from tests.pipeline.conftest import SMALL

BRIEF = (*SMALL, "train.epochs=1", "dataset.T=2")


@pytest.fixture
def copy(run_dir: Path, tmp_path: Path) -> Path:
    shutil.copytree(run_dir, tmp_path / "run")
    return tmp_path / "run"


def _change(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "name", ["config.yaml", "model.safetensors", "net.nir", "test.npz", "verify.json", "energy.json", "metrics.jsonl"]
)
def test_report_refuses_a_file_of_another_run(copy: Path, name: str) -> None:
    page = sha256(copy / "report.html")
    _change(copy / name)
    with pytest.raises(
        InputError,
        match=rf"{name} has changed since manifest\.json was written.*make it whole with: verbs\.run\(.*resume=True",
    ):
        verbs.report(copy)
    assert sha256(copy / "report.html") == page


def test_report_refuses_the_energy_of_another_version(copy: Path) -> None:
    energy = json.loads((copy / "energy.json").read_text())
    write_text(copy / "energy.json", json.dumps(energy | {"schema_version": 2}))
    record_files(copy, ["energy.json"])
    with pytest.raises(InputError, match=r"energy\.json: expected schema_version 5; found 2; make it again: "):
        verbs.report(copy)


@pytest.mark.parametrize("name", ["net.nir", "test.npz", "model.safetensors"])
def test_verify_and_energy_refuse_a_folder_of_two_runs(copy: Path, name: str) -> None:
    _change(copy / name)
    with pytest.raises(InputError, match=f"{name} has changed"):
        verbs.verify(copy, [copy / "net.onnx"], lava=False)
    with pytest.raises(InputError, match=f"{name} has changed"):
        verbs.energy(copy, None)
    with pytest.raises(InputError, match=f"{name} has changed"):
        tradeoff([copy], points_at=TradeoffOptions(over_steps=True))


def test_eval_refuses_weights_of_another_training(copy: Path) -> None:
    found = verbs.evaluate(copy)["artifacts"]
    assert set(found["backends"]) == {"net.net", "net.onnx"}
    assert found["backends"]["net.onnx"]["differing"] == 0 < found["backends"]["net.onnx"]["compared"]
    assert found["accuracy"] == found["backends"]["net.onnx"]["accuracy"]
    assert found["interval"][0] <= found["accuracy"] <= found["interval"][1]
    (copy / "net.onnx").write_bytes(b"damaged")
    left = verbs.evaluate(copy)["artifacts"]
    assert set(left["backends"]) == {"net.net"}
    assert set(left["refused"]) == {"net.onnx"}
    _change(copy / "model.safetensors")
    with pytest.raises(InputError, match=r"model.safetensors"):
        verbs.evaluate(copy)


def test_energy_into_the_folder_is_no_foreign_change(copy: Path) -> None:
    verbs.energy(copy, None, prices=["horowitz45_fp32"], output=copy)
    data = verbs.report(copy)
    assert {entry["price"] for entry in data["energy"]["energy"]} == {"horowitz45_fp32"}


def test_a_finished_run_is_not_replaced_unasked(copy: Path) -> None:
    before = {path.name: sha256(path) for path in copy.iterdir() if path.is_file()}
    for call in (verbs.run, verbs.train):
        with pytest.raises(
            InputError, match=r"holds a finished run; resume=True continues it.* overwrite=True replaces it"
        ):
            call(configure("digits", BRIEF), copy)
        with pytest.raises(InputError, match="exclude each other"):
            call(configure("digits", BRIEF), copy, resume=True, overwrite=True)
    assert {path.name: sha256(path) for path in copy.iterdir() if path.is_file()} == before


def test_a_training_that_takes_the_folder_over_takes_the_results_away(copy: Path) -> None:
    (copy / "net.onnx.0123456789abcdef.data").write_bytes(b"weights beside the file")
    verbs.train(configure("digits", BRIEF), copy, overwrite=True)
    with pytest.raises(InputError, match="holds a finished training"):
        verbs.train(configure("digits", BRIEF), copy)
    assert {path.name for path in copy.iterdir()} == {
        "config.yaml",
        "metrics.jsonl",
        "model.safetensors",
        "checkpoint.safetensors",
        "curves.svg",
    }
    with pytest.raises(InputError, match=r"no net\.nir"):
        verbs.report(copy)


def test_a_wrong_call_leaves_a_finished_run_whole(copy: Path) -> None:
    with pytest.raises(InputError, match=r"made with network|made with another 'network'"):
        verbs.run(configure("digits", ["train.epochs=1"]), copy, resume=True)
    verbs.report(copy)


@pytest.mark.parametrize("verb", ["train", "run"])
def test_nothing_to_resume_is_told_before_data_are_read(verb: str, cli: Any, tmp_path: Path) -> None:
    found = cli(verb, "digits", "--resume", "-o", tmp_path / "none")
    assert found.code == 2
    assert found.err.endswith("none: expected a folder in which 'train' began; found nothing to resume\n")
    assert "samples" not in found.err
    assert not (tmp_path / "none").exists()


def test_a_run_cut_off_is_under_way_for_every_reader(
    copy: Path, monkeypatch: pytest.MonkeyPatch, run_dir: Path
) -> None:
    def cut_off(*_: object) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "encode_split", cut_off)
    with pytest.raises(KeyboardInterrupt):
        verbs.run(configure("digits", SMALL), copy, resume=True, lava=False)
    monkeypatch.undo()
    assert not (copy / "verify.json").exists()
    with pytest.raises(InputError, match="holds a run that has not ended; resume=True continues it"):
        verbs.run(configure("digits", SMALL), copy)
    for call in (lambda: verbs.energy(copy, None), lambda: verbs.verify(copy, [run_dir / "net.onnx"], lava=False)):
        with pytest.raises(InputError, match="under way or was cut off"):
            call()
    with pytest.raises(InputError, match=r"no verify\.json"):
        verbs.report(copy)
    verbs.run(configure("digits", SMALL), copy, resume=True, lava=False)
    verbs.report(copy)


def test_a_file_that_is_gone_is_told_with_what_makes_it_again(copy: Path) -> None:
    (copy / "net.nir").unlink()
    with pytest.raises(
        InputError, match=r"net\.nir is gone; make it whole with: verbs\.run\(.*config\.yaml.*resume=True"
    ):
        check_unchanged(copy, ["net.nir"])
    (copy / "config.yaml").unlink()
    with pytest.raises(InputError, match=r"net\.nir is gone; make it again$"):
        check_unchanged(copy, ["net.nir"])


@pytest.mark.parametrize("content", ["[]", '{"files": 3}', '{"files": {"net.nir": 1}}', "nothing", '{"state": null}'])
def test_a_damaged_manifest_is_a_sentence(copy: Path, content: str) -> None:
    (copy / MANIFEST).write_text(content)
    with pytest.raises(InputError, match=r"manifest\.json: (not as 'stl-deploy' writes it|.*not a JSON file)"):
        verbs.report(copy)


_HOLD = """
import sys, time
from pathlib import Path
from stl_deploy._util.lock import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("begun", [False, True])
def test_two_trainings_do_not_meet_in_one_folder(begun: bool, tmp_path: Path) -> None:
    """The process at work is named also when files of its training, or of an older one, are there."""
    folder = tmp_path / "run"
    if begun:
        folder.mkdir()
        (folder / "checkpoint.safetensors").touch()
    holder = subprocess.Popen([sys.executable, "-c", _HOLD, str(folder)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        for call in (verbs.train, verbs.run):
            with pytest.raises(InputError, match=rf"process {holder.pid} on .* \(since .*\) writes into it"):
                call(configure("digits", BRIEF), folder)
    finally:
        holder.kill()
        holder.communicate()
    verbs.train(configure("digits", BRIEF), folder, overwrite=begun)  # a lock ends with its process
    assert NAME not in {path.name for path in folder.iterdir()}


def test_the_lock_of_a_folder_is_taken_once_by_a_thread_and_leaves_nothing(tmp_path: Path) -> None:
    with alone_in(tmp_path / "new"), alone_in(tmp_path / "new"):
        assert json.loads((tmp_path / "new" / NAME).read_text())["process"] == os.getpid()
    assert not (tmp_path / "new").exists()


def test_a_lock_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(InputError, match=r"cannot write .*/\.lock: Is a directory"), alone_in(tmp_path):
        pass


def test_a_lock_of_somebody_who_says_nothing_holds(tmp_path: Path) -> None:
    with (tmp_path / NAME).open("w") as other:
        system.lock(other.fileno())
        with pytest.raises(InputError, match="another process writes into it; wait until"), alone_in(tmp_path):
            pass


def test_a_lock_that_its_holder_takes_away_is_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def lock(descriptor: int) -> None:
        asked.append(descriptor)
        if len(asked) == 1:
            (tmp_path / NAME).unlink()
        raise OSError(errno.ENOLCK, "no locks here")  # a file system without: it is used all the same

    monkeypatch.setattr(system, "lock", lock)
    with alone_in(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["process"] == os.getpid()
    assert len(asked) == 2


_WRITE = """
import os, signal, sys
from pathlib import Path
from stl_deploy._util.files import whole_file
with whole_file(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_swept_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    done = subprocess.run([sys.executable, "-c", _WRITE, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    ours = tmp_path / left.name.replace(f"-{left.name.split('-')[3]}-", f"-{os.getpid()}-")
    ours.write_text("of a process that lives")
    other = tmp_path / (temporary.PREFIX + "not-ours")
    other.write_text("of somebody else")
    write_text(path, "whole")
    assert {entry.name for entry in tmp_path.iterdir()} == {"file.txt", ours.name, other.name}


@pytest.mark.push(2)
@pytest.mark.filterwarnings("always")
@pytest.mark.parametrize("verb", ["simulate", "verify", "energy", "check"])
def test_steps_in_the_place_of_samples_are_warned_of(verb: str, run_dir: Path, cli: Any, tmp_path: Path) -> None:
    given = tmp_path / "x.npz"
    options: dict[str, list[Any]] = {
        "simulate": ["--backend", "reference", "-o", tmp_path / "y.npz"],
        "verify": ["--against", "reference"],
    }
    with np.load(run_dir / "test.npz") as kept:
        x = kept["x"][:, :6]
    for array, told in ((x, False), (x.swapaxes(0, 1), True)):
        np.savez(given, x=array)
        found = cli(verb, run_dir, "--input", given, *options.get(verb, []))
        assert found.code == 0
        assert (
            "6 steps of 4 samples; this network was trained on 4 steps: if x is [B, T, ...], swap" in found.err
        ) is told
