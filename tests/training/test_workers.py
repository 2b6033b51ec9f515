"""Two processes train as one: the same gradients, the same bits on both, one voice, and an end for all."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from stl_deploy._util import processes
from stl_deploy.config.load import apply_overrides, dump_config, load_config
from stl_deploy.config.schema import RunConfig
from stl_deploy.errors import ConfigError, InputError
from stl_deploy.nn.layers import StepNorm2d
from stl_deploy.nn.schedule import over_time
from stl_deploy.training import distributed
from stl_deploy.training.loop import pick_device, train
from stl_deploy.training.run_files import CHECKPOINT
from stl_deploy.training.sync_batchnorm import SharedNorm
from tests.conftest import TINY

HERE = Path(__file__).parent
LIVELY = ["network.4.p=0", "dataset.test_fraction=0.6", "train.batch_size=50", "neuron.threshold=0.4"]
LAYERWISE = {"STL_DEPLOY_FUSED": "0"}
"""Norms of several processes are layers of their own; so are one's that are compared with them."""
VARIANTS = {
    "plain": [],
    "per_step": ["network.1.per_step=true", "dataset.encoder=bernoulli"],
    "charged": ["train.rate_target=0.3", "train.synop_budget=100", "train.accumulate=3", "train.loss=tet"],
    "ann": ["train.mode=ann"],
}


_PATIENT = """
import sys
from torch.distributed.elastic.multiprocessing.api import SubprocessContext
from torch.distributed.run import main

poll = SubprocessContext._poll
SubprocessContext._poll = lambda self: (
    poll(self) if all(each.proc.poll() is not None for each in self.subprocess_handlers.values()) else None
)
main(sys.argv[1:])
"""
"""torchrun, but for its haste: when one process has ended, it would end the other, perhaps before that has said why."""


def _torchrun(*arguments: str | Path, expect: int = 0, patient: bool = False) -> str:
    """What two processes said; torchrun's own lines are left out."""
    launcher = ["-c", _PATIENT] if patient else ["-m", "torch.distributed.run"]
    command = [sys.executable, *launcher, "--standalone", "--nproc_per_node", "2", *arguments]
    environment = {**os.environ, **LAYERWISE, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == expect, done.stdout + done.stderr
    return "".join(
        line
        for line in done.stderr.splitlines(True)
        if line.startswith(("stl-deploy", "epoch", "Training")) and " samples/s, " not in line  # of a long epoch
    )


def test_gradients_are_those_of_one_process(tiny: RunConfig, tmp_path: Path) -> None:
    for name, changes in VARIANTS.items():
        (tmp_path / f"{name}.yaml").write_text(dump_config(apply_overrides(tiny, [*LIVELY, *changes])))
    script = HERE / "sharded_gradients.py"
    subprocess.run([sys.executable, script, tmp_path], env={**os.environ, **LAYERWISE}, check=True, timeout=240)
    _torchrun(script, tmp_path)
    alone, first, second = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("1-0", "2-0", "2-1"))
    for name in VARIANTS:
        assert len(alone[name]) > 5
        for one, ours, theirs in zip(alone[name], first[name], second[name], strict=True):
            assert one.keys() == ours.keys() == theirs.keys()
            for key, value in one.items():
                assert torch.equal(ours[key], theirs[key])
                off = float((ours[key] - value).abs().max() / value.abs().max().clamp_min(1e-30))
                assert off < (1e-7 if name == "charged" else 1e-12), (name, key)  # charges are float32
        assert all(any(value.abs().max() > 1e-6 for value in step.values()) for step in alone[name])


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("workers") / "tiny.yaml"
    path.write_text(dump_config(apply_overrides(RunConfig.model_validate(TINY), [*LIVELY, "train.epochs=2"])))
    return path


@pytest.fixture(scope="module")
def two(config_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The run folder of two processes, and what they said."""
    folder = tmp_path_factory.mktemp("two") / "run"
    return folder, _torchrun("-m", "stl_deploy", "train", config_file, "-o", folder)


def _metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_of_two_is_a_run_of_one_said_once(config_file: Path, two: tuple[Path, str], tmp_path: Path) -> None:
    folder, said = two
    assert [line.split()[0] for line in said.splitlines()] == ["Training", "epoch", "epoch", "epoch"]
    train(load_config(config_file), tmp_path / "one")
    for ours, theirs in zip(_metrics(folder), _metrics(tmp_path / "one"), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
        assert ours["rates"] == pytest.approx(theirs["rates"], rel=1e-2)
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in (tmp_path / "one").iterdir())


_KILLED = """
    import os, signal, sys
    from stl_deploy._util import processes
    from stl_deploy.training import loop as train
    from stl_deploy.cli import main

    loss, calls = train.classification_loss, 0

    def dying(*args):
        global calls
        calls += 1
        if processes.rank() == 1 and calls == int(sys.argv[1]):
            if sys.argv[2] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ArithmeticError("no room here")
        return loss(*args)

    train.classification_loss = dying
    main(sys.argv[3:])
"""


def test_one_that_is_killed_ends_all_and_resume_gives_the_same_bits(
    config_file: Path, two: tuple[Path, str], tmp_path: Path
) -> None:
    script = tmp_path / "killed.py"
    script.write_text(textwrap.dedent(_KILLED))
    run = ["train", config_file, "-o", tmp_path / "killed"]
    said = _torchrun(script, "18", "kill", *run, expect=1, patient=True).splitlines()
    assert said[1].startswith("epoch 1/2")
    assert len(said) == 3
    assert said[2].startswith("stl-deploy: error: one of the 2 training processes ended or cannot be reached (")
    assert said[2].endswith("finished epochs are kept; continue with --resume")
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    _torchrun("-m", "stl_deploy", *run, "--resume")
    killed, whole = (load_file(folder / CHECKPOINT) for folder in (tmp_path / "killed", two[0]))
    assert killed.keys() == whole.keys()
    assert all(torch.equal(killed[name], whole[name]) for name in whole)


@pytest.mark.nightly
def test_norms_of_two_take_bfloat16(config_file: Path, tmp_path: Path) -> None:
    narrow = ["--set", "train.precision=bfloat16"]
    _torchrun("-m", "stl_deploy", "train", config_file, "-o", tmp_path / "two", *narrow)
    losses = [epoch["loss"] for epoch in _metrics(tmp_path / "two")]
    assert len(losses) == 2
    assert losses[1] < losses[0]


@pytest.mark.parametrize("by_step", [False, True])
def test_a_shared_norm_sums_bfloat16_in_float32(by_step: bool) -> None:
    norm = StepNorm2d(3) if by_step else torch.nn.BatchNorm2d(3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 2.0, 1.0]))
        norm.bias.copy_(torch.tensor([0.0, 1.0, -3.0]))
    exact, shared = copy.deepcopy(norm).double(), SharedNorm(norm)
    x = (torch.randn(2, 64, 3, 5, 5, generator=torch.Generator().manual_seed(0)) + 5).bfloat16()
    ours, theirs = x.clone().requires_grad_(), x.double().requires_grad_()
    found, expected = shared(ours), exact(theirs) if by_step else exact(theirs.flatten(0, 1)).view(x.shape)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)
    for value in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(shared, value).double(), getattr(exact, value), rtol=1e-6, atol=0)
    cost = torch.linspace(-1, 1, found.numel()).view(found.shape)
    (found * cost).sum().backward()
    (expected * cost).sum().backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=2**-8, atol=1e-5)


def test_a_shared_norm_learns_where_all_processes_have_two_values_together(monkeypatch: pytest.MonkeyPatch) -> None:
    norm, x = SharedNorm(torch.nn.BatchNorm1d(3)), torch.tensor([[[1.0, 2.0, 3.0]]])
    with pytest.raises(InputError, match=r"at least two values of each channel .* found 1 "):
        over_time(norm, x)
    monkeypatch.setattr(distributed, "total", lambda here: 2 * here)  # another process has the same sample
    assert not over_time(norm, x).any()
    torch.testing.assert_close(norm.running_mean, 0.1 * x.flatten())


def test_the_one_that_failed_says_why_and_nobody_else_speaks(config_file: Path, tmp_path: Path) -> None:
    script = tmp_path / "failing.py"
    script.write_text(textwrap.dedent(_KILLED))
    said = _torchrun(script, "3", "raise", "train", config_file, "-o", tmp_path / "run", expect=1).splitlines()
    assert len(said) == 2
    assert said[1].startswith("stl-deploy: internal error: ArithmeticError: no room here")
    said = _torchrun("-m", "stl_deploy", "run", config_file, "-o", tmp_path / "run", expect=1).splitlines()
    assert said == [
        "stl-deploy: error: 2 processes for 'run'; torchrun takes train, all other verbs run in one "
        "process; outside of torchrun, unset WORLD_SIZE and RANK"
    ]


@pytest.fixture(autouse=True, scope="module")
def meeting() -> Iterator[None]:
    """Where torchrun says that its processes meet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MASTER_ADDR", "localhost")
        patch.setenv("MASTER_PORT", "29500")
        yield


@given(count=st.integers(0, 200), processes=st.integers(1, 9))
def test_samples_are_dealt_out_whole_and_evenly(count: int, processes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", str(processes))
        found, sizes = [], []
        for rank in range(processes):
            patch.setenv("RANK", str(rank))
            part = list(range(count))[distributed.mine(count)]
            found += part
            sizes.append(len(part))
    assert found == list(range(count))
    assert max(sizes) - min(sizes) <= 1


def test_too_small_a_batch_is_refused(tiny: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = apply_overrides(tiny, ["train.batch_size=8", "train.accumulate=2"])
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    distributed.require_samples_for_all(config, 16)
    with pytest.raises(
        ConfigError, match=r"expected a sample for each of 4 processes in every part of a batch; found parts of 2 \(8"
    ):
        distributed.require_samples_for_all(config, 10)


def test_processes_that_find_other_checkpoints_do_not_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(distributed, "total", lambda x: 2 * x)
    distributed.require_same_epoch(3)
    monkeypatch.setattr(distributed, "total", lambda x: x)  # the other one is at 0
    with pytest.raises(InputError, match="expected one checkpoint in every process; found different ones"):
        distributed.require_same_epoch(3)


def test_processes_that_share_a_card_add_up_by_gloo(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "6", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)
    for cards, other, expected in ((0, 0, "gloo"), (2, 1, "gloo"), (3, 0, "gloo"), (3, 1, "cpu:gloo,cuda:nccl")):
        store = torch.distributed.HashStore()
        store.set("stl-deploy/card/0", str(other))  # what the other process has found
        assert distributed._backend(store, 1, 2, cards) == expected
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert pick_device("cuda") == torch.device("cuda", 0)


def test_processes_of_one_machine_do_not_all_take_the_card_of_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert pick_device("cuda") == torch.device("cuda", 1)
    expected = r"'train\.device': expected cuda, by which each of 2 processes takes a card of its own; found 'cuda:0'"
    with pytest.raises(ConfigError, match=expected):
        pick_device("cuda:0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")  # each on a machine of its own
    assert pick_device("cuda:0") == torch.device("cuda", 0)


def test_alone_nothing_is_asked_for() -> None:
    assert (processes.world_size(), processes.rank(), distributed.speaks()) == (1, 0, True)
    before = signal.getsignal(signal.SIGTERM)
    x = torch.ones(3, requires_grad=True)
    with distributed.together():
        assert distributed.total(x) is x
        assert signal.getsignal(signal.SIGTERM) is before


def test_a_process_under_torchrun_ends_past_threads_that_go_on() -> None:
    """Threads of torch's process groups outlive the work, and abort a Python that is taken down under them."""
    script = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\n"
    command = [sys.executable, "-c", script + "from stl_deploy.cli import main\nmain(['--help'])"]
    workers = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    done = subprocess.run(command, env=os.environ | workers, capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: stl-deploy" in done.stdout
