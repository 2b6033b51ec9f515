"""Pass the caller's state from step to step: ``s, v = model(x, v)``.

With ``time="step"`` capture is the caller, so it passes on what forward returns. Called with x alone, a model with such
a memory would be captured as one without.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from stl_deploy._util.units import counted
from stl_deploy.errors import CaptureError
from stl_deploy.tracing.returned import Pick, fields_of, tensors_in

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass
class PassedState:
    """The state that forward takes after x, by argument name.

    names: the arguments that have a default which is no option (a bool or a string). variadic: ``*args`` or
    ``**kwargs`` is among them. values: what they get at the next step; none before the first.
    """

    names: tuple[str, ...]
    variadic: bool
    values: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, model: nn.Module) -> PassedState | None:
        """Return the state arguments of a model's forward; None if it takes x alone.

        Raises CaptureError for another argument that has no default.
        """
        try:
            first, *others = inspect.signature(model.forward).parameters.values()
        except (TypeError, ValueError):
            return None
        for arg in others:
            if arg.kind not in _VARIADIC and arg.default is arg.empty:
                raise CaptureError(
                    f"forward expects '{arg.name}' besides x, and time='step' gives it x alone at the first step; give "
                    f"it a default, {arg.name}=None, and make the state at rest from that; or, if it is an input, give "
                    "capture a tuple of both"
                )
        states = [arg for arg in others if arg.kind not in _VARIADIC and not isinstance(arg.default, bool | str)]
        variadic = [arg for arg in (first, *others) if arg.kind in _VARIADIC]
        names = [arg.name for arg in states] + [str(arg).partition(":")[0] for arg in variadic]
        return cls(tuple(names), bool(variadic)) if names else None

    def take(self, result: Any, output: Pick) -> None:
        """Keep the state that forward returned beside its output.

        Raises CaptureError where what it returned does not match its arguments.
        """
        named = fields_of(result)
        if isinstance(named, Mapping) and set(self.names) <= set(named):
            self.values = {name: named[name] for name in self.names}
            return
        returned = list(result) if isinstance(result, tuple | list) else []
        if len(list(tensors_in(result))) == 1 and len(returned) != 1 + len(self.names):
            return
        at = output if isinstance(output, int) else 0
        if len(returned) != 1 + len(self.names) or not -len(returned) <= at < len(returned) or self.variadic:
            count = len(named) if isinstance(named, Mapping | tuple | list) else 1
            raise CaptureError(
                f"forward takes {', '.join(self.names)} besides x and returns {counted(count, 'value')}, so "
                "time='step' cannot tell which of them is the state of the next step: return "
                f"{', '.join(('output', *self.names))}, or keep the state in the module and clear it in reset()"
            )
        del returned[at]
        self.values = dict(zip(self.names, returned, strict=True))
