"""Numbers that a model reads from tensors for monitoring: a firing rate by ``.item()``, a histogram by ``.numpy()``.

While a model is recorded, it gets `Watched` in their place: an object that can be added up, kept and written into
text, but not used in decisions or torch operations. So monitoring does no harm, and numbers that affect the output are
refused. Their `Text` can be kept and printed, but not compared or searched. An f-string of several parts makes plain
text of it. So the proof's runs get other text than the first run, and most branches on plain text show as differences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial, partialmethod
from typing import Any, Protocol

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode

from stl_deploy.errors import CaptureError

_LEAVES = (
    *("item", "numpy", "tolist", "__array__", "__dlpack__", "__deepcopy__", "__reduce_ex__"),
    *("apply_", "map_", "map2_"),
)
"""Methods of a tensor that hand out its values."""
_WATCHES = ("item", "numpy", "tolist")
"""Those whose results a model may keep to watch them."""
_SET_DATA = Tensor.data.__set__  # type: ignore[attr-defined]
TEXT = ("__format__", "__repr__", "__str__")
SIZES = ("size", "numel", "nelement", "__len__")
_SIZES = (*(getattr(Tensor, name) for name in SIZES), Tensor.shape.__get__, Tensor.nbytes.__get__)  # type: ignore[attr-defined]
_IN_PROOFS = "-0123456789."
"""Text of every value in the proof's runs: it parses as a number and has all characters that a number may have."""
_KEEPS_TEXT = ("strip", "lstrip", "rstrip", "ljust", "rjust", "center", "zfill", "replace", "lower", "upper")
"""Methods of text that return `Text`; the others are refused."""
_WRITES = (
    *("copyto", "put", "place", "putmask", "put_along_axis", "fill_diagonal"),
    *("fill", "itemset", "partition", "resize", "setfield", "setflags", "sort"),
)
"""numpy's functions and methods that write into an array, which may be a tensor's memory."""


def reading(line: str | None) -> CaptureError:
    """Return the refusal of code that reads a value that depends on the input."""
    return CaptureError(
        "the code reads a value that depends on the input (if, float(), a boolean index), so it may do something else "
        "for another input; write it with torch.where; what is only watched (a firing rate) may be kept by .item() or "
        ".detach()",
        line=line,
    )


class Watched:
    """A number, or several, that depend on the input: to be kept and added up, but neither compared nor written into.

    refusal: the error for code that uses them otherwise. text: in place of the number's; None for that of NaN.
    """

    __slots__ = ("_refusal", "_text")

    def __init__(self, refusal: Callable[[], CaptureError], text: str | None = None) -> None:
        object.__setattr__(self, "_refusal", refusal)
        object.__setattr__(self, "_text", text)

    def refuse(self) -> CaptureError:
        """Return the error for code that does more than monitor."""
        refusal: Callable[[], CaptureError] = object.__getattribute__(self, "_refusal")
        return refusal()

    def __getattr__(self, name: str) -> Watched:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in _WRITES:
            raise self.refuse()
        return self

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Watched:
        return self._of_numpy(func, args, kwargs)

    def __array_ufunc__(self, func: Any, method: str, *args: Any, **kwargs: Any) -> Watched:
        return self._of_numpy(func, args, kwargs)

    def _of_numpy(self, func: Any, args: Any, kwargs: Any) -> Watched:
        into = leaves(kwargs.get("out"))
        if func.__name__ in _WRITES or any(isinstance(each, Watched) for each in into):
            raise self.refuse()
        return _same(self, *args)

    def __format__(self, spec: str) -> Text:
        text: str | None = object.__getattribute__(self, "_text")
        try:
            return Text(format(float("nan"), spec) if text is None else text, self.refuse)
        except ValueError:
            return Text("(depends on the input)", self.refuse)

    def __repr__(self) -> str:
        text: str | None = object.__getattribute__(self, "_text")
        return Text("(depends on the input)" if text is None else text, self.refuse)


class Text(str):
    """Text of numbers that depend on the input. refusal: the error for code that does more than keep or print it."""

    __slots__ = ("refusal",)
    refusal: Callable[[], CaptureError]

    def __new__(cls, text: str, refusal: Callable[[], CaptureError]) -> Text:  # noqa: D102
        made = super().__new__(cls, text)
        made.refusal = refusal
        return made

    def refuse(self) -> CaptureError:
        """Return the error for code that does more than keep or print it."""
        return self.refusal()

    def __format__(self, spec: str) -> str:
        return Text(super().__format__(spec), self.refusal)

    def __add__(self, other: str) -> Text:
        return Text(super().__add__(other), self.refusal)

    def __radd__(self, other: str) -> Text:
        return Text("".join((other, self)), self.refusal)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return str, ("".join((self, "")),)


def _same(self: Watched, *args: Any, **kwargs: Any) -> Watched:
    if any(isinstance(arg, Tensor) for arg in args):
        raise self.refuse()
    return self


def _refused(self: Watched | Text, *args: Any, **kwargs: Any) -> Any:
    raise self.refuse()


def _text_of(self: Text, method: Callable[..., str], *args: Any, **kwargs: Any) -> Text:
    return Text(method(self, *args, **kwargs), self.refusal)


_ARITHMETIC = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "divmod", "and", "or", "xor")
for _name in _ARITHMETIC:
    setattr(Watched, f"__{_name}__", _same)
    setattr(Watched, f"__r{_name}__", _same)
for _name in ("neg", "pos", "abs", "invert", "round", "call", "getitem"):
    setattr(Watched, f"__{_name}__", _same)
_DECISIONS = (
    *("lt", "le", "gt", "ge", "eq", "ne", "contains", "hash"),
    *("bool", "float", "int", "index", "complex", "iter"),
)
for _name in _DECISIONS:
    setattr(Watched, f"__{_name}__", _refused)
    setattr(Text, f"__{_name}__", _refused)
for _name in ("setattr", "setitem", "delitem"):
    setattr(Watched, f"__{_name}__", _refused)
for _name in ("__len__", "__getitem__", *(name for name in dir(str) if not name.startswith("_"))):
    setattr(Text, _name, partialmethod(_text_of, getattr(str, _name)) if _name in _KEEPS_TEXT else _refused)


_SEQUENCES = (tuple, list)


def leaves(tree: Any) -> list[Any]:
    """Return everything in nested tuples, lists and dicts."""
    ends: list[Any] = []
    _collect((tree,), ends)
    return ends


def _collect(trees: Iterable[Any], ends: list[Any]) -> None:
    for tree in trees:
        if isinstance(tree, _SEQUENCES):
            _collect(tree, ends)
        elif isinstance(tree, dict):
            _collect(tree.values(), ends)
        else:
            ends.append(tree)


class Records(Protocol):
    """The parts of a `stl_deploy.tracing.recording.recorder.Recorder` that `Leaks` asks."""

    keeps: bool

    def is_constant(self, args: Any) -> bool:
        """Return whether no tensor among ``args`` depends on the input."""
        ...

    def is_made_outside(self, tensor: Tensor) -> bool:
        """Return whether no operation made a constant."""
        ...

    def is_selection(self, tensor: Tensor) -> bool:
        """Return whether it depends on the input how many values a tensor has."""
        ...

    def leaving(self, name: str) -> CaptureError:
        """Return the refusal of a method that hands out values."""
        ...

    def rebind(self, tensor: Tensor, data: Tensor) -> None:
        """Follow ``tensor.data = data``."""
        ...


class Leaks(TorchFunctionMode):
    """Watch each call of torch's Python interface for one that hands out values. watched: the last one's name."""

    def __init__(self, recorder: Records) -> None:
        super().__init__()
        self.recorder = recorder
        self.watched = ""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        for item in leaves((args, kwargs or {})):
            if isinstance(item, Watched | Text):
                raise item.refuse()
        if name in (*_LEAVES, *TEXT) and not self.recorder.is_constant(args[:1]):
            watched = Watched(partial(self.recorder.leaving, name), _IN_PROOFS if self.recorder.keeps else None)
            self.watched = name
            if name in TEXT:
                return format(watched, args[1]) if name == "__format__" else repr(watched)
            if name not in _WATCHES:
                raise watched.refuse()
            return watched
        if (func in _SIZES or func is torch.numel) and self.recorder.is_selection(args[0]):
            raise self.recorder.leaving(SIZES[0])
        if func == _SET_DATA:
            self.recorder.rebind(*args)
            return None
        made = func(*args, **(kwargs or {}))
        recorded = isinstance(func, OpOverload)
        if not recorded and isinstance(made, Tensor) and self.recorder.is_made_outside(made):
            read = args[1:] if hasattr(Tensor, name) else args  # x.new_tensor(...) reads the type of x
            if not self.recorder.is_constant((read, kwargs)):
                raise self.recorder.leaving(name)
        return made
