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


class StlDeployError(Exception):
    """Base of every error that stl-deploy raises on purpose."""

    exit_code: int = 2


class InputError(StlDeployError):
    """A file, array or option is not what was asked for."""


class GraphError(InputError):
    """A NIR graph cannot be read as a network.

    ``node`` is the name of the node at fault, or ``None`` if the whole graph is;
    ``slug`` is a short stable name of the finding for scripts.
    """

    def __init__(self, message: str, *, node: str | None = None, slug: str = "bad-graph") -> None:
        super().__init__(f"node '{node}': {message}" if node is not None else message)
        self.node = node
        self.slug = slug
        self.reason = message


class ConfigError(InputError):
    """A configuration key or value is wrong."""


class CheckFailed(StlDeployError):
    """The work was done and its check failed."""

    exit_code = 1


class ParityError(CheckFailed):
    """An artifact does not spike like the model it was made from."""


class UnsupportedError(CheckFailed):
    """A target cannot hold the network; ``node``, ``slug`` and ``remedy`` say where, why and what to do."""

    def __init__(self, message: str, *, node: str, slug: str, remedy: str) -> None:
        super().__init__(f"node '{node}': {message}; {remedy}")
        self.node = node
        self.slug = slug
        self.reason = message
        self.remedy = remedy


class DivergedError(CheckFailed):
    """Training met NaN or infinite values; the last good checkpoint is kept."""


class CaptureError(CheckFailed):
    """A torch module cannot be expressed as a graph, or its graph does not spike like it.

    ``line`` is the line in the user's file ("net.py:31"), or None. ``layer``, ``step`` and ``neuron`` (its index in the
    layer) locate the first difference between graph and module; None if nothing was compared.
    """

    def __init__(
        self,
        message: str,
        *,
        line: str | None = None,
        layer: str | None = None,
        step: int | None = None,
        neuron: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__(f"{line}: {message}" if line else message)
        self.line = line
        self.layer = layer
        self.step = step
        self.neuron = neuron
        self.reason = message


class ToolError(StlDeployError):
    """An outside tool (Lava's side environment, a compiler) is missing, failed or timed out."""

    exit_code = 1


class UnavailableError(ToolError):
    """The call names a backend that this machine cannot run."""

    exit_code = 2
