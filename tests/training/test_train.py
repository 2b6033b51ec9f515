import dataclasses
import json
import math
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import stl_deploy as stl
from stl_deploy._util.tensor_file import read_tensors, write_tensors
from stl_deploy.config.load import apply_overrides, dump_config, load_config
from stl_deploy.config.schema import RunConfig
from stl_deploy.data import load_dataset
from stl_deploy.errors import ConfigError, DivergedError, InputError
from stl_deploy.nn.network import Network
from stl_deploy.runs.folded_run import fold_run
from stl_deploy.training import loop as train_module
from stl_deploy.training.checkpoint import load_network, model_facts
from stl_deploy.training.curves import write_curves
from stl_deploy.training.divergence import diverged
from stl_deploy.training.evaluate import Rates, evaluate
from stl_deploy.training.loop import learning_rate, make_optimiser, pick_device, train
from stl_deploy.training.run_files import CHECKPOINT
from stl_deploy.training.run_folder import refuse_replacing
from stl_deploy.verbs.evaluating import evaluate as evaluate_run


def _weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def _last(run: Path) -> dict[str, torch.Tensor]:
    """The weights and the optimiser's state after the last epoch."""
    return load_file(run / CHECKPOINT)


def _same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _metrics(run: Path) -> list[dict]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


def test_a_run_learns_and_leaves_its_files(tiny, tmp_path):
    seen = []
    config = apply_overrides(tiny, ["train.epochs=6", "dataset.test_fraction=0.3"])
    result = train(config, tmp_path, progress=seen.append)
    assert result.test.accuracy > 0.8
    assert load_config(tmp_path / "config.yaml") == config
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert records == seen
    assert [record["epoch"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert records[-1]["loss"] < records[0]["loss"] / 2
    last = records[-1]
    assert last["rates"].keys() == last["thresholds"].keys() == {"lif1", "lif2"}
    assert all(0 < rate < 1 for rate in last["rates"].values())
    assert all(t["min"] < t["mean"] < t["max"] and t["min"] != 1 for t in last["thresholds"].values())
    best = min(records, key=lambda record: record["validation_loss"])
    assert result.epoch == best["epoch"] == model_facts(tmp_path)["epoch"]
    assert result.validation_accuracy == best["validation_accuracy"]


def test_a_configuration_is_trained_as_it_is_or_by_the_name_of_its_file(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(tiny.model_dump(mode="json", exclude_unset=True)))
    by_name = stl.train("mine.yaml", changes=["train.epochs=1"])
    as_it_is = stl.train(apply_overrides(tiny, ["train.epochs=1"]), output="runs/other")
    assert by_name.folder == Path("runs/mine")
    assert by_name.accuracy == as_it_is.accuracy


def test_a_network_with_nothing_to_learn_is_refused(tiny, tmp_path):
    changes = ["train.mode=tl", 'network=[{"kind": "flatten"}, {"kind": "linear", "features": 10}, {"kind": "li"}]']
    with pytest.raises(ConfigError, match="in mode 'tl' this network has nothing to learn: it has no lif layer"):
        train(apply_overrides(tiny, changes), tmp_path)


def test_the_picked_weights_come_back_and_give_the_same_test_result(tiny, tmp_path):
    result = train(tiny, tmp_path)
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    network, config = load_network(tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not network.training
    assert evaluate(network, load_dataset(config.dataset).test, config) == result.test
    assert model_facts(tmp_path)["test"]["accuracy"] == result.test.accuracy


def test_the_model_is_the_picked_epochs_not_the_last(tiny, tmp_path, monkeypatch):
    one = train(apply_overrides(tiny, ["train.epochs=1"]), tmp_path / "one")
    found = train_module.evaluate

    def worse(network, split, config):
        """Validation gets worse from epoch to epoch."""
        one = found(network, split, config)
        losses.append(len(losses) + 1.0)
        return one if len(losses) == 4 else dataclasses.replace(one, loss=losses[-1])

    losses = []
    monkeypatch.setattr(train_module, "evaluate", worse)
    three = train(tiny, tmp_path / "three")
    assert three.epoch == 1
    assert three.test == one.test
    assert _same(_weights(tmp_path / "three"), _weights(tmp_path / "one"))
    assert _same(three.network.state_dict(), _weights(tmp_path / "three"))


def test_the_learning_rate_decays_by_epoch(tiny, tmp_path):
    config = apply_overrides(tiny, ["train.lr_decay=0.5"])
    train(config, tmp_path)
    assert [record["lr"] for record in _metrics(tmp_path)] == [0.01, 0.005, 0.0025]
    train(apply_overrides(config, ["train.lr_decay=1e-9", "train.epochs=1"]), tmp_path)
    first = _last(tmp_path)
    train(apply_overrides(config, ["train.lr_decay=1e-9"]), tmp_path, resume=True)
    name = "model/layers.linear1.weight"
    assert (first[name] - _last(tmp_path)[name]).abs().max() < 1e-6


def test_one_cycle_rises_and_falls_batch_by_batch(tiny, tmp_path):
    config = apply_overrides(tiny, ["train.schedule=one_cycle", "train.epochs=5", "train.lr=0.02"])
    rates = [learning_rate(config.train, epochs) for epochs in (0, 0.5, 1, 3, 4.5)]
    assert rates == pytest.approx([0.0008, 0.0104, 0.02, 0.01, 0.0025])
    seen = []

    def note(*_):
        seen.append(state["optimiser"].param_groups[0]["lr"])

    real, state = train_module.make_optimiser, {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module, "make_optimiser", lambda *args: state.setdefault("optimiser", real(*args)))
        train(config, tmp_path / "whole", batch=note)
    batches = len(seen) // 5
    assert batches > 1
    assert seen[: batches + 1] == sorted(seen[: batches + 1])
    assert seen[batches:] == sorted(seen[batches:], reverse=True)
    told = [record["lr"] for record in _metrics(tmp_path / "whole")]
    assert told == pytest.approx([0.0008, 0.02, 0.015, 0.01, 0.005])

    class Cut(Exception):
        pass

    def cut(record):
        if record["epoch"] == 2:
            raise Cut

    with pytest.raises(Cut):
        train(config, tmp_path / "cut", progress=cut)
    train(config, tmp_path / "cut", resume=True)
    assert _same(_last(tmp_path / "cut"), _last(tmp_path / "whole"))


def test_the_first_epochs_may_show_one_step(tiny, tmp_path):
    config = apply_overrides(tiny, ["dataset.encoder=direct", "dataset.T=3", "train.one_step_epochs=1"])
    for name, changes in {"mixed": [], "one": ["dataset.T=1"], "all": ["train.one_step_epochs=0"]}.items():
        train(apply_overrides(config, ["train.epochs=2", *changes]), tmp_path / name)
    learned = {name: [r["loss"] for r in _metrics(tmp_path / name)] for name in ("mixed", "one", "all")}
    assert learned["mixed"][0] == learned["one"][0] != learned["all"][0]
    assert learned["mixed"][1] not in (learned["one"][1], learned["all"][1])

    train(apply_overrides(config, ["train.epochs=1"]), tmp_path / "cut")
    train(apply_overrides(config, ["train.epochs=2"]), tmp_path / "cut", resume=True)
    assert _same(_last(tmp_path / "cut"), _last(tmp_path / "mixed"))
    with pytest.raises(ConfigError, match=r"^changes: key 'train.one_step_epochs': expected 0 for encoder 'bernoulli'"):
        apply_overrides(config, ["dataset.encoder=bernoulli"])


def test_adamw_shrinks_weights_alone(tiny):
    config = apply_overrides(tiny, ["train.optimiser=adamw", "train.weight_decay=0.5", "train.lr=0.1"])
    network = Network(config, (1, 8, 8), 10)
    optimiser = make_optimiser(network, config)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    for name, parameter in network.named_parameters():
        assert torch.allclose(parameter, before[name] * (0.95 if parameter.dim() > 1 and "thr" not in name else 1))
    assert sum(len(group["params"]) for group in optimiser.param_groups) == len(before)


def test_same_seed_same_bits_other_seed_other_bits(tiny, tmp_path):
    state = torch.random.get_rng_state()
    train(tiny, tmp_path / "a")
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(5)
    train(tiny, tmp_path / "b")
    train(apply_overrides(tiny, ["train.seed=1"]), tmp_path / "c")
    assert _same(_last(tmp_path / "a"), _last(tmp_path / "b"))
    assert _metrics(tmp_path / "a") == _metrics(tmp_path / "b")
    assert not _same(_last(tmp_path / "a"), _last(tmp_path / "c"))


def test_bernoulli_evaluation_is_reproducible(tiny, tmp_path):
    config = apply_overrides(tiny, ["dataset.encoder=bernoulli", "train.epochs=1"])
    result = train(config, tmp_path)
    assert evaluate(result.network, load_dataset(config.dataset).test, config) == result.test


@pytest.mark.push(1)
@pytest.mark.parametrize("encoder", ["direct", "bernoulli"])
def test_resume_at_an_epochs_end_gives_the_same_bits(tiny, tmp_path, encoder):
    config = apply_overrides(tiny, [f"dataset.encoder={encoder}", "train.epochs=4", "train.weight_decay=0.001"])
    train(config, tmp_path / "whole")
    for epochs in (1, 3, 4):
        train(apply_overrides(config, [f"train.epochs={epochs}"]), tmp_path / "parts", resume=epochs > 1)
    assert _same(_last(tmp_path / "parts"), _last(tmp_path / "whole"))
    assert _same(_weights(tmp_path / "parts"), _weights(tmp_path / "whole"))
    ours, theirs = _metrics(tmp_path / "parts"), _metrics(tmp_path / "whole")
    assert [{**r, "epochs": 0} for r in ours] == [{**r, "epochs": 0} for r in theirs]


_KILLED = """
    import os, signal, sys
    from pathlib import Path
    import torch
    from stl_deploy.training import evaluate
    from stl_deploy.training import loop as train
    from stl_deploy.config.load import load_config

    epoch, batch = int(sys.argv[2]), int(sys.argv[3])
    epochs = 0
    batches = 0
    loss = train.classification_loss

    def finished(record):
        global epochs, batches
        epochs, batches = record["epoch"], 0

    def dying(*args):
        global batches
        batches += 1
        if epochs == epoch and batches == batch:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss(*args)

    train.classification_loss = dying
    run = Path(sys.argv[1])
    train.train(load_config(run.parent / "config.yaml"), run, progress=finished)
"""


@pytest.mark.push(1)
@pytest.mark.parametrize(("epoch", "batch"), [(0, 3), (2, 3)])
def test_a_run_killed_inside_an_epoch_resumes_to_the_same_bits(tiny, tmp_path, epoch, batch):
    (tmp_path / "config.yaml").write_text(dump_config(tiny))
    killed = tmp_path / "killed"
    command = [sys.executable, "-c", textwrap.dedent(_KILLED), str(killed), str(epoch), str(batch)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (killed / CHECKPOINT).exists() == (epoch > 0)
    assert not (killed / "model.safetensors").exists()
    assert all(path.name[0] != "." for path in killed.iterdir() if path.name != ".lock")
    train(tiny, killed, resume=True)
    train(tiny, tmp_path / "whole")
    assert _same(_last(killed), _last(tmp_path / "whole"))
    assert _metrics(killed) == _metrics(tmp_path / "whole")


@pytest.mark.parametrize("mode", ["sl", "tl"])
def test_what_is_fixed_does_not_move(tiny, tmp_path, mode):
    config = apply_overrides(tiny, [f"train.mode={mode}", "train.weight_decay=0.1", "train.epochs=2"])
    train(apply_overrides(config, ["train.epochs=1"]), tmp_path)
    first = _last(tmp_path)
    train(config, tmp_path, resume=True)
    then = _last(tmp_path)
    moved = {n.split("/")[1] for n in first if n.startswith("model/") and not torch.equal(first[n], then[n])}
    thresholds = {"layers.lif1.threshold_parameter", "layers.lif2.threshold_parameter"}
    statistics = {f"layers.norm1.{n}" for n in ("running_mean", "running_var", "num_batches_tracked")}
    weights = {"layers.conv1.weight", "layers.norm1.weight", "layers.norm1.bias", "layers.linear1.weight"}
    assert moved == statistics | (weights if mode == "sl" else thresholds)


def test_ann_mode_trains_on_the_image_shown_once(tiny, tmp_path):
    config = apply_overrides(tiny, ["train.mode=ann", "train.epochs=6", "dataset.encoder=bernoulli"])
    result = train(config, tmp_path)
    assert (config.time_steps, config.encoder) == (1, "direct")
    assert result.test.accuracy > 0.8
    assert result.test.thresholds == {}
    assert result.test.rates.keys() == {"lif1"}


@pytest.mark.parametrize("path", ["1", "0"], ids=["blocks", "torch"])
def test_bfloat16_synapses_learn_and_leave_float32(tiny, tmp_path, monkeypatch, path):
    monkeypatch.setenv("STL_DEPLOY_FUSED", path)
    narrow, forward = set(), Network.forward

    def noting(network, *arguments, **options):
        narrow.add((network.training, torch.is_autocast_enabled("cpu")))
        return forward(network, *arguments, **options)

    monkeypatch.setattr(Network, "forward", noting)
    result = train(apply_overrides(tiny, ["train.precision=bfloat16", "train.epochs=6"]), tmp_path)
    assert result.validation_accuracy > 0.5
    assert narrow == {(True, True), (False, False)}
    assert {parameter.dtype for parameter in result.network.parameters()} == {torch.float32}


def test_threshold_learning_rate_has_its_multiplier(tiny, tmp_path):
    config = apply_overrides(tiny, ["train.threshold_lr_multiplier=0", "train.epochs=1"])
    train(config, tmp_path)
    for name, value in _weights(tmp_path).items():
        if name.endswith("threshold_parameter"):
            assert not value.any()
    moved = train(tiny, tmp_path).network
    groups = make_optimiser(moved, apply_overrides(tiny, ["train.threshold_lr_multiplier=3"])).param_groups
    assert [group["multiplier"] for group in groups] == [1.0, 3.0]


def test_cross_entropy_learns_too(tiny, tmp_path):
    config = apply_overrides(tiny, ["train.loss=ce", "train.epochs=4"])
    assert train(config, tmp_path).test.accuracy > 0.6


@pytest.mark.push(1)
@pytest.mark.parametrize("broken", ["layers.linear1.weight", "layers.lif1.threshold_parameter"])
def test_nan_stops_and_keeps_the_last_checkpoint(tiny, tmp_path, broken, monkeypatch):
    real = train_module.check_finite

    def poisoned(network, epoch):
        if epoch == 1:
            with torch.no_grad():
                network.get_parameter(broken).view(-1)[0] = float("nan")
        real(network, epoch)

    monkeypatch.setattr(train_module, "check_finite", poisoned)
    with pytest.raises(DivergedError) as caught:
        train(tiny, tmp_path)
    layer = broken.split(".")[1]
    assert str(caught.value) == (
        f"training diverged in epoch 2: layer '{layer}' holds NaN or infinite values; "
        "the checkpoint of epoch 1 is kept; use a smaller train.lr"
    )
    assert not (tmp_path / "model.safetensors").exists()
    assert len(_metrics(tmp_path)) == 1
    monkeypatch.undo()
    train(tiny, tmp_path, resume=True)
    train(tiny, tmp_path / "whole")
    assert _same(_last(tmp_path), _last(tmp_path / "whole"))


@pytest.mark.parametrize(("huge", "named"), [(None, "vote"), ("linear1", "linear1")])
def test_weights_that_are_finite_and_overflow_name_the_first_layer_that_shows_it(tiny, huge, named):
    torch.manual_seed(0)
    network = Network(apply_overrides(tiny, ["train.mode=ann"]), (1, 8, 8), 10).eval()
    if huge is not None:
        with torch.no_grad():
            network.get_parameter(f"layers.{huge}.weight").fill_(3e38)
    told = str(diverged(network, 4, torch.ones(1, 2, 1, 8, 8)))
    assert told.startswith(f"training diverged in epoch 5: layer '{named}' holds NaN or infinite values; ")


@pytest.mark.parametrize("batch", [1000, 32])
def test_a_nan_loss_names_the_layer(tiny, tmp_path, batch):
    config = apply_overrides(tiny, ["train.mode=ann", "train.lr=1e30", f"train.batch_size={batch}"])
    with pytest.raises(DivergedError, match=r"diverged in epoch 1: layer '\w+' holds .* there is no checkpoint yet"):
        train(config, tmp_path)
    assert not (tmp_path / CHECKPOINT).exists()


def test_an_infinite_loss_of_finite_weights_ends_the_training(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(train_module, "classification_loss", lambda *_: torch.tensor(math.inf, requires_grad=True))
    with pytest.raises(DivergedError, match="diverged in epoch 1: layer 'vote' holds NaN or infinite values"):
        train(tiny, tmp_path)
    assert not (tmp_path / CHECKPOINT).exists()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _foreign(path: Path) -> None:
    save_file({"a": torch.zeros(3)}, path)


def _garbage(path: Path) -> None:
    path.write_bytes(b"\x80\x04pickle?" * 30)


@pytest.mark.push(3)
@pytest.mark.parametrize("file", [CHECKPOINT, "model.safetensors"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "truncated, damaged or not a safetensors file"),
        (_garbage, "truncated, damaged or not a safetensors file"),
        (_foreign, "a safetensors file that stl-deploy did not write"),
    ],
)
def test_damaged_files_are_named(tiny, tmp_path, file, damage, message):
    train(apply_overrides(tiny, ["train.epochs=1"]), tmp_path)
    damage(tmp_path / file)
    with pytest.raises(InputError) as caught:
        train(tiny, tmp_path, resume=True) if file == CHECKPOINT else load_network(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / file}: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.push(2)
@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.update(rates={"other": 0.5}),
        lambda record: record.update(thresholds=[]),
        lambda record: record.update(seconds="long"),
        lambda record: record.update(epoch=7),
    ],
)
def test_a_record_that_training_does_not_write_is_told_by_its_epoch(tiny, tmp_path, change):
    train(apply_overrides(tiny, ["train.epochs=2"]), tmp_path)
    tensors, about = read_tensors(tmp_path / CHECKPOINT)
    (records,) = [value for value in about.values() if isinstance(value, list) and len(value) == 2]
    change(records[1])
    write_tensors(tmp_path / CHECKPOINT, tensors, about)
    with pytest.raises(InputError, match="the record of epoch 2 is not as training writes it; it is damaged"):
        train(apply_overrides(tiny, ["train.epochs=3"]), tmp_path, resume=True)


@pytest.mark.parametrize(
    ("tensor", "value", "message"),
    [
        (
            "layers.lif1._fixed_decay",
            0.75,
            r"layer 'lif1': expected the configuration's decay of 0\.5; found 0\.75; the ",
        ),
        ("layers.norm1.running_var", -0.5, "layer 'norm1' has a negative variance; the file is damaged"),
        (
            "layers.lif1.threshold_init",
            -0.25,
            r"'lif1' has a threshold of -0\.\d+ under parametrisation 'positive'",
        ),
    ],
)
def test_numbers_that_no_training_gives_are_refused(tiny, tmp_path, tensor, value, message):
    train(apply_overrides(tiny, ["train.epochs=1"]), tmp_path)
    tensors, about = read_tensors(tmp_path / "model.safetensors")
    write_tensors(tmp_path / "model.safetensors", tensors | {tensor: torch.full_like(tensors[tensor], value)}, about)
    for verb in (evaluate_run, lambda run: fold_run(run, tmp_path / "net.nir")):
        with pytest.raises(InputError) as caught:
            verb(tmp_path)
        assert re.search(message, str(caught.value))
        assert str(caught.value).startswith(str(tmp_path / "model.safetensors"))


def test_another_architecture_is_refused(tiny, tmp_path):
    train(apply_overrides(tiny, ["train.epochs=1"]), tmp_path)
    other = apply_overrides(tiny, ["network.0.channels=5"])
    with pytest.raises(ConfigError, match=r"checkpoint\.safetensors: made with another 'network'"):
        train(other, tmp_path, resume=True)
    with pytest.raises(ConfigError, match=r"made with train\.lr = 0\.01, not 0\.5; resume with the same configuration"):
        train(apply_overrides(tiny, ["train.lr=0.5"]), tmp_path, resume=True)
    (tmp_path / "config.yaml").write_text(dump_config(other))
    with pytest.raises(InputError, match=r"tensor 'layers\.conv1\.weight' is torch\.float32 \[4, 1, 3, 3\], the conf"):
        load_network(tmp_path)
    (tmp_path / "config.yaml").write_text(dump_config(apply_overrides(tiny, ["neuron.learn_decay=true"])))
    with pytest.raises(InputError, match=r"no tensor 'layers\.lif1\.decay_parameter'; the file is of another arch"):
        load_network(tmp_path)


def test_a_checkpoint_of_an_older_version_is_resumed(tiny, tmp_path):
    train(apply_overrides(tiny, ["train.epochs=1"]), tmp_path)
    tensors, about = read_tensors(tmp_path / CHECKPOINT)
    for key in ("schedule", "label_smoothing"):
        del about["config"]["train"][key]
    write_tensors(tmp_path / CHECKPOINT, tensors, about)
    with pytest.raises(ConfigError, match=r"made with train\.label_smoothing = 0\.0, not 0\.1"):
        train(apply_overrides(tiny, ["train.label_smoothing=0.1"]), tmp_path, resume=True)
    train(apply_overrides(tiny, ["train.epochs=2"]), tmp_path, resume=True)
    assert len(_metrics(tmp_path)) == 2


def test_resuming_a_training_that_has_ended_leaves_what_was_made_of_it(tiny, tmp_path):
    train(tiny, tmp_path)
    made = ("manifest.json", "verify.json", "net.nir", "model.safetensors")
    for name in made[:-1]:
        (tmp_path / name).write_text("{}")
    model = (tmp_path / "model.safetensors").read_bytes()
    assert train(tiny, tmp_path, resume=True).epoch == model_facts(tmp_path)["epoch"]
    assert all((tmp_path / name).is_file() for name in made)
    assert (tmp_path / "model.safetensors").read_bytes() == model
    (tmp_path / "model.safetensors").write_bytes(model[:-1])
    train(tiny, tmp_path, resume=True)
    assert (tmp_path / "model.safetensors").read_bytes() == model
    assert not (tmp_path / "manifest.json").exists()


def test_resuming_a_training_that_has_ended_restores_metrics_and_curves(tiny, tmp_path):
    train(tiny, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for name in ("metrics.jsonl", "curves.svg"):
        (tmp_path / name).unlink()
    train(tiny, tmp_path, resume=True)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_picture_that_finds_no_space_says_that_the_training_is_whole(tiny, tmp_path, monkeypatch):
    def full(path, records, network):
        raise InputError(f"cannot write {path}: No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("stl_deploy.training.loop.write_curves", full)
        with pytest.raises(InputError, match=r"curves\.svg: No space left .*; model\.safetensors and checkpoint\.saf"):
            train(tiny, tmp_path)
    model = (tmp_path / "model.safetensors").read_bytes()
    train(tiny, tmp_path, resume=True)
    assert (tmp_path / "curves.svg").is_file()
    assert (tmp_path / "model.safetensors").read_bytes() == model


def test_resume_needs_a_run(tiny, tmp_path):
    with pytest.raises(InputError, match="found nothing to resume"):
        train(tiny, tmp_path / "new", resume=True)
    train(tiny, tmp_path)
    with pytest.raises(ConfigError, match=r"expected train\.epochs above the 3 that are done; found 2"):
        train(apply_overrides(tiny, ["train.epochs=2"]), tmp_path, resume=True)


def test_a_model_without_its_checkpoint_is_not_trained_over_by_resume(tiny, tmp_path):
    train(tiny, tmp_path)
    (tmp_path / CHECKPOINT).unlink()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for config in (tiny, apply_overrides(tiny, ["train.epochs=4"])):
        with pytest.raises(InputError, match=r"expected a checkpoint .* overwrite=True trains anew, output"):
            train(config, tmp_path, resume=True)
    with pytest.raises(InputError, match="holds a finished training; overwrite=True replaces it, output names another"):
        refuse_replacing(tmp_path, resume=False, overwrite=False)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / "model.safetensors").unlink()
    train(tiny, tmp_path, resume=True)
    assert (tmp_path / "model.safetensors").is_file()


def test_a_fresh_start_leaves_nothing_of_the_older_run(tiny, tmp_path, monkeypatch):
    train(tiny, tmp_path)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train_module, "train_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        train(apply_overrides(tiny, ["train.seed=5"]), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_load_network_needs_a_finished_run(tmp_path, tiny):
    with pytest.raises(
        InputError, match=r"expected a run folder written by stl_deploy\.verbs\.train; .* no config\.yaml"
    ):
        load_network(tmp_path)
    (tmp_path / "config.yaml").write_text(dump_config(tiny))
    with pytest.raises(InputError, match=r"no model\.safetensors, since the training has not ended; .* resume=True"):
        load_network(tmp_path)


def test_a_device_that_is_not_there_is_refused():
    assert str(pick_device("cpu")) == "cpu"
    missing = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(
        ConfigError, match=rf"key 'train\.device': expected cpu; found '{missing}' and \d+ CUDA devices"
    ):
        pick_device(missing)


def test_a_batch_in_parts_gives_the_gradients_of_the_whole(tiny, tmp_path, monkeypatch):
    steps = []

    def keep(optimiser):
        gradients = [p.grad.clone() for group in optimiser.param_groups for p in group["params"]]
        steps.append(gradients)

    monkeypatch.setattr(torch.optim.Adam, "step", keep)
    data = tiny.model_dump(mode="json")
    data["network"] = [layer for layer in data["network"] if layer["kind"] not in ("norm", "dropout")]
    for parts in (1, 5):
        config = apply_overrides(RunConfig.model_validate(data), [f"train.accumulate={parts}", "train.epochs=1"])
        train(config, tmp_path / str(parts))
    half = len(steps) // 2
    assert half > 5
    for whole, summed in zip(steps[:half], steps[half:], strict=True):
        assert any(gradient.any() for gradient in whole)
        for one, other in zip(whole, summed, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_curves_and_neurons_that_never_or_always_fire(tiny, tmp_path):
    train(apply_overrides(tiny, ["network.2.threshold=1e-4", "network.7.threshold=1e4"]), tmp_path)
    last = _metrics(tmp_path)[-1]
    assert last["silent"]["lif2"] == 1 == 1 - last["rates"]["lif2"]
    assert last["saturated"]["lif2"] == 0
    assert 0 <= last["saturated"]["lif1"] <= last["rates"]["lif1"]
    drawn = (tmp_path / "curves.svg").read_text()
    assert drawn.startswith("<?xml")
    assert drawn.rstrip().endswith("</svg>")
    assert "lif1 saturated" in drawn


def test_thresholds_an_ulp_apart_are_drawn(tiny, tmp_path, monkeypatch):
    network = Network(tiny, (1, 8, 8), 10)
    monkeypatch.setattr(network, "thresholds", lambda: {"lif1": torch.tensor([1.0, 1 + 2**-23])})
    record = {"epoch": 1, "loss": 1, "validation_loss": 1, "train_accuracy": 1, "validation_accuracy": 1}
    write_curves(tmp_path / "curves.svg", [record | {"rates": {}, "thresholds": {}}], network)
    assert (tmp_path / "curves.svg").is_file()


def test_rates_are_counted_neuron_by_neuron(tiny):
    network = Network(tiny, (1, 8, 8), 10)
    rates = Rates(network)
    rates.observe("lif2", torch.tensor([[[1.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]]]))
    rates.observe("lif2", torch.tensor([[[1.0, 0.0, 1.0]], [[1.0, 0.0, 1.0]]]))
    assert rates.means() == {"lif2": 7 / 12}
    assert rates.shares(0.0) == rates.shares(1.0) == {"lif2": 1 / 3}
