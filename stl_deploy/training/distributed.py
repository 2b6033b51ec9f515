"""Train one network in several processes: data parallel, started by torchrun.

    torchrun --nproc_per_node 2 -m stl_deploy train digits

Each process takes a contiguous share of every batch. Sums over the whole batch (gradients, batch norm's statistics
(`stl_deploy.training.sync_batchnorm`), penalties) are taken over all processes, so gradients equal those of one process
up to the order of summation. Dropout is the exception: each process draws its own masks. All processes hold the same
bits; only the first (rank 0) writes and prints.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from stl_deploy._util import processes
from stl_deploy.errors import ConfigError, InputError

if TYPE_CHECKING:
    import torch

    from stl_deploy.config.schema import RunConfig

Loaded = TypeVar("Loaded")


def speaks() -> bool:
    """Return whether this process prints errors: the first one that asks."""
    return processes.world_size() == 1 or _first_to_ask()


@contextmanager
def together() -> Iterator[None]:
    """Join the processes inside, so that they can add up; nothing happens for a single one.

    Raises ToolError where they cannot meet, and in every process that goes on when another one ended.
    """
    if processes.world_size() == 1:
        yield
        return
    import torch
    from torch import distributed

    with processes.others_here("meet"):
        store, rank, count = _met()
        backend = _backend(store, rank, count, torch.cuda.device_count())
        distributed.init_process_group(backend, store=store, rank=rank, world_size=count)
    try:
        with _ended_by_others():
            yield
    except BaseException:
        speaks()  # asked before the others can tell that this one is leaving
        raise
    finally:
        distributed.destroy_process_group()


def _backend(store: Any, rank: int, count: int, cards: int) -> str:
    """Return gloo, or NCCL if every process of every machine has a GPU of its own, as NCCL requires."""
    store.set(f"stl-deploy/card/{rank}", str(int(processes.on_this_machine() <= cards)))
    own = all(store.get(f"stl-deploy/card/{other}") == b"1" for other in range(count))
    return "cpu:gloo,cuda:nccl" if own else "gloo"


@cache
def _met() -> tuple[Any, int, int]:
    """Return shared store, rank and world size."""
    from torch.distributed.rendezvous import rendezvous

    store, rank, count = next(rendezvous("env://"))
    return store, rank, count


@cache
def _first_to_ask() -> bool:
    try:
        return bool(_met()[0].add("stl-deploy/failed", 1) == 1)
    except (RuntimeError, ValueError, OSError):  # the store went with another process, or was never there
        return processes.rank() == 0


@contextmanager
def _ended_by_others() -> Iterator[None]:
    """Turn torchrun's signal after another process's end into an exception."""

    def stop(*_: object) -> None:
        raise processes.lost("stopped by torchrun")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def in_turn(load: Callable[[], Loaded]) -> Loaded:
    """Call ``load``, on the first process of each machine before the others, since it may download."""
    if processes.world_size() == 1:
        return load()
    loaded = [load()] if processes.local_rank() == 0 else []
    wait()
    return loaded[0] if loaded else load()


def wait() -> None:
    """Wait for all processes."""
    if processes.world_size() > 1:
        import torch

        total(torch.zeros(()))


def mine(count: int) -> slice:
    """Return this process's slice of ``count`` samples; sizes differ by at most one."""
    size, rest = divmod(count, processes.world_size())
    start = processes.rank() * size + min(processes.rank(), rest)
    return slice(start, start + size + (processes.rank() < rest))


def total(x: torch.Tensor) -> torch.Tensor:
    """Return the sum of ``x`` over all processes, differentiable; ``x`` itself for a single one."""
    if processes.world_size() == 1:
        return x
    from stl_deploy.training.all_reduce import Total

    added: torch.Tensor = Total.apply(x)  # type: ignore[no-untyped-call]
    return added


def add_gradients(network: torch.nn.Module) -> None:
    """Add up all gradients over the processes, in one message."""
    if processes.world_size() == 1:
        return
    import torch

    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    with torch.no_grad():
        added = total(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient in gradients:
            gradient.copy_(added[: gradient.numel()].view_as(gradient))
            added = added[gradient.numel() :]


def require_samples_for_all(config: RunConfig, samples: int) -> None:
    """Raise ConfigError if a part of a batch is too small to give every process a sample."""
    least = samples // math.ceil(samples / config.train.batch_size)
    each = least // min(config.train.accumulate, least)
    if each < processes.world_size():
        raise ConfigError(
            f"key 'train.batch_size': expected a sample for each of {processes.world_size()} processes in every part "
            f"of a batch; found parts of {each} ({config.train.batch_size} a batch); use a larger batch"
        )


def require_same_epoch(epoch: int) -> None:
    """Raise InputError unless every process found the same checkpoint."""
    import torch

    difference = total(torch.tensor(epoch)) - processes.world_size() * epoch
    if int(total(difference.abs())):
        raise InputError(
            "expected one checkpoint in every process; found different ones; name a run folder that all of them see"
        )
