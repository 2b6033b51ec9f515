"""Evaluate a neuron's elementwise arithmetic on numbers, to find its coefficients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from stl_deploy.tracing.nodes import replace_nodes
from stl_deploy.tracing.operations import map_tree
from stl_deploy.tracing.remedies import CONDITIONS
from stl_deploy.tracing.steps import NoNeuronError, Ref, Signal
from stl_deploy.tracing.thresholds import is_elementwise

_MAGNITUDES = 256
"""Numbers that a neuron's arithmetic is tried on, at least."""


class Evaluation:
    """Evaluate elementwise signals on numbers, with some of them given.

    given: by (signal, lag). Numbers are float64 (or the recorded types, if ``exact``), so that coefficients can be read
    off; what is asked for and neither given nor elementwise raises `Unknown`. passing: signals in whose place the one
    that they are made of is taken.
    """

    def __init__(
        self,
        given: Callable[[Signal, int], Tensor | None],
        *,
        exact: bool = False,
        passing: Mapping[Signal, Ref] | None = None,
    ) -> None:
        self.given, self.exact, self.passing = given, exact, passing or {}
        self._known: dict[tuple[Signal, int], Tensor] = {}

    def __call__(self, signal: Signal, lag: int) -> Tensor:
        """Return the value of a signal ``lag`` steps ago."""
        key = (signal, lag)
        if key not in self._known:
            given = self.given(signal, lag)
            self._known[key] = self._computed(signal, lag) if given is None else given
        return self._known[key]

    def _computed(self, signal: Signal, lag: int) -> Tensor:
        if signal in self.passing:
            return self(self.passing[signal].signal, lag + self.passing[signal].lag)
        name = signal.node.name
        if lag > 2 or not is_elementwise(signal) or name in ("reshape", "expand"):
            raise Unknown
        args, kwargs = map_tree((signal.args, signal.kwargs), Ref, lambda ref: self(ref.signal, lag + ref.lag))
        args, kwargs = replace_nodes((args, kwargs), lambda node: self._number(node.tensor))
        if name == "_to_copy" and not self.exact:
            to_bool = signal.node.dtype == torch.bool
            return args[0] != 0 if to_bool else args[0].double()  # type: ignore[no-any-return]
        if name == "where" and args[0].dtype != torch.bool:
            args = (args[0] != 0, *args[1:])
        if name in CONDITIONS and any(arg.dtype != torch.bool for arg in args):
            raise NoNeuronError(signal)
        value = signal.node.run(args, kwargs, {})
        return value if self.exact or value.dtype == torch.bool else value.double()

    def _number(self, tensor: Tensor | None) -> Tensor:
        assert tensor is not None
        return tensor.double() if tensor.is_floating_point() and not self.exact else tensor


def scattered(shape: Sequence[int], kinds: int) -> Iterator[list[Tensor]]:
    """Yield numbers of magnitudes from 2^-20 to 2^20, another for each neuron: ``kinds`` tensors of ``shape``.

    All neurons share their code, so that a few hundred numbers meet most of its bends and bounds.
    """
    numbers = torch.Generator().manual_seed(0)
    for _ in range(max(1, _MAGNITUDES // math.prod(shape))):
        size = 2.0 ** (40 * torch.rand(*shape, dtype=torch.float64, generator=numbers) - 20)
        yield [size * torch.randn(*shape, dtype=torch.float64, generator=numbers).clamp(-3, 3) for _ in range(kinds)]


class Unknown(Exception):
    """A value that an evaluation was not given."""
