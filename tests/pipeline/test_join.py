"""The verb join: one graph of several runs, taken by the other verbs like any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stl_deploy as stl
from stl_deploy.cli import main
from stl_deploy.errors import InputError
from stl_deploy.exporters.nir.file import read_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.graph.run import run
from stl_deploy.runs.configure import configure
from stl_deploy.runs.folded_run import fold_run
from stl_deploy.runs.inputs import encode_split
from stl_deploy.runs.train import train
from stl_deploy.verbs.artifacts import simulate
from stl_deploy.verbs.joining import Joint, join

NET = (
    'network=[{"kind": "flatten"}, {"kind": "linear", "features": 30}, {"kind": "lif"}, '
    '{"kind": "vote", "population": 3}]'
)
COMMON = (NET, "train.lr=0.01", "dataset.test_fraction=0.3", "train.device=cpu")
EPOCHS = {"stl": 4, "sl": 1, "tl": 1}


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("members")
    for mode, epochs in EPOCHS.items():
        train(configure("digits", [*COMMON, f"train.mode={mode}", f"train.epochs={epochs}"]), folder / mode)
    return [folder / mode for mode in EPOCHS]


@pytest.fixture(scope="module", params=["equal", "learned"])
def joint(request: pytest.FixtureRequest, members: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Joint:
    return join(members, tmp_path_factory.mktemp("joint") / "run", weights=request.param)


def test_the_numbers_are_those_of_the_members_and_of_the_merged_graph(
    joint: Joint, members: list[Path], tmp_path: Path
) -> None:
    folder = Path(joint.output)
    assert sorted(path.name for path in folder.iterdir()) == ["joint.json", "manifest.json", "net.nir", "test.npz"]
    assert joint.exact
    alone, votes = [], 0.0
    for path, member in zip(members, joint.members, strict=True):
        folded = fold_run(path, tmp_path / "m.nir")
        test = encode_split(folded.config, folded.data.test)
        scores = run(folded.program, test.x).y.mean(0, dtype=np.float64)
        alone.append(float((scores.argmax(1) == test.labels).mean()))
        votes = votes + member.weight * scores
        assert (member.mode, member.run) == (path.name, str(path))
    assert [member.test_accuracy for member in joint.members] == pytest.approx(alone)
    program = lower(read_nir(folder / "net.nir"))
    with np.load(folder / "test.npz") as arrays:
        y = run(program, arrays["x"]).y
        decided = y.mean(0, dtype=np.float64).argmax(1)
        assert joint.test_accuracy == pytest.approx(float((decided == arrays["y"]).mean()))
        second, first = np.sort(np.asarray(votes), axis=1)[:, -2:].T
        clear = first - second > 1e-4  # what is nearly a tie, rounding of the weights may decide
        assert clear.mean() > 0.8
        np.testing.assert_array_equal(decided[clear], np.asarray(votes).argmax(1)[clear])
        assert joint.test_samples == len(arrays["y"])


def test_weights(joint: Joint) -> None:
    weights = [member.weight for member in joint.members]
    assert sum(weights) == pytest.approx(1)
    if joint.weights == "equal":
        assert weights == pytest.approx([1 / 3] * 3)
    else:
        assert weights[0] > 0.6  # trained four times as long
        assert joint.members[0].test_accuracy > max(member.test_accuracy for member in joint.members[1:])


@pytest.mark.push(1)
def test_every_other_verb_takes_it(joint: Joint, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def call(*arguments: str | Path) -> Any:
        with pytest.raises(SystemExit) as stop:
            main([*map(str, arguments), "--json"])
        assert not stop.value.code
        return json.loads(capsys.readouterr().out)

    source = Path(joint.output)
    exported = call("export", source, "--to", "onnx", "-o", tmp_path / "net.onnx")
    assert exported["verified"]["runs"][0]["exact"]
    assert call("verify", source, "--against", tmp_path / "net.onnx")["runs"][0]["differing"] == 0
    done = call("simulate", source, "-i", source / "test.npz", "--backend", "onnx", "-o", tmp_path / "y.npz")
    assert done["accuracy"] == pytest.approx(joint.test_accuracy)
    counted = call("energy", source)
    assert {"m1_linear1", "m2_linear1", "m3_linear1"} <= set(counted["layers"])


def _joined_and_simulated(runs: list[Path], output: Path, weights: Any = "equal") -> tuple[Joint, float]:
    """The joint decision, and the accuracy that ``simulate`` finds of its test samples."""
    joint = join(runs, output, weights=weights)
    done = simulate(output, output / "test.npz", "reference", output.parent / "y.npz")
    return joint, done["accuracy"]


def test_the_first_spike_decides_for_members_as_for_their_graph(tmp_path: Path) -> None:
    for seed in ("1", "2"):
        changes = [*COMMON, "train.epochs=1", f"train.seed={seed}"]
        changes[0] = NET.replace('"population": 3', '"population": 3, "decision": "first"')
        train(configure("digits", changes), tmp_path / seed)
    joint, simulated = _joined_and_simulated([tmp_path / "1", tmp_path / "2"], tmp_path / "joint")
    assert joint.test_accuracy == pytest.approx(simulated)
    for member in joint.members:
        fold_run(Path(member.run), tmp_path / "m.nir")
        done = simulate(tmp_path / "m.nir", tmp_path / "joint" / "test.npz", "reference", tmp_path / "y.npz")
        assert member.test_accuracy == pytest.approx(done["accuracy"])


@pytest.mark.parametrize("weights", ["equal", "learned"])
def test_members_that_decide_at_each_step(weights: str, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    x = draw.integers(0, 2, (60, 4, 6)).astype(np.float32)
    np.savez(tmp_path / "own.npz", x=x, y=x[..., :3].argmax(-1))
    network = [{"kind": "linear", "features": 30}, {"kind": "lif"}, {"kind": "vote", "population": 10}]
    for seed in (1, 2):
        (tmp_path / f"{seed}.npz").write_bytes((tmp_path / "own.npz").read_bytes())
        dataset = {"name": "npz", "path": str(tmp_path / f"{seed}.npz"), "encoder": "sequence"}
        config = {"dataset": dataset, "network": network, "train": {"epochs": 1, "seed": seed, "device": "cpu"}}
        stl.train(config, output=tmp_path / str(seed))
    joint, simulated = _joined_and_simulated([tmp_path / "1", tmp_path / "2"], tmp_path / "joint", weights)
    assert joint.test_accuracy == pytest.approx(simulated)


def test_a_join_that_is_refused_leaves_the_earlier_one(members: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "joint"
    join(members[:2], folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    train(configure("digits", [*COMMON, "train.epochs=1", "neuron.reset=subtract"]), tmp_path / "soft")
    with pytest.raises(InputError, match="member 2: expected dialect"):
        join([members[0], tmp_path / "soft"], folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_cannot_be_joined_is_one_sentence(
    members: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="expected two runs or more to join; found 1"):
        join(members[:1], tmp_path / "out")
    with pytest.raises(InputError, match="weights: expected one of equal, learned; found 'best'"):
        join(members, tmp_path / "out", weights="best")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="holds a trained run; name another folder"):
        join(members, members[0])
    train(configure("digits", [*COMMON, "train.epochs=1", "dataset.seed=1"]), tmp_path / "other")
    with pytest.raises(SystemExit) as stop:
        main(["join", str(members[0]), str(tmp_path / "other"), "-o", str(tmp_path / "out")])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "expected dataset.seed 0, as " in said
    assert said.endswith("; join runs of the same data, split and encoding\n")
    train(configure("digits", [*COMMON, "train.epochs=1", "train.mode=ann"]), tmp_path / "ann")
    with pytest.raises(InputError, match="an ANN has no spikes to deploy"):
        join([members[0], tmp_path / "ann"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
