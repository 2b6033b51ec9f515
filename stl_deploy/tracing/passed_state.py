"""State that the caller passes from step to step: ``s, v = model(x, v)``.

With ``time="step"`` capture is the caller, so it passes on what forward returns. Called with x alone, a model with such
a memory would be captured as one without.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from stl_deploy.errors import CaptureError

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass
class PassedState:
    """The state that forward takes after x, by argument name.

    names: the arguments whose default is None. values: what they get at the next step; none before the first.
    """

    names: tuple[str, ...]
    values: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, model: nn.Module) -> PassedState | None:
        """The state arguments of a model's forward; None if it takes x alone.

        Raises CaptureError for another argument that has no default.
        """
        try:
            first, *others = inspect.signature(model.forward).parameters.values()
        except (TypeError, ValueError):
            return None
        for one in others:
            if one.kind not in _VARIADIC and one.default is one.empty:
                raise CaptureError(
                    f"forward expects '{one.name}' besides x, and time='step' gives it x alone at the first step; give "
                    f"it a default, {one.name}=None, and make the state at rest from that"
                )
        names = [one.name for one in others if one.kind not in _VARIADIC and one.default is None]
        names += [f"{'*' * (one.kind.value // 2)}{one.name}" for one in (first, *others) if one.kind in _VARIADIC]
        return cls(tuple(names)) if names else None

    def take(self, found: Any) -> None:
        """Keep the state that forward returned after its output.

        Raises CaptureError where what it returned does not match its arguments.
        """
        if isinstance(found, Mapping) and set(self.names) <= set(found):
            self.values = {name: found[name] for name in self.names}
            return
        returned = list(found) if isinstance(found, tuple | list) else [found]
        if isinstance(found, Tensor) or len(returned) == 1:
            return
        if len(returned) != 1 + len(self.names) or isinstance(found, Mapping) or self.names[-1].startswith("*"):
            expected = ", ".join(("output", *self.names))
            raise CaptureError(
                f"forward takes {', '.join(self.names)} besides x and returns {len(returned)} values, so time='step' "
                f"cannot tell which of them is the state of the next step: return ({expected}), or keep the state in "
                "the module and clear it in a method reset()"
            )
        self.values = dict(zip(self.names, returned[1:], strict=True))
