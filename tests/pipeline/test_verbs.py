"""Every verb has a Python twin of the same name."""

import subprocess
import sys
from pathlib import Path

import nir
import numpy as np
import pytest

from stl_deploy import verbs
from stl_deploy._util.console import Console
from stl_deploy._util.units import counted
from stl_deploy.errors import InputError
from stl_deploy.exporters.nir.file import write_nir
from stl_deploy.pipeline import network_input
from stl_deploy.verbs.checking import FolderCheck
from tests.graph.nets import chain, iff
from tests.pipeline.test_cli import VERBS


@pytest.mark.parametrize(
    "verb", sorted({*VERBS, "lava_install", "lava_status", "witness_status"} - {"eval", "lava", "witness"})
)
def test_twin(verb: str) -> None:
    assert callable(getattr(verbs, verb))
    assert verb in verbs.__all__


def test_the_verbs_and_nothing_else_are_listed() -> None:
    assert dir(verbs) == sorted(verbs.__all__)


def test_unknown_verb() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'deploy'; it has: capture, check, "):
        verbs.deploy  # noqa: B018


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    code = "import sys; from stl_deploy import verbs; assert not {'torch', 'onnx', 'nir'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_simulate_in_python(run_dir: Path, tmp_path: Path) -> None:
    done = verbs.simulate(run_dir, run_dir / "test.npz", "reference", tmp_path / "y.npz")
    with np.load(tmp_path / "y.npz") as arrays:
        assert list(arrays["y"].shape) == done["arrays"]["y"]


def test_check_in_python_on_a_folder_and_on_an_input(tmp_path: Path) -> None:
    """As `stl-deploy check FOLDER` and `stl-deploy check FILE --input x.npz`."""
    source = tmp_path / "nets" / "sound.nir"
    source.parent.mkdir()
    write_nir(chain([2], iff((2,))), source)
    (source.parent / "broken.nir").write_bytes(b"")
    found = verbs.check(source.parent, targets=["nir"])
    assert isinstance(found, FolderCheck)
    assert {name: report.ok for name, report in found.reports.items()} == {"broken.nir": False, "sound.nir": True}
    assert not found.ok
    # v: 1 is a tie, and stays
    np.savez(tmp_path / "x.npz", x=np.array([[[1, 0]], [[0, 0]]], np.float32))
    effects = {(effect.option, effect.instead): effect.differ for effect in verbs.measure(source, tmp_path / "x.npz")}
    assert effects["compare", "ge"] == 1
    assert effects["leak", "exp"] == 0
    assert verbs.near_threshold(source, tmp_path / "x.npz") == {"n0": 2}


def test_a_choice_that_cannot_be_run_says_why_in_its_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_nir(chain([1], nir.Delay(np.array([3e-4], np.float32)), iff((1,))), tmp_path / "net.nir")
    np.savez(tmp_path / "x.npz", x=np.ones((2, 1, 1), np.float32))
    verbs.measure(tmp_path / "net.nir", tmp_path / "x.npz", say=Console())
    assert "cannot be run: node 'n0'" in " ".join(capsys.readouterr().err.split())


def test_sums_that_are_not_proved_exact_are_counted(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = verbs.fold(run_dir, tmp_path / "net.nir", exact_grid=False, say=Console())
    unproved = [proof["node"] for proof in done["proofs"] if not proof["exact"]]
    assert unproved
    said = " ".join(capsys.readouterr().err.split())
    assert f"not proved exact: {counted(len(unproved), 'sum')} (first: {unproved[0]}: " in said
    assert "all backends must agree" not in said


def test_verbs_of_a_nir_file_take_no_other(run_dir: Path, tmp_path: Path) -> None:
    """The command line asks before; from Python it is the verb that says so."""
    with pytest.raises(InputError, match=r"small: expected a \.nir or \.program file; a run folder is reported"):
        verbs.report_graph(run_dir, run_dir / "test.npz")
    assert not list(tmp_path.iterdir())


def test_input_that_rounds_to_nothing_is_refused(tmp_path: Path) -> None:
    write_nir(chain([2], iff((2,))), tmp_path / "net.nir")
    np.savez(tmp_path / "x.npz", x=np.full((2, 1, 2), 0.1, np.float32))
    with pytest.raises(InputError, match="input_grid=2: every value of the input rounds to 0; use more bits"):
        verbs.simulate(
            tmp_path / "net.nir", tmp_path / "x.npz", "reference", tmp_path / "y.npz", input_grid=2, dialect="spec"
        )


def test_no_more_samples_are_compared_than_memory_allows(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with np.load(run_dir / "test.npz") as kept:
        samples = kept["x"].shape[1]
    spikes = verbs.verify(run_dir, [run_dir / "net.onnx"], lava=False).runs[0].compared
    assert spikes % samples == 0
    monkeypatch.setattr(network_input, "MOST_COMPARED", 5 * spikes // samples + 1)
    report = verbs.verify(run_dir, [run_dir / "net.onnx"], lava=False, say=Console())
    assert report.runs[0].compared == 5 * spikes // samples
    assert f"input: the first 5 of {samples} samples of {run_dir / 'test.npz'} (no more" in capsys.readouterr().err
    facts = verbs.export(run_dir, "onnx", tmp_path / "net.onnx")
    assert facts["verified"]["input"].startswith(f"the first 5 of {samples} samples")
    monkeypatch.setattr(network_input, "MOST_COMPARED", 1)
    assert verbs.verify(run_dir, [run_dir / "net.onnx"], lava=False).runs[0].compared == spikes // samples
