"""Keys of the configuration that are given as options, and an interrupt with what is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stl_deploy.cli import main
from stl_deploy.cli.error_sentences import machines_refusal, usage_sentence
from stl_deploy.cli.output import kept


def _error(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(line.split())
    assert stopped.value.code == 2
    return capsys.readouterr().err.strip()


MEMORY = "not enough memory for this; give it more, or fewer samples or steps"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (MemoryError(), MEMORY),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), MEMORY),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), MEMORY),
        (ImportError("failed to map segment from shared object"), MEMORY),
        (
            RuntimeError("can't start new thread"),
            "this machine lets no further thread start; raise the limit (ulimit -u)",
        ),
        (PermissionError(13, "Permission denied", b"/a/b"), "/a/b: Permission denied"),
        (OSError("odd"), "odd"),
        (RuntimeError("shapes do not match"), None),
        (ValueError("out of memory"), None),
    ],
)
def test_what_the_machine_refuses_is_told_from_a_defect(error: Exception, sentence: str | None) -> None:
    assert machines_refusal(error) == sentence


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("run digits --epochs 3", "no such option: --epochs; say --set train.epochs=3"),
        ("train digits --T", "no such option: --T; say --set dataset.T=VALUE"),
        ("energy net.nir -o energy.html", "-o: expected a folder to write into; found 'energy.html'; give a folder"),
        ("report net.nir -o r.html", "-o: expected a folder to write into; found 'r.html'; give a folder"),
        ("rnu digits", "no such command 'rnu' (did you mean 'run'?); see stl-deploy --help"),
        ("run digits --seeds 3", "no such option: --seeds (did you mean --seed, --set?); see stl-deploy run --help"),
        ("run digits --nothing-like-it", "no such option: --nothing-like-it; see stl-deploy run --help"),
        ("check net.nir --force", "no such option: --force; see stl-deploy check --help"),
    ],
)
def test_guesses(line: str, answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _error(line, capsys) == f"stl-deploy: error: {answer}"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (
            "No such command 'rnu'. Did you mean 'run'? Did you mean 'run'?",
            "no such command 'rnu' (did you mean 'run'?)",
        ),
        ("No such command 'rnu'. Did you mean 'run'?", "no such command 'rnu' (did you mean 'run'?)"),
        (
            "No such option '--seeds'. (Did you mean one of: '--seed', '--set'?)",
            "no such option: --seeds (did you mean --seed, --set?)",
        ),
        (
            "No such option: --seeds (Possible options: --seed, --set)",
            "no such option: --seeds (did you mean --seed, --set?)",
        ),
        ("Got unexpected extra argument (x)", "got unexpected extra argument(s) (x)"),
        ("Got unexpected extra arguments (x y)", "got unexpected extra argument(s) (x y)"),
    ],
)
def test_every_release_of_typer_is_worded_alike(theirs: str, ours: str) -> None:
    class Worded(Exception):
        def format_message(self) -> str:
            return theirs

    assert usage_sentence(Worded()) == f"{ours}; see stl-deploy --help"


@pytest.mark.parametrize("line", ["--help", "lava --help", "witness --help"])
@pytest.mark.parametrize("columns", [80, 60])
def test_the_list_of_verbs_is_wrapped_and_not_cut(
    line: str, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit):
        main(line.split())
    listed = capsys.readouterr().out.partition("Commands:")[2].splitlines()
    assert max(map(len, listed)) <= columns
    assert [told for told in listed if told.endswith("...")] == []
    assert sum(told.endswith(".") for told in listed) >= 3


def test_the_shell_completes_presets(capsys: pytest.CaptureFixture[str]) -> None:
    from typer.main import get_command

    from stl_deploy.cli.app import app

    for verb in ("run", "train"):
        which = next(p for p in get_command(app).commands[verb].params if p.name == "which")  # type: ignore[attr-defined]
        context = get_command(app).commands[verb].make_context(verb, ["x"], resilient_parsing=True)  # type: ignore[attr-defined]
        assert [str(item.value) for item in which.shell_complete(context, "n_")] == ["n_mnist", "n_mnist_small"]


def test_what_is_kept(tmp_path: Path) -> None:
    call = ["train", "digits", "-o", "my runs", "--overwrite"]
    again = "continue with: stl-deploy train digits -o 'my runs' --resume"
    assert kept(tmp_path / "none", call) == "no epoch was finished, so nothing is kept"
    (tmp_path / "config.yaml").touch()
    begun = f"no epoch was finished; {tmp_path} keeps its config.yaml; start again with: "
    assert kept(tmp_path, call) == begun + again.removeprefix("continue with: ")
    (tmp_path / "checkpoint.safetensors").touch()
    assert kept(tmp_path, call) == f"the checkpoint is kept in {tmp_path}; {again}"
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    assert kept(tmp_path, call) == f"1 epoch is kept in {tmp_path}; {again}"
    (tmp_path / "metrics.jsonl").write_text("{}\n{}\n")
    assert kept(tmp_path, call) == f"2 epochs are kept in {tmp_path}; {again}"
    (tmp_path / "model.safetensors").touch()
    assert kept(tmp_path, call) == f"the trained model is kept in {tmp_path}, the rest is incomplete; {again}"
    (tmp_path / "manifest.json").write_text(json.dumps({"state": "under way"}))
    assert "the trained model is kept" in kept(tmp_path, call)
    (tmp_path / "manifest.json").write_text(json.dumps({"files": {}}))
    assert kept(tmp_path, call) == f"{tmp_path} holds a finished run, as before"


def test_after_an_interrupt_a_ready_made_model_is_unpacked_anew(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    told = kept(tmp_path, ["run", "digits", "--pretrained", "-o", "a"])
    assert told.endswith("the rest is incomplete; continue with: stl-deploy run digits --pretrained -o a --overwrite")
