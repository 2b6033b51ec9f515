"""Numbers that a model reads from tensors for monitoring: a firing rate by ``.item()``, a histogram by ``.numpy()``.

While a model is recorded, it gets `Watched` in their place: an object that can be added up, kept and written into
text, but not used in decisions or torch operations. So monitoring does no harm, and numbers that affect the output are
refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from stl_deploy.errors import CaptureError

if TYPE_CHECKING:
    from stl_deploy.tracing.recorder import Recorder


_LEAVES = ("item", "numpy", "tolist", "__array__", "__dlpack__", "__deepcopy__", "__reduce_ex__")
"""Methods of a tensor that hand out its values."""
_WATCHES = ("item", "numpy", "tolist")
"""Those whose results a model may keep to watch them."""
_SET_DATA = Tensor.data.__set__  # type: ignore[attr-defined]
_TEXT = ("__format__", "__repr__", "__str__")


def reading(line: str | None) -> CaptureError:
    """Return the refusal of code that reads a value that depends on the input."""
    return CaptureError(
        "the code reads a value that depends on the input (if, float(), a boolean index), so it may do something else "
        "for another input; write it with torch.where; what is only watched (a firing rate) may be kept by .item() or "
        ".detach()",
        line=line,
    )


class Watched:
    """A number, or several, that depend on the input. refusal: the error for code that uses them otherwise."""

    __slots__ = ("_refusal",)
    __hash__ = object.__hash__

    def __init__(self, refusal: Callable[[], CaptureError]) -> None:
        object.__setattr__(self, "_refusal", refusal)

    def refuse(self) -> CaptureError:
        """Return the error for code that does more than monitor."""
        refusal: Callable[[], CaptureError] = object.__getattribute__(self, "_refusal")
        return refusal()

    def __getattr__(self, name: str) -> Watched:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __format__(self, spec: str) -> str:
        try:
            return format(float("nan"), spec)
        except ValueError:
            return str(self)

    def __repr__(self) -> str:
        return "(depends on the input)"


def _same(self: Watched, *args: Any, **kwargs: Any) -> Watched:
    if any(isinstance(arg, Tensor) for arg in args):
        raise self.refuse()
    return self


def _refused(self: Watched, *args: Any) -> Any:
    raise self.refuse()


_ARITHMETIC = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "divmod", "and", "or", "xor")
for _name in _ARITHMETIC:
    setattr(Watched, f"__{_name}__", _same)
    setattr(Watched, f"__r{_name}__", _same)
for _name in ("neg", "pos", "abs", "invert", "round", "call", "getitem", "array_ufunc", "array_function"):
    setattr(Watched, f"__{_name}__", _same)
for _name in (
    "lt",
    "le",
    "gt",
    "ge",
    "eq",
    "ne",
    "bool",
    "float",
    "int",
    "index",
    "complex",
    "len",
    "iter",
    "contains",
):
    setattr(Watched, f"__{_name}__", _refused)


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, tuple | list):
        for item in tree:
            yield from _leaves(item)
    elif isinstance(tree, dict):
        yield from _leaves(tuple(tree.values()))
    else:
        yield tree


class Leaks(TorchFunctionMode):
    """Watch each call of torch's Python interface for one that hands out values. watched: the last one's name."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder
        self.watched = ""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        for item in _leaves((args, kwargs or {})):
            if isinstance(item, Watched):
                raise item.refuse()
        if name in (*_LEAVES, *_TEXT) and not self.recorder.is_constant(args[:1]):
            watched = Watched(partial(self.recorder.leaving, name))
            self.watched = name
            if name in _TEXT:
                return format(watched, args[1]) if name == "__format__" else str(watched)
            if name not in _WATCHES:
                raise watched.refuse()
            return watched
        if func == _SET_DATA:
            self.recorder.rebind(*args)
            return None
        return func(*args, **(kwargs or {}))
