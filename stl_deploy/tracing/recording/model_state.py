"""Run a model in eval mode from rest, and restore it exactly."""

from __future__ import annotations

import random
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from stl_deploy._util.remedies import remedy
from stl_deploy._util.untrusted import one_line
from stl_deploy.errors import CaptureError
from stl_deploy.tracing.recording.source_lines import raised_at

_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)
_LISTS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_TABLES = ("_parameters", "_buffers", "_modules")
_OWN = (*_TABLES, "_non_persistent_buffers_set")
_CONTAINERS = (list, deque, dict, set)
_RESETS = ("reset_mem", "reset_state", "reset_states", "reset")
"""Methods without arguments that bring a module to rest: snnTorch's, Rockpool's, Sinabs' and SpikingJelly's."""


def compiles() -> bool:
    """Return whether torch.compile's part of torch is loaded, which takes a second."""
    return "torch._dynamo" in sys.modules


@contextmanager
def as_found(model: nn.Module) -> Iterator[None]:
    """Undo everything that the body does to ``model`` and to random generators; run what is compiled as written.

    SpikingJelly's modules that run in one kernel of another library (``backend="cupy"``, ``"triton"``) run in torch.
    """
    modules = list(nn.Module.modules(model))  # Rockpool's own modules() and parameters() return dicts
    plain = [module for module in modules if not isinstance(module, torch.jit.ScriptModule)]
    saved = [(module, dict(module.__dict__), {k: dict(module.__dict__[k]) for k in _TABLES}) for module in plain]
    inner = [(item, item.copy()) for module in plain for item in containers(module).values()]
    modes = [(module, module.training) for module in modules if hasattr(module, "training")]  # frozen TorchScript
    tensors = {id(t): (t, t.data, t.detach().clone()) for module in modules for t in _state(module)}
    # The legacy generator is the one that users' models draw from.
    states = (torch.get_rng_state(), np.random.get_state(), random.getstate())  # noqa: NPY002
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    cuda = torch.cuda.get_rng_state_all() if used else []
    for module in plain:
        if getattr(module, "backend", "torch") != "torch" and "torch" in getattr(module, "supported_backends", ()):
            module.backend = "torch"  # type: ignore[assignment]
    try:
        with _steps_apart(modules), torch.compiler.set_stance("force_eager") if compiles() else nullcontext():
            yield
    finally:
        for module, attributes, tables in saved:
            module.__dict__.clear()
            module.__dict__.update(attributes)
            for key, table in tables.items():
                module.__dict__[key].clear()
                module.__dict__[key].update(table)
        for module, training in modes:
            module.training = training
        for container, content in inner:
            _refill(container, content)
        with torch.no_grad():
            for tensor, memory, content in tensors.values():
                if not (memory.shape == content.shape and torch.equal(memory, content)):
                    memory.copy_(content)
                if not _is_same_memory(tensor, memory):  # a cast, or ``.data =``
                    tensor.data = memory
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        random.setstate(states[2])
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


@contextmanager
def _steps_apart(modules: list[nn.Module]) -> Iterator[None]:
    """Let `nn.LSTM` and attention compute step by step: oneDNN runs all steps in one kernel, torch a whole layer."""
    enabled, fast = torch._C._get_mkldnn_enabled(), torch.backends.mha.get_fastpath_enabled()
    torch._C._set_mkldnn_enabled(enabled and not any(isinstance(module, nn.LSTM) for module in modules))
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(enabled)
        torch.backends.mha.set_fastpath_enabled(fast)


def _state(module: nn.Module) -> Iterator[Tensor]:
    """Parameters, buffers, and tensors that are attributes, or in containers that are: what a run may write into."""
    items = [*module._parameters.values(), *module._buffers.values(), *module.__dict__.values()]
    for each in containers(module).values():
        items += each.values() if isinstance(each, dict) else each
    for item in items:
        if isinstance(item, Tensor) and is_plain(item):
            yield item


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor has its values in one memory."""
    return not is_lazy(tensor) and tensor.layout == torch.strided and not (tensor.is_meta or tensor.is_nested)


def _is_same_memory(a: Tensor, b: Tensor) -> bool:
    same_kind = (a.dtype, a.shape, a.stride()) == (b.dtype, b.shape, b.stride())
    return same_kind and a.data_ptr() == b.data_ptr()


class Weights:
    """The parameters of a model that runs, which must stay as they are: a graph has one weight for all steps and calls.

    A change by a torch operation is refused where it happens, with its line; `require_unchanged` finds all others.
    """

    def __init__(self, model: nn.Module) -> None:
        named = [(name, t) for name, t in model.named_parameters() if not is_lazy(t) and t.layout == torch.strided]
        self._held = [(name, tensor, tensor.detach().clone()) for name, tensor in named if not tensor.is_meta]
        self._names = {tensor.untyped_storage()._cdata: name for name, tensor, _ in self._held}

    def name_of(self, tensor: Tensor) -> str | None:
        """The parameter whose memory a tensor is, or is a view of; None if it is none's."""
        return self._names.get(tensor.untyped_storage()._cdata) if tensor.layout == torch.strided else None

    def require_unchanged(self) -> None:
        """Raise CaptureError if a parameter does not hold what it held at first."""
        for name, tensor, content in self._held:
            if tensor.dtype != content.dtype or not torch.equal(tensor, content):
                raise changes(name, None)


def changes(name: str, line: str | None) -> CaptureError:
    """The refusal of a forward that changes a parameter."""
    return CaptureError(
        f"forward changes parameter '{name}' (a cast as half(), or a write as .data.clamp_()); a graph's weights stay "
        "as they are: change them once before capture, outside of forward",
        line=line,
        slug="forward-changes",
    )


def containers(module: nn.Module) -> dict[str, Any]:
    """Return the lists, deques, dicts and sets that a module's attributes are or hold, by name; without torch's own."""
    by_name, met = dict[str, Any](), set[int]()
    waiting = list(attributes(module).items())
    while waiting:
        name, item = waiting.pop()
        if isinstance(item, _CONTAINERS) and id(item) not in met:
            met.add(id(item))
            by_name[name] = item
            inner = () if isinstance(item, set) else item.items() if isinstance(item, dict) else enumerate(item)
            waiting += [(f"{name}.{key}", value) for key, value in inner if isinstance(value, _CONTAINERS)]
    return by_name


def attributes(module: nn.Module) -> dict[str, Any]:
    """Return a module's attributes without torch's own."""
    return {key: item for key, item in module.__dict__.items() if key not in _OWN and not key.endswith("_hooks")}


def _refill(container: Any, content: Any) -> None:
    container.clear()
    container.extend(content) if isinstance(container, list | deque) else container.update(content)


def bring_to_rest(model: nn.Module, reset: Callable[[], Any] | None) -> None:
    """Call ``reset``, or the model's modules' own methods for it (`_RESETS`).

    Modules without either are taken to be at rest as they are.
    """
    if reset is not None:
        _call(reset, "reset=")
        return
    for module in nn.Module.modules(model):
        for name in _RESETS:
            method = getattr(module, name, None)
            if callable(method):
                _call(method, f"{type(module).__name__}.{name}()")
                break


def keeps_other_batch(model: nn.Module, samples: int, error: str) -> bool:
    """Whether an error speaks of the size of state that is there for another number of samples."""
    held = [t for module in nn.Module.modules(model) for t in (*module._buffers.values(), *module.__dict__.values())]
    sizes = {t.shape[0] for t in held if isinstance(t, Tensor) and t.dim() > 1} - {1, samples}
    return any(f"({size})" in error for size in sizes)


def _call(reset: Callable[[], Any], name: str) -> None:
    try:
        reset()
    except Exception as error:
        raise CaptureError(
            f"{name}, which should bring the model to rest, fails: {type(error).__name__}: {one_line(error, 200)}; "
            + remedy(
                cli="mend it, for it is called without arguments",
                python="give reset= a callable without arguments that does it",
            ),
            line=raised_at(error),
        ) from error


def shake(seed: int) -> None:
    """Other numbers from the generators that torch's operations do not show, so that code which draws is found out."""
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)


def require_undrawn(seed: int) -> None:
    """Raise CaptureError if one of these generators has been drawn from since `shake`."""
    drawn = (random.getstate(), np.random.random(4).tolist())  # noqa: NPY002
    shake(seed)
    if drawn != (random.getstate(), np.random.random(4).tolist()):  # noqa: NPY002
        raise CaptureError(
            "forward draws random numbers from numpy or Python, so that no two runs agree; in eval mode a model must "
            "not: draw in training only (if self.training), or encode the input before it is given to capture",
            slug="random-numbers",
        )


def uncompiled(model: nn.Module) -> nn.Module:
    """Return the module that torch.compile wraps, or ``model`` itself; hooks of the wrapper keep it."""
    while type(model).__module__.startswith("torch._dynamo") and not (model._forward_hooks or model._forward_pre_hooks):
        model = model._orig_mod  # type: ignore[assignment]
    return model


def names_of(model: nn.Module) -> dict[int, str]:
    """Each module's name by its id, without what torch.compile and DataParallel put into it.

    A module without weights that several others hold, as neurons hold one surrogate, has no name: its caller has.
    """
    named = dict(model.named_modules())
    wrapped = {f"{name}.module".lstrip(".") for name, module in named.items() if isinstance(module, _PARALLEL)}
    holders = Counter(held for holder in named.values() if not isinstance(holder, _LISTS) for held in holder.children())
    return {
        id(module): _unwrapped(name, wrapped)
        for name, module in named.items()
        if holders[module] < 2 or [*module.parameters(), *module.buffers()]
    }


def _unwrapped(name: str, wrapped: set[str]) -> str:
    parts = name.split(".")
    paths = (".".join(parts[: i + 1]) for i in range(len(parts)))
    return ".".join(
        part for part, path in zip(parts, paths, strict=True) if part != "_orig_mod" and path not in wrapped
    )
