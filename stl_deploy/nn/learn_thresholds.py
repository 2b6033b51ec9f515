"""Turn fixed thresholds of a framework's neurons into trained parameters.

snnTorch keeps its threshold in a buffer that broadcasts, Norse in a tuple of tensors. SpikingJelly's operators take one
float and would silently drop a parameter's gradient. Neurons are recognised by class name, so no framework is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from stl_deploy._util.remedies import require_one_of
from stl_deploy.config.schema import Granularity
from stl_deploy.errors import InputError
from stl_deploy.nn.neuron import LIF, expand_threshold, threshold_shape


@dataclass(frozen=True)
class _Kind:
    """A framework's neurons: reading and replacing a threshold, and the first axis of a neuron's shape."""

    read: Callable[[nn.Module], Tensor]
    replace: Callable[[nn.Module, nn.Parameter], None]
    leading: Callable[[nn.Module], int]


def learn_thresholds(model: nn.Module, granularity: Granularity = "neuron") -> tuple[str, ...]:
    """Make every spiking layer's threshold a parameter, in place; return the layers' names.

    Thresholds start at their present values. If a layer's shape is unknown before it runs, its parameter gets its size
    with the first batch, in place, so an optimiser may already hold it. This package's `LIF` becomes trainable, too.
    Thresholds are free parameters: keep them above 0, for instance with a small learning rate.

    Args:
        model: Module with spiking layers of snnTorch, Norse or this package.
        granularity: One threshold per neuron, per channel (first axis of a neuron's shape) or per layer.

    Raises:
        InputError: For SpikingJelly's neurons, whose threshold cannot learn (names the layer), and for a model without
            spiking neurons; the model is then unchanged. Also for thresholds finer than ``granularity``.

    Examples:
        >>> model = nn.Sequential(nn.Linear(784, 100), snntorch.Leaky(beta=0.9, init_hidden=True))
        >>> stl_deploy.learn_thresholds(model, granularity="neuron")
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"expected a torch.nn.Module; found a {type(model).__name__}")
    require_one_of(granularity, Granularity, "granularity")
    modules = [(name or "model", module, _kind(name or "model", module)) for name, module in model.named_modules()]
    neurons = [(name, module, kind) for name, module, kind in modules if kind is not None]
    if not neurons:
        raise InputError("expected spiking neurons of stl.LIF, snnTorch or Norse in the model; found none")
    for _, module, kind in neurons:
        if isinstance(module, LIF):
            module.learn_thresholds(granularity)
        elif kind != "ours":
            _learn(module, kind, granularity)
    return tuple(name for name, _, _ in neurons)


def _kind(name: str, module: nn.Module) -> _Kind | Literal["ours"] | None:
    classes = {f"{cls.__module__.partition('.')[0]}.{cls.__name__}" for cls in type(module).__mro__}
    if isinstance(module, LIF):
        return "ours"
    if "snntorch.SpikingNeuron" in classes:
        return _SNNTORCH if isinstance(getattr(module, "threshold", None), Tensor) else None
    if "spikingjelly.BaseNode" in classes:
        raise InputError(
            f"layer '{name}': SpikingJelly's {type(module).__name__} takes its threshold as one float, which cannot "
            "learn; put stl_deploy.LIF in its place, or a subclass with a step of its own"
        )
    if classes & {"norse.SNN", "norse.SNNCell", "norse.SNNRecurrent", "norse.SNNRecurrentCell"}:
        held = getattr(module, "p", None)
        return _NORSE if isinstance(getattr(held, "v_th", None), Tensor) and hasattr(held, "_replace") else None
    return None


def _learn(module: nn.Module, kind: _Kind, granularity: Granularity) -> None:
    before = kind.read(module).detach()
    hidden = getattr(module, "hidden_size", None)  # of a recurrent layer of Norse's
    if granularity == "layer" or hidden is not None:
        size = threshold_shape(() if hidden is None else (int(hidden),), granularity)
        kind.replace(module, nn.Parameter(expand_threshold(before, size)))
        return
    parameter = UninitializedParameter()
    kind.replace(module, cast(nn.Parameter, parameter))

    def settle(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        handle.remove()
        size = threshold_shape(tuple(inputs[0].shape[kind.leading(module) :]), granularity)
        with torch.no_grad():
            values = expand_threshold(before, size)
            parameter.materialize(size, device=before.device, dtype=before.dtype)
            parameter.copy_(values)

    handle = module.register_forward_pre_hook(settle)


def _replace_snntorch(module: nn.Module, parameter: nn.Parameter) -> None:
    module._buffers.pop("threshold", None)
    module._parameters.pop("threshold", None)
    module.register_parameter("threshold", parameter)


def _replace_norse(module: nn.Module, parameter: nn.Parameter) -> None:
    module.register_parameter("v_th", parameter)
    held = cast(Any, module).p
    cast(Any, module).p = held._replace(v_th=parameter)


_SNNTORCH = _Kind(lambda m: cast(Tensor, m.threshold), _replace_snntorch, lambda _: 1)
_NORSE = _Kind(
    lambda m: cast(Tensor, cast(Any, m).p.v_th),
    _replace_norse,
    lambda m: 1 if type(m).__name__.endswith("Cell") else 2,  # a cell takes [B, ...], a module [T, B, ...]
)
