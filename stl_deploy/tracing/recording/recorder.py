"""Record one run of a model as values and the ATen operations between them.

Values are immutable. Where torch writes into a tensor (``out=``, ``v[z > 0] = 0``, ``out[t] = z``), the tensor's memory
gets a new value, and every view of that memory is read anew from it. Operators that are not torch's own are entered:
what their kernels call is recorded in their place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from operator import ge
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils.weak import WeakIdKeyDictionary

from stl_deploy._util.remedies import option
from stl_deploy.errors import CaptureError
from stl_deploy.tracing.recording.model_state import Weights, changes
from stl_deploy.tracing.recording.operations import COMPARES, ROUNDS, Op, Value, map_tree
from stl_deploy.tracing.recording.remedies import SPARSE
from stl_deploy.tracing.recording.selections import Selections
from stl_deploy.tracing.recording.source_lines import Place, place
from stl_deploy.tracing.recording.watched import SIZES, TEXT, Leaks, leaves, reading

_SHAPE_ONLY = {
    "zeros_like": 0.0,
    "new_zeros": 0.0,
    "ones_like": 1.0,
    "new_ones": 1.0,
    "empty_like": float("nan"),
    "new_empty": float("nan"),
    "empty": float("nan"),
    "empty_strided": float("nan"),
    "new_empty_strided": float("nan"),
    "full_like": None,
    "new_full": None,
}
"""Operations that take no more than the shape of a tensor, and what they fill theirs with (NaN: with nothing yet)."""
_PARTS = ("unbind", "split", "split_with_sizes", "chunk")
_DIVIDES = ("equal", "nonzero", "masked_select", "unique", "_unique2", "unique_consecutive", "nonzero_numpy")
_DRAWS = ("rand", "randn", "randint", "rand_like", "randn_like", "bernoulli")
_FAKE_QUANTISES = (
    "fake_quantize_per_tensor_affine_cachemask",
    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
)
_READS_SPARSE = ("_to_dense", "_to_copy", "_to_sparse", "_coalesce", "is_coalesced")
_POOLS = {
    "max_pool3d_with_indices": torch.ops.aten.max_pool2d_with_indices.default,
    "avg_pool3d": torch.ops.aten.avg_pool2d.default,
    "_adaptive_avg_pool3d": torch.ops.aten._adaptive_avg_pool2d.default,
    "adaptive_max_pool3d": torch.ops.aten.adaptive_max_pool2d.default,
}


@dataclass
class _View:
    """A step from a tensor to a view of it."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(eq=False)
class _Memory:
    """The memory that several tensors share: its present value, and each seen geometry's view of it."""

    value: Value
    version: int = 0
    views: dict[Any, tuple[_View, ...]] = field(default_factory=dict)
    keep: Any = None


@dataclass(eq=False)
class _Seen:
    memory: _Memory
    chain: tuple[_View, ...]
    version: int
    value: Value


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Record the operations of everything that runs inside ``with recorder:``.

    names: modules by id. weights: what may not be written into.
    keep: whether the results of comparisons and roundings are kept, to be compared with another run's.
    """

    def __init__(self, names: Mapping[int, str], weights: Weights, *, keep: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ops: list[Op] = []
        self._names, self._weights = names, weights
        self.keeps = keep
        self._seen = WeakIdKeyDictionary()
        self._drawn: dict[Value, CaptureError] = {}  # the refusal of random numbers that something reads
        self._memories: dict[int, tuple[Any, _Memory]] = {}
        self._selections = Selections(self.value_of, self.input)
        self._refusal: CaptureError | None = None

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Whether torch.compile is to be loaded, so that it leaves this class out; records run without it anyway."""
        return False

    def input(self, tensor: Tensor) -> Value:
        """Declare ``tensor`` an input of the run, or what no recorded operation makes of one."""
        value = Value(tuple(tensor.shape), tensor.dtype, constant=False)
        self._register(tensor, self._new_memory(tensor, value), (), value)
        return value

    def output(self, tensor: Tensor) -> Value:
        """Return the value of what the model returns; raise CaptureError if its size depends on the input."""
        if self.is_selection(tensor):
            raise reading(None)
        return self.value_of(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        try:
            return self._operation(func, args, dict(kwargs or {}))
        except CaptureError as error:
            raise self.refused(error) from error.__cause__

    def _operation(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if func.namespace not in ("aten", "prims", "prim"):
            return self._enter(func, args, kwargs)
        if is_composite(func):
            with self:
                return func.decompose(*args, **kwargs)  # as autograd does, unless in inference mode or an own operator
        name = _name(func)
        if name in _FAKE_QUANTISES and not self.is_constant(args):
            with self:
                return _fake_quantised(*args)
        if name == "adaptive_max_pool3d" and args[0].dim() == 5 and args[1][0] == 1:
            with self:  # the largest of all depth, then of each window
                args = (args[0].amax(2, keepdim=True), *args[1:])
        if name in _POOLS and _pools_images(name, *args):
            with self:
                return _by_image(_POOLS[name], *args)
        if name == "_convolution":  # as traced TorchScript calls it, with what cuDNN may do
            with self:
                return torch.convolution(*args[:9])
        where = place(self._names)
        if name == "div" and kwargs.get("rounding_mode") == "trunc":
            with self:
                return torch.trunc(torch.div(*args))
        if torch.Tag.nondeterministic_seeded in func.tags and not _is_certain(name, args):
            is_start = _draws_from_shape(func, args, kwargs)
            start = f"; where states start from them, give {option('start', 'zeros')}" if is_start else ""
            refusal = CaptureError(
                f"'{name}' draws random numbers, which in eval mode a model must not: give dropout "
                "training=self.training, encode the input before it is given to capture, and draw what stays the same "
                f"in __init__, as a buffer{start}",
                line=where.line,
                slug="random-numbers",
            )
            if name not in _DRAWS or not self.is_constant(args):
                raise refusal
            return self._draw(func(*args, **kwargs), refusal)
        if drawn := self._read_draw((args, kwargs)):
            if name == "mul" and any(map(self._is_zero, args)):
                return torch.zeros_like(func(*args))  # noise that is off
            if name == "index_select" and self._is_zero(args[0]):
                return func(*args)  # Sinabs draws from the states of another batch, which are at rest
            pure = torch.Tag.pointwise in func.tags and not _written(func, args, kwargs)
            if name == "detach" or (pure and self.is_constant((args, kwargs))):  # a mask that dropout may leave unread
                return self._draw(func(*args, **kwargs), drawn)
            raise drawn
        selected = self._selections.read(self, func, args, kwargs, reading(where.line))
        if selected is None and name == "index" and not self.is_constant(args[1:]):
            selected = self._selections.select(self, func, *args)
        if selected is not None:
            return selected
        if name in ("_local_scalar_dense", *_DIVIDES) or torch.Tag.dynamic_output_shape in func.tags:
            self._require_constant(args[1:] if name == "index" else args, where)
        if name in ("set_", "resize_", "as_strided_"):
            raise CaptureError(f"'{name}' changes a tensor's memory, which no graph can follow", line=where.line)
        if name not in _READS_SPARSE and any(map(_is_sparse, leaves((args, kwargs)))):
            raise CaptureError(f"'{name}' reads a sparse tensor; {SPARSE}", line=where.line)
        written = _written(func, args, kwargs)
        for _, tensor in written:
            self._freeze(tensor)
        before = map_tree((tuple(args), kwargs), Tensor, self.value_of)
        held = [(key, tensor, tensor.clone()) for _, tensor in written if (key := self._weights.name_of(tensor))]
        out = func(*args, **kwargs)
        for parameter, tensor, content in held:
            if not torch.equal(tensor, content):
                raise changes(parameter, where.line)
        self._record(name, func, args, written, before, out, where)
        return out

    def _draw(self, drawn: Tensor, refusal: CaptureError) -> Tensor:
        """Register random numbers, which may be read by nothing but a product with 0."""
        value = Value(tuple(drawn.shape), drawn.dtype, leaf=drawn)
        self._register(drawn, self._new_memory(drawn, value), (), value)
        self._drawn[value] = refusal
        return drawn

    def _read_draw(self, args: Any) -> CaptureError | None:
        """Return the refusal of random numbers among ``args``."""
        if not self._drawn:
            return None
        read = [self.value_of(item) for item in leaves(args) if isinstance(item, Tensor)]
        return next((self._drawn[value] for value in read if value in self._drawn), None)

    def _is_zero(self, factor: Any) -> bool:
        """Return whether a factor is 0 in every run."""
        if not isinstance(factor, Tensor):
            return bool(factor == 0)
        value = self.value_of(factor)
        return value.constant and value not in self._drawn and not bool(factor.any())

    def _enter(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operator's own kernel with recording on: its calls are recorded, values that leave torch are seen.

        Raises CaptureError where it makes a tensor of the input by code outside of torch.
        """
        with Leaks(self), self:
            made = func.redispatch(torch._C.DispatchKeySet(torch._C.DispatchKey.CPU), *args, **kwargs)
        outside = [item for item in leaves(made) if isinstance(item, Tensor) and self.is_made_outside(item)]
        if outside and not self.is_constant((args, kwargs)):
            raise self.leaving(str(func))
        return made

    @contextmanager
    def watching(self) -> Iterator[Leaks]:
        """Record the body, and watch for values that leave torch, which no operation shows.

        Raises the first refusal, whatever the body made of it.
        """
        try:
            with _copied_by_operations(), Leaks(self) as leaks, self:
                yield leaks
        except CaptureError as error:
            if self._refusal in (None, error):
                raise
            raise self._refusal from None
        if self._refusal is not None:
            raise self._refusal

    def refused(self, error: CaptureError) -> CaptureError:
        """Keep the first refusal, as the model's code may catch it."""
        self._refusal = self._refusal or error
        return error

    def rebind(self, tensor: Tensor, data: Tensor) -> None:
        """Follow ``tensor.data = data``."""
        name = self._weights.name_of(tensor)
        if name is not None and (tensor.dtype != data.dtype or not torch.equal(tensor, data)):
            raise self.refused(changes(name, place(self._names).line))
        tensor.data = data
        if tensor in self._seen:
            del self._seen[tensor]

    def is_constant(self, args: Any) -> bool:
        """Return whether no tensor among ``args`` depends on the input."""
        return all(self.value_of(tensor).constant for tensor in leaves(args) if isinstance(tensor, Tensor))

    def is_made_outside(self, tensor: Tensor) -> bool:
        """Return whether no operation made a constant: it holds Python's or numpy's numbers."""
        value = self.value_of(tensor)
        op = value.op
        if value in self._drawn:
            return False
        return value.constant and (op is None or (op.name == "lift_fresh" and op.args[0].op is None))

    def is_selection(self, tensor: Tensor) -> bool:
        """Return whether it depends on the input how many values a tensor has."""
        return tensor in self._selections

    def leaving(self, name: str, line: str | None = None) -> CaptureError:
        """Refuse a method that hands values that depend on the input to code outside torch, at ``line`` or here."""
        line = line or place(self._names).line
        if name in ("item", *TEXT, *SIZES):
            return self.refused(reading(line))
        return self.refused(
            CaptureError(
                f"'{name}' hands values that depend on the input to code outside of torch, whose results would be "
                "constants in the graph; compute with torch's own operations",
                line=line,
            )
        )

    def _require_constant(self, args: Any, where: Place) -> None:
        if not self.is_constant(args):
            raise reading(where.line)

    def _freeze(self, tensor: Tensor) -> None:
        """Keep a leaf's content before it is written into."""
        self.value_of(tensor)
        value = self._seen[tensor].memory.value
        if value.leaf is not None:
            value.leaf = value.leaf.clone()

    def _record(self, name: str, func: Any, args: Any, written: Any, before: Any, out: Any, where: Place) -> None:
        returns = func._schema.returns
        outputs = list(out) if isinstance(out, list | tuple) else [out]
        if written:
            if len(written) > 1 or name.startswith("_foreach"):
                raise CaptureError(
                    f"'{name}' writes into several tensors at once, which capture does not support", line=where.line
                )
            self._write(name.removesuffix("_"), func, written[0], before, where)
            return
        if not any(isinstance(item, Tensor) for item in outputs):
            if returns and name != "is_same_size":  # a Python number made of values (allclose)
                self._require_constant(args, where)
            return
        is_view = any(r.alias_info is not None and not r.alias_info.is_write for r in returns)
        is_view = is_view or (isinstance(out, list | tuple) and name in _PARTS)
        values = self._emit(name, func, before, outputs, where)
        base = next((item for item in leaves(args) if isinstance(item, Tensor)), None)
        for index, (tensor, value) in enumerate(zip(outputs, values, strict=True)):
            if not isinstance(tensor, Tensor):
                continue
            if is_view and base is not None and _share(tensor, base):
                seen = self._seen[base]
                step = _part(name, func, before, outputs, index)
                self._register(tensor, seen.memory, (*seen.chain, step), value)
            else:
                self._register(tensor, self._new_memory(tensor, value), (), value)

    def _emit(self, name: str, func: Any, before: Any, outputs: list[Any], where: Place) -> list[Value]:
        args, kwargs = before
        op = Op(name, func, args, kwargs, where)
        if name in _SHAPE_ONLY:
            first = next(item for item in outputs if isinstance(item, Tensor))
            fill = _SHAPE_ONLY[name]
            filled = (args[1] if name == "full_like" else args[2]) if fill is None else fill
            if isinstance(filled, float) and filled != filled and not first.dtype.is_floating_point:
                filled = 0
            op = Op(
                "full", torch.full, (list(first.shape), filled), {"dtype": first.dtype, "device": first.device}, where
            )
        constant = all(value.constant for value in op.inputs)
        made = []
        for index, tensor in enumerate(outputs):
            if isinstance(tensor, Tensor):
                value = Value(tuple(tensor.shape), tensor.dtype, op, index, None, constant, strides=tensor.stride())
                if self.keeps and not constant and (tensor.dtype == torch.bool or name in ROUNDS):
                    value.kept = tensor.detach().clone()
            else:
                value = Value((), torch.float32, op, index, None, constant)
            made.append(value)
        op.outputs = tuple(made)
        self.ops.append(op)
        return made

    def _write(self, name: str, func: Any, written: tuple[str | int, Tensor], before: Any, where: Place) -> None:
        key, tensor = written
        args, kwargs = before
        op = Op(name, func, args, kwargs, where, writes=key, within=_whole(tensor))
        value = Value(tuple(tensor.shape), tensor.dtype, op)
        value.constant = all(item.constant for item in op.inputs)
        op.outputs = (value,)
        self.ops.append(op)
        if self.keeps and not value.constant and (name in COMPARES or name in ROUNDS):
            value.kept = tensor.detach().clone() if name in ROUNDS else tensor.detach().to(torch.bool)
        seen = self._seen[tensor]
        parents = [seen.memory.value]
        for step in seen.chain:
            parents.append(self._view(parents[-1], step, where))
        for parent, step in zip(reversed(parents[:-1]), reversed(seen.chain), strict=True):
            value = self._scatter(parent, value, step, where)
        seen.memory.value = value
        seen.memory.version += 1

    def _view(self, parent: Value, step: _View, where: Place) -> Value:
        op = Op(_name(step.func), step.func, (parent, *step.args), step.kwargs, where)
        op.outputs = tuple(
            Value(tuple(t.shape), parent.dtype, op, i, None, parent.constant) for i, t in enumerate(_shapes(op, parent))
        )
        self.ops.append(op)
        return op.outputs[0]

    def _scatter(self, parent: Value, value: Value, step: _View, where: Place) -> Value:
        op = Op(_name(step.func), step.func, (parent, value, *step.args), step.kwargs, where, scatter=True)
        made = Value(parent.shape, parent.dtype, op, 0, None, parent.constant and value.constant)
        op.outputs = (made,)
        self.ops.append(op)
        return made

    def value_of(self, tensor: Tensor) -> Value:
        """Return the present value of a tensor; one from before the run is a leaf."""
        while torch._C._functorch.is_functorch_wrapped_tensor(tensor):  # inside of vmap
            tensor = torch._C._functorch.get_unwrapped(tensor)
        known: _Seen | None = self._seen.get(tensor)  # type: ignore[no-untyped-call]
        seen = self._find(tensor) if known is None else known
        if seen.version != seen.memory.version:
            value = seen.memory.value
            for step in seen.chain:
                value = self._view(value, step, place(self._names))
            seen.value, seen.version = value, seen.memory.version
        return seen.value

    def _find(self, tensor: Tensor) -> _Seen:
        """Return the value of an unseen tensor: an alias made without an operation (``.data``), or a leaf."""
        if not tensor.is_complex() and tensor.layout == torch.strided:
            memory = self._memory(tensor)
            if memory is not None and _geometry(tensor) in memory.views:
                return self._register(tensor, memory, memory.views[_geometry(tensor)], None)
        value = Value(tuple(tensor.shape), tensor.dtype, leaf=tensor.detach())
        memory = self._new_memory(tensor, value)
        return self._register(tensor, memory, (), value)

    def _memory(self, tensor: Tensor) -> _Memory | None:
        entry = self._memories.get(tensor.untyped_storage()._cdata)
        return None if entry is None or entry[0].expired() else entry[1]

    def _new_memory(self, tensor: Tensor, value: Value) -> _Memory:
        memory = _Memory(value)
        if tensor.layout == torch.strided:
            from torch.multiprocessing.reductions import StorageWeakRef

            storage = tensor.untyped_storage()
            self._memories[storage._cdata] = (StorageWeakRef(storage), memory)  # type: ignore[no-untyped-call]
        return memory

    def _register(self, tensor: Tensor, memory: _Memory, chain: tuple[_View, ...], value: Value | None) -> _Seen:
        if tensor.layout == torch.strided:
            memory.views.setdefault(_geometry(tensor), chain)
        seen = _Seen(memory, chain, memory.version if value is not None else -1, value)  # type: ignore[arg-type]
        self._seen[tensor] = seen
        return seen


def _part(name: str, func: Any, before: Any, outputs: list[Any], index: int) -> _View:
    """Return the view that one output is; one of several becomes a select or slice of its own."""
    args, kwargs = before
    if len(outputs) == 1 and name not in _PARTS:
        return _View(func, args[1:], kwargs)
    at = 1 if name == "unbind" else 2
    dim = args[at] if len(args) > at else kwargs.get("dim", 0)
    if name == "unbind":
        return _View(torch.ops.aten.select.int, (dim, index), {})
    start = sum(tensor.shape[dim] for tensor in outputs[:index])
    return _View(torch.ops.aten.slice.Tensor, (dim, start, start + outputs[index].shape[dim]), {})


def _written(func: Any, args: Any, kwargs: Any) -> list[tuple[str | int, Tensor]]:
    """Return the tensors that a call writes into, by position or name."""
    written: list[tuple[str | int, Tensor]] = []
    for position, argument in enumerate(func._schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write or "batch_norm" in func._schema.name:
            continue
        key: str | int = position if position < len(args) else argument.name
        given = args[position] if position < len(args) else kwargs.get(argument.name)
        written += [(key, item) for item in leaves(given) if isinstance(item, Tensor)]
    return written


def _shapes(op: Op, parent: Value) -> list[Tensor]:
    """Return the shapes of a view's outputs, from a tensor without data."""
    views = op.func(torch.empty(parent.shape, dtype=parent.dtype, device="meta"), *op.args[1:], **op.kwargs)
    return list(views) if isinstance(views, list | tuple) else [views]


def _name(func: Any) -> str:
    return str(func._schema.name.split("::")[1])


def _draws_from_shape(func: Any, args: Any, kwargs: Any) -> bool:
    """Return whether a call draws random numbers that depend on nothing but a shape, as states at rest do."""
    read = [item for item in leaves((args, kwargs)) if isinstance(item, Tensor)]
    of_shape = not read or (len(read) == 1 and func._schema.name.endswith(("_like", "_")))
    return torch.Tag.nondeterministic_seeded in func.tags and of_shape


class Undrawn(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Put a number in the place of those that are drawn from nothing but a shape, as states at rest are."""

    def __init__(self, number: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.number = number

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not _draws_from_shape(func, args, kwargs):
            return func(*args, **(kwargs or {}))
        if func._schema.name.endswith("_"):
            return args[0].fill_(self.number)
        with _disable_current_modes():
            drawn = func(*args, **(kwargs or {}))
        return torch.full_like(drawn, self.number)


@contextmanager
def _copied_by_operations() -> Iterator[None]:
    """Make ``copy.copy(tensor)`` a view of its memory, and a deep copy a clone; torch makes both by ``set_``.

    Deep copies of several tensors that share memory share it, too, so these remain as they are.
    """
    in_torch = Tensor.__deepcopy__

    def deep(self: Tensor, memo: dict[Any, Any]) -> Any:
        copied = memo.setdefault("memory that was copied", {})
        memory = self.untyped_storage()._cdata if self.layout == torch.strided else None
        if id(self) in memo or memory is None or memory in copied:
            return in_torch(self, memo)  # type: ignore[no-untyped-call]
        copied[memory] = memo[id(self)] = self.clone()
        return memo[id(self)]

    Tensor.__copy__ = lambda self: self.view_as(self)  # type: ignore[attr-defined]
    Tensor.__deepcopy__ = deep  # type: ignore[method-assign]
    try:
        yield
    finally:
        del Tensor.__copy__  # type: ignore[attr-defined]
        Tensor.__deepcopy__ = in_torch  # type: ignore[method-assign]


def _pools_images(
    name: str, x: Tensor, size: list[int], stride: Sequence[int] = (), padding: Sequence[int] = (0,), *_: Any
) -> bool:
    """Whether a pool over three axes has windows of one along the first, as of images ``[N, C, D, H, W]``."""
    if "adaptive" in name:  # size: of the output
        return x.dim() == 5 and size[0] == x.shape[2]
    return x.dim() == 5 and (size[0], (stride or size)[0], padding[0]) == (1, 1, 0)


def _by_image(pool: Any, x: Tensor, *sizes: Any) -> Any:
    """Pool images of three leading axes by a pool over two axes."""
    made = pool(x.flatten(0, 1), *(size[1:] if isinstance(size, list) else size for size in sizes))
    return map_tree(made, Tensor, lambda image: image.unflatten(0, x.shape[:2]))


@cache
def is_composite(func: Any) -> bool:
    """Return whether torch makes an operation of others by itself."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


def _share(tensor: Tensor, base: Tensor) -> bool:
    return bool(tensor.untyped_storage()._cdata == base.untyped_storage()._cdata)


def _geometry(tensor: Tensor) -> tuple[Any, ...]:
    return (tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype)


def _whole(tensor: Tensor) -> tuple[int, ...]:
    """Return the sizes of the axes, but the first, of the tensor of which a tensor is the first part; () if of none."""
    if tensor.dim() < 2 or tensor.is_contiguous():
        return ()
    strides = tensor.stride()
    if strides[-1] != 1 or any(not inner or outer % inner for outer, inner in pairwise(strides)):
        return ()
    sizes = tuple(outer // inner for outer, inner in pairwise(strides))
    return sizes if all(map(ge, sizes, tensor.shape[1:])) else ()


def _is_certain(name: str, args: Any) -> bool:
    """Return whether a random operation is deterministic with these arguments (dropout that is off)."""
    if name == "native_dropout":
        return args[2] is False or args[1] == 0
    return name == "_scaled_dot_product_flash_attention_for_cpu"


def _is_sparse(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout != torch.strided and "sparse" in str(value.layout)


def _fake_quantised(x: Tensor, scale: Any, zero_point: Any, *rest: Any) -> tuple[Tensor, Tensor]:
    """Write torch's fake quantisation out, in the same bits: round(x / scale) within its bounds, times scale.

    rest: the least and greatest integer; before them, of tensors, whether it is on. Also returns a mask for gradients.
    """
    low, high = rest[-2:]
    if len(rest) == 3 and not int(rest[0].detach()):
        return x.clone(), torch.ones_like(x, dtype=torch.bool)
    size, zero = torch.tensor(float(scale)), int(zero_point)
    made = torch.round(x * (1 / size)).clamp(low - zero, high - zero) * size
    return made, torch.ones_like(x, dtype=torch.bool)
