"""Errors that stl-deploy raises on purpose.

    StlDeployError
    ├── InputError           a file, array or option is not what was asked for
    │   ├── GraphError       a NIR graph cannot be read as a network (names the node)
    │   └── ConfigError      a configuration key or value is wrong (names the key)
    ├── CheckFailed          the work was done and its check failed
    │   ├── ParityError      an artifact does not spike like the model
    │   ├── UnsupportedError a target cannot hold the network (names node and remedy)
    │   ├── DivergedError    training met NaN or infinity (names the layer)
    │   └── CaptureError     a torch module has no form as a graph, or its graph does not spike like it
    └── ToolError            an outside tool (Lava, a compiler) is missing, failed or timed out

A message is one sentence: where, what was expected, what was found, how to fix it.
``exit_code`` is what the command line returns: 2 for wrong input, 1 for a failed check.
"""

from __future__ import annotations

import re
import sys
from typing import Any, ClassVar


class Remedy(str):
    """A remedy in the words of the interface that the reader uses: Python's, or the command line's."""

    on_command_line: ClassVar[bool] = False
    python: str
    command_line: str

    def __new__(cls, python: str, command_line: str | None = None) -> Remedy:
        """Phrase it for the present interface; without words of its own, the command line takes Python's."""
        spoken = python if command_line is None else command_line
        made = super().__new__(cls, spoken if cls.on_command_line else python)
        made.python, made.command_line = python, spoken
        return made


_PLACE = re.compile(r"(\S+|[/.].*?): ")
"""A path, an option, a key or a line that a message begins with."""


class StlDeployError(Exception):
    """Base of every error that stl-deploy raises on purpose.

    slug: a short stable name of what is wrong, for scripts; the default names class and module, as
    ``input-runs-source``. where: the file, node, option or line; default: the place that the message begins with, as in
    "net.npz: expected x". reason: the message without ``where`` and ``remedy``. remedy: what to do, if it is known.
    """

    exit_code: int = 2
    place: ClassVar[str] = "{}"
    """Form of ``where`` in the message."""

    def __init__(
        self, reason: str = "", *, slug: str | None = None, where: object = None, remedy: str | None = None
    ) -> None:
        self.reason = reason
        self.slug = slug or default_slug(type(self).__name__, _raising_module())
        place = _PLACE.match(reason)
        self.where = str(where) if where is not None else place and place[1]
        self.remedy = remedy if remedy is None or isinstance(remedy, Remedy) else Remedy(remedy)
        message = reason if where is None else f"{self.place.format(where)}: {reason}"
        super().__init__(message if remedy is None else f"{message}; {remedy}")

    def __reduce__(self) -> Any:
        """Keep slug and place between processes, whatever the arguments of a class are."""
        return type(self).__new__, (type(self), *self.args), self.__dict__

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON twin."""
        return {"slug": self.slug, "message": str(self), "where": self.where}


def default_slug(kind: str, module: str) -> str:
    """Name an error by its class and the module that raises it: ``input-runs-source``."""
    room = re.sub(r"^stl_deploy\.(exporters\.)?", "", module)
    parts = [*re.findall("[A-Z][a-z]+", kind.removesuffix("Error")), *re.split(r"[._]+", room)]
    return "-".join(part.lower() for part in parts if part)


def _raising_module() -> str:
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals["__name__"] == __name__:
        frame = frame.f_back
    return str(frame.f_globals["__name__"])


class InputError(StlDeployError):
    """A file, array or option is not what was asked for."""


class GraphError(InputError):
    """A NIR graph cannot be read as a network; ``node`` is the one at fault, None if the whole graph is."""

    place = "node '{}'"

    def __init__(self, reason: str, *, node: str | None = None, slug: str = "bad-graph") -> None:
        super().__init__(reason, slug=slug, where=node)
        self.node = node


class ConfigError(InputError):
    """A configuration key or value is wrong."""


class CheckFailed(StlDeployError):
    """The work was done and its check failed."""

    exit_code = 1


class ParityError(CheckFailed):
    """An artifact does not spike like the model it was made from."""


class UnsupportedError(CheckFailed):
    """A target cannot hold the network; ``node``, ``slug`` and ``remedy`` say where, why and what to do."""

    place = "node '{}'"
    remedy: Remedy

    def __init__(self, reason: str, *, node: str, slug: str, remedy: str) -> None:
        super().__init__(reason, slug=slug, where=node, remedy=remedy)
        self.node = node

    def with_remedy(self, remedy: str) -> UnsupportedError:
        """Return the same refusal with another remedy."""
        return UnsupportedError(self.reason, node=self.node, slug=self.slug, remedy=remedy)


class DivergedError(CheckFailed):
    """Training met NaN or infinite values; the last good checkpoint is kept."""


class CaptureError(CheckFailed):
    """A torch module cannot be expressed as a graph, or its graph does not spike like it.

    ``line`` is the line in the user's file ("net.py:31"), or None. ``layer``, ``step`` and ``neuron`` (its index in the
    layer) locate the first difference between graph and module; None if nothing was compared.
    """

    def __init__(
        self,
        reason: str,
        *,
        line: str | None = None,
        layer: str | None = None,
        step: int | None = None,
        neuron: tuple[int, ...] | None = None,
        slug: str | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(reason, slug=slug, where=line or None, remedy=remedy)
        self.where = self.where or layer
        self.line = line
        self.layer = layer
        self.step = step
        self.neuron = neuron


class ToolError(StlDeployError):
    """An outside tool (Lava's side environment, a compiler) is missing, failed or timed out."""

    exit_code = 1


class UnavailableError(ToolError):
    """The call names a backend that this machine cannot run."""

    exit_code = 2
