"""Train by STBP with learned thresholds, resumable to the bit.

`train` leaves in the run folder config.yaml, metrics.jsonl (one line per epoch), checkpoint.safetensors (after
each epoch) and, at the end, curves.svg, and model.safetensors with the weights of the epoch of lowest validation loss.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stl_deploy._util import processes
from stl_deploy._util.files import write_text
from stl_deploy._util.lock import alone_in
from stl_deploy._util.tensor_file import read_tensors
from stl_deploy._util.training_progress import Batch
from stl_deploy.config.load import load_config, save_config
from stl_deploy.config.schema import RunConfig, TrainConfig
from stl_deploy.data import Dataset, Split, augment, encode, load_dataset, transformed
from stl_deploy.data.complete import complete_run
from stl_deploy.errors import ConfigError, InputError
from stl_deploy.nn.network import INPUT, Network
from stl_deploy.training import checkpoint, distributed
from stl_deploy.training.activity_penalty import Regulariser
from stl_deploy.training.checkpoint import State
from stl_deploy.training.curves import FILE as CURVES_FILE
from stl_deploy.training.curves import write_curves
from stl_deploy.training.divergence import check_finite, diverged
from stl_deploy.training.evaluate import Evaluation, classification_loss, evaluate, right
from stl_deploy.training.matmul_precision import matmul_precision, settle
from stl_deploy.training.run_files import CHECKPOINT, CONFIG, METRICS, MODEL
from stl_deploy.training.run_folder import forget_results, forget_twin, require_resumable
from stl_deploy.training.seeds import derived_seed, generator
from stl_deploy.training.sync_batchnorm import share_norms

Record = dict[str, Any]
"""One epoch: epoch (from 1), epochs, loss, train_accuracy, validation_loss, validation_accuracy, lr, matmul (torch's
setting for float32 products), threads (torch's), rates {layer: spikes per neuron per step}, thresholds {layer: {min,
mean, max}}, silent and saturated {layer: share of neurons}, seconds."""
Progress = Callable[[Record], None]
"""Called after each epoch, when its checkpoint is written."""


@dataclass(frozen=True)
class TrainResult:
    """The picked epoch (from 1), its validation accuracy, and the one look at the test split."""

    network: Network
    epoch: int
    validation_accuracy: float
    test: Evaluation


def train(
    config: RunConfig,
    run_dir: Path,
    *,
    resume: bool = False,
    data: Dataset | None = None,
    progress: Progress | None = None,
    loaded: Callable[[Dataset], None] | None = None,
    opened: Callable[[], None] | None = None,
    batch: Batch | None = None,
    curves: bool = True,
) -> TrainResult:
    """Train ``config`` in ``run_dir``; with ``resume`` continue from its checkpoint (or the start without one).

    On the CPU a resumed run ends with the same bits as an uninterrupted one. torch's global generator is restored.

    Args:
        data: The configuration's dataset, if already loaded.
        loaded: Called with the dataset before training begins.
        opened: Called in the first process once the run can no longer be refused and an older run's files are deleted.
        progress: Called with each epoch's record.
        batch: See `stl_deploy._util.training_progress`.
        curves: Whether to draw curves.svg, which may take longer than training a small net.

    Raises:
        InputError: For invalid data or checkpoints, a folder in use by another process, or ``resume`` of a model
            without its checkpoint.
        ConfigError: For a configuration that does not fit the data.
        DivergedError: If the loss or a weight becomes NaN or infinite; the last checkpoint is kept.
    """
    config = complete_run(config)
    with distributed.together():
        data = data or distributed.in_turn(lambda: load_dataset(config.dataset))
        if data.digest is not None:
            config = config.with_values(dataset={"sha256": data.digest})
        if loaded is not None:
            loaded(data)
        callbacks = progress or (lambda record: None), batch or no_batches
        return _train(config, run_dir, data, resume, opened or (lambda: None), *callbacks, curves)


def no_batches(epoch: int, epochs: int, done: int, total: int, loss: float) -> None:
    """Ignore the record."""


def _train(
    config: RunConfig,
    run_dir: Path,
    data: Dataset,
    resume: bool,
    opened: Callable[[], None],
    progress: Progress,
    batch: Batch,
    curves: bool,
) -> TrainResult:
    distributed.require_samples_for_all(config, len(data.train))
    if config.train.mode == "ann" and data.train.labels.dim() == 2:
        raise ConfigError(
            "key 'train.mode': expected stl, sl or tl for labels of each step; found 'ann', which sees one step"
        )
    device = pick_device(config.train.device)
    on_card = device.type == "cuda"
    with torch.cuda.device(device) if on_card else nullcontext(), torch.random.fork_rng([device] if on_card else []):
        torch.default_generator.manual_seed(derived_seed(config.train.seed, "weights"))  # drawn on the CPU
        network = Network(config, data.input_shape, data.classes).to(device)
        share_norms(network)
        state = State(network, make_optimiser(network, config), 0, [], {}, 0)
        with alone_in(run_dir) if processes.rank() == 0 else nullcontext():
            _open_run(run_dir, config, state, resume, opened)
            _train_epochs(run_dir, config, state, data, progress, batch)
            return _finish(run_dir, config, state, data, curves)


def _train_epochs(
    run_dir: Path, config: RunConfig, state: State, data: Dataset, progress: Progress, batch: Batch
) -> None:
    while state.epoch < config.train.epochs:
        settings = config.train
        rates = partial(_rate_in, settings, state.epoch)
        record = train_epoch(state, config, data, rates, settings.epochs, batch=batch)
        if processes.rank() == 0:
            checkpoint.write_checkpoint(run_dir, state, config)
            _write_metrics(run_dir, state)
        progress(record)


def _write_metrics(run_dir: Path, state: State) -> None:
    lines = (f"{json.dumps(record, allow_nan=False)}\n" for record in state.records)
    write_text(run_dir / METRICS, "".join(lines))


def _rate_in(settings: TrainConfig, epoch: int, part: float) -> float:
    return learning_rate(settings, epoch + part)


def pick_device(name: str, asked_by: str = "key 'train.device'") -> torch.device:
    """Resolve ``auto``: CUDA if there is one, else the CPU.

    Of several processes on one machine each takes a CUDA device of its own, as far as there are enough.
    Raises ConfigError, which begins with ``asked_by``, for a device that is not there, and for one card that all of
    several processes are to take.
    """
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", name) is None:
        raise ConfigError(f"{asked_by}: expected auto, cpu, cuda or cuda:N; found {name!r}")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.index is not None and processes.on_this_machine() > 1:
        raise ConfigError(
            f"{asked_by}: expected cuda, by which each of {processes.on_this_machine()} processes takes a card of its "
            f"own; found {name!r}"
        )
    if device == torch.device("cuda") and processes.world_size() > 1:
        device = torch.device("cuda", processes.local_rank() % max(torch.cuda.device_count(), 1))
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ConfigError(f"{asked_by}: expected cpu; found {name!r} and {count} CUDA devices")
    return device


def _seed(seed: int, device: torch.device) -> None:
    """Seed torch's global generators of the CPU and of this device; torch.manual_seed takes those of all cards."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def make_optimiser(network: Network, config: RunConfig) -> torch.optim.Optimizer:
    """Return Adam over all learned tensors, thresholds in a group with their learning rate's multiplier."""
    settings = config.train
    thresholds = [lif.threshold_parameter for _, lif in network.lifs]
    theirs = {id(parameter) for parameter in thresholds}
    rest = [p for p in network.parameters() if id(p) not in theirs]
    kinds = [(rest, 1.0, settings.weight_decay), (thresholds, settings.threshold_lr_multiplier, settings.weight_decay)]
    if settings.optimiser == "adamw":
        weights, others = [p for p in rest if p.dim() > 1], [p for p in rest if p.dim() <= 1]
        kinds = [(weights, 1.0, settings.weight_decay), (others, 1.0, 0.0), (thresholds, kinds[1][1], 0.0)]
    groups = [
        {"params": [p for p in parameters if p.requires_grad], "multiplier": multiplier, "weight_decay": decay}
        for parameters, multiplier, decay in kinds
    ]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise ConfigError(f"in mode '{settings.mode}' this network has nothing to learn: it has no lif layer")
    kind = torch.optim.AdamW if settings.optimiser == "adamw" else torch.optim.Adam
    return kind(groups, lr=settings.lr, fused=True)


def _open_run(run_dir: Path, config: RunConfig, state: State, resume: bool, opened: Callable[[], None]) -> None:
    """Make the folder a run of ``config``: continue its checkpoint, or remove the older run."""
    kept = run_dir / CONFIG
    if resume and (run_dir / CHECKPOINT).is_file():
        checkpoint.read_checkpoint(run_dir, state, config)
        if state.epoch > config.train.epochs:
            raise ConfigError(
                f"{run_dir}: expected train.epochs above the {state.epoch} that are done; found {config.train.epochs}"
            )
    elif resume:
        require_resumable(run_dir)
        checkpoint.check_same_run(kept, load_config(kept).model_dump(mode="json"), config)
    distributed.require_same_epoch(state.epoch)
    if processes.rank() > 0:
        return
    if state.epoch == config.train.epochs and _is_whole(run_dir, config, state.best):
        opened()
        return  # nothing is left to train: what was made of these weights stays
    forget_results(run_dir)
    if not resume:
        forget_twin(run_dir)
    for stale in (MODEL, CURVES_FILE, *(() if resume else (CHECKPOINT, METRICS))):
        (run_dir / stale).unlink(missing_ok=True)
    opened()
    save_config(config, kept)


def _is_whole(run_dir: Path, config: RunConfig, weights: Mapping[str, Tensor]) -> bool:
    """Return whether the folder holds this configuration and a model of these weights."""
    if not (run_dir / CONFIG).is_file() or load_config(run_dir / CONFIG) != config:
        return False
    try:
        kept, _ = read_tensors(run_dir / MODEL)
    except InputError:
        return False
    return kept.keys() == weights.keys() and all(torch.equal(kept[name], weights[name].cpu()) for name in kept)


_LOOKED_AT = 256
"""Images of the validation split in which the layer is looked for that made its loss infinite."""


def train_epoch(
    state: State,
    config: RunConfig,
    data: Dataset,
    rate: Callable[[float], float],
    epochs: int,
    *,
    start: float = math.inf,
    batch: Batch = no_batches,
) -> Record:
    """Train one epoch of ``epochs``, validate, keep the best weights; return the record, added to the state's.

    Those of lower validation loss are better: it tells epochs apart that get the same few images wrong. start: the loss
    of the weights that training began with, if they may be kept. rate: of learning, where so much of the epoch is done;
    times each group's multiplier.
    """
    begin, settings = time.perf_counter(), config.train
    device = next(state.network.parameters()).device
    before = state.records[-1].get("matmul") if state.records else None
    matmul = settle(settings.matmul, before, device=device.type)
    with matmul_precision(matmul):
        tell = partial(batch, state.epoch + 1, epochs)
        loss, accuracy = one_pass(state, config, data.train, rate, tell)
    check_finite(state.network, state.epoch)
    validation = evaluate(state.network, data.validation, config)
    if not math.isfinite(validation.loss):
        draws = generator(settings.seed, "evaluation")
        x = encode(data.validation.images(slice(_LOOKED_AT)), config.time_steps, config.encoder, draws)
        raise diverged(state.network.eval(), state.epoch, x.to(device))
    lowest = state.records[state.best_epoch - 1]["validation_loss"] if state.best_epoch else start
    if not state.best or validation.loss < lowest:
        state.best, state.best_epoch = weights_of(state.network), state.epoch + 1
    state.epoch += 1
    results = validation.as_dict()
    record = {
        "epoch": state.epoch,
        "epochs": epochs,
        "loss": loss,
        "train_accuracy": accuracy,
        "validation_loss": validation.loss,
        "validation_accuracy": validation.accuracy,
        "lr": rate(0.0),
        "matmul": matmul,
        "threads": torch.get_num_threads(),
        "rates": results["rates"],
        "thresholds": results["thresholds"],
        "silent": results["silent"],
        "saturated": results["saturated"],
        "seconds": time.perf_counter() - begin,
    }
    state.records.append(record)
    return record


def weights_of(network: Network) -> dict[str, Tensor]:
    """Return a copy of its parameters and buffers."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def one_pass(
    state: State,
    config: RunConfig,
    split: Split,
    rate: Callable[[float], float],
    tell: Callable[[int, int, float], None],
) -> tuple[float, float]:
    """Run one pass over the training split in batches of nearly equal size; return mean loss and accuracy on the way.

    tell: called after each batch with samples done, samples in all, and the mean loss so far.
    """
    settings, epoch, network = config.train, state.epoch, state.network
    seed, steps = settings.seed, 1 if epoch < settings.one_step_epochs else config.time_steps
    draws, moves = generator(seed, "encoder", epoch), generator(seed, "augment", epoch)
    device = next(network.parameters()).device
    _seed(derived_seed(seed, "dropout", epoch) + processes.rank(), device)
    order = torch.randperm(len(split), generator=generator(seed, "order", epoch))
    network.train()
    regulariser = Regulariser(network, config.train)
    total, correct, done = 0.0, 0.0, 0
    for index in order.tensor_split(math.ceil(len(split) / config.train.batch_size)):
        for group in state.optimiser.param_groups:
            group["lr"] = rate(done / len(split)) * group["multiplier"]
        state.optimiser.zero_grad(set_to_none=True)
        for part in index.tensor_split(min(config.train.accumulate, len(index))):
            mine = distributed.mine(len(part))
            images = transformed(split.images(part), config.dataset.augment or (), moves)
            images = augment(images, moves, shift=settings.shift, flip=settings.flip, cutout=settings.cutout)
            x = encode(images, steps, config.encoder, draws)[:, mine].to(device)
            labels = split.labels[part[mine]].to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=config.train.precision == "bfloat16"):
                outputs = _forward(network, x, regulariser)
            scores = network.scores(outputs)
            loss = classification_loss(outputs, scores, labels, config.train)
            if regulariser.active:
                whole = distributed.total(loss.detach() * (len(labels) / len(part)))
                loss = loss + regulariser.penalty(whole)
            share = loss * (len(labels) / len(part))
            hits = right(outputs, network.decide(outputs), labels)
            value, counted = distributed.total(torch.stack([share.detach(), hits]).cpu()).tolist()
            if not math.isfinite(value):
                raise diverged(network, epoch, x)
            (share * (len(part) / len(index))).backward()  # type: ignore[no-untyped-call]
            total += value * len(part)
            correct += counted
        distributed.add_gradients(network)
        state.optimiser.step()
        done += len(index)
        tell(done, len(split), total / done)
    return total / len(split), correct / len(split)


def _forward(network: Network, x: Tensor, regulariser: Regulariser) -> Tensor:
    if not regulariser.active:
        outputs: Tensor = network(x)
        return outputs
    regulariser.reset()
    regulariser.observe(INPUT, x)
    outputs = network(x, regulariser.observe)
    return outputs


def _finish(run_dir: Path, config: RunConfig, state: State, data: Dataset, curves: bool) -> TrainResult:
    """Load the picked weights, evaluate the test split once, write the metrics, and model and curves if absent."""
    state.network.load_state_dict(state.best)
    test = evaluate(state.network, data.test, config)
    picked = state.records[state.best_epoch - 1]
    about = {
        "mode": config.train.mode,
        "epoch": state.best_epoch,
        "epochs": state.epoch,
        "validation_accuracy": picked["validation_accuracy"],
        "test": test.as_dict(),
        "seconds": sum(record["seconds"] for record in state.records),
    }
    if processes.rank() == 0:
        _write_metrics(run_dir, state)
        if not (run_dir / MODEL).is_file():
            checkpoint.save_model(run_dir, state.best, about)
        if curves and not (run_dir / CURVES_FILE).is_file():
            _draw(run_dir, state)
    distributed.wait()
    return TrainResult(state.network.eval(), state.best_epoch, picked["validation_accuracy"], test)


def _draw(run_dir: Path, state: State) -> None:
    """Write curves.svg; an error, as of a full disk, says that the training itself is whole."""
    try:
        write_curves(run_dir / CURVES_FILE, state.records, state.network)
    except InputError as error:
        raise InputError(f"{error}; {MODEL} and {CHECKPOINT} in {run_dir} are whole") from error


_RISE = 0.2
_START = 0.04
"""Share of training in which one cycle rises, and where it starts, as a share of the peak."""


def learning_rate(settings: TrainConfig, epochs: float) -> float:
    """Return the rate after the given number of epochs; for ``one_cycle`` fractions of an epoch count.

    One cycle (Smith and Topin, 2018) rises linearly from a 25th of ``lr`` and falls linearly to 0.
    """
    if settings.schedule == "decay":
        return settings.lr * settings.lr_decay ** int(epochs)
    done = epochs / settings.epochs
    return settings.lr * (_START + (1 - _START) * done / _RISE if done < _RISE else (1 - done) / (1 - _RISE))
