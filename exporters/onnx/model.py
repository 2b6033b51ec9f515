"""Run our ONNX files in ONNX Runtime: a whole sequence, or step by step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.arrays import ShapeError
from stl_deploy._util.units import counted
from stl_deploy.errors import InputError
from stl_deploy.exporters.onnx.foreign import read_model
from stl_deploy.exporters.onnx.interface import Interface, graph_metadata
from stl_deploy.exporters.onnx.runtime import interruptible, onnxruntime
from stl_deploy.graph.program import Floats, Input, Program, Shape
from stl_deploy.graph.run import Result, as_floats, match_inputs

_RUN_BYTES = 2**32
_MOST_BYTES = 2**35
"""Of all values together, most of which are freed on the way."""


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """One of our ONNX files, open in ONNX Runtime.

    shapes: of one sample at one time step, by tensor. elements: of all values of it. fixed: steps and samples that the
    file takes, None for any number.
    """

    path: Path
    interface: Interface
    shapes: Mapping[str, Shape]
    elements: int
    session: Any
    fixed: tuple[int | None, int | None]

    @classmethod
    def load(cls, path: Path, *, threads: int | None = None) -> OnnxModel:
        """Open ``path`` with ``threads`` threads (None: ONNX Runtime's choice).

        Raises InputError in one sentence for a file that is missing, damaged, too large, or not ours.
        """
        interface, shapes, elements = read_model(path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.inter_op_num_threads = 1
        options.intra_op_num_threads = threads or 0
        model = path.read_bytes() if not str(path).isprintable() else str(path)  # of a name in UTF-8 alone
        try:
            session = interruptible(
                lambda: onnxruntime.InferenceSession(
                    model, options, providers=["CPUExecutionProvider"], enable_fallback=False
                )
            )
        except Exception as error:  # ONNX Runtime's errors have no other base
            raise InputError(f"{path}: ONNX Runtime cannot load it ({_first_line(error)})") from None
        ports = {port.name: port.shape for port in session.get_inputs()}
        sizes = ports[next(iter(interface.inputs.values()))][: interface.lead_axes]
        *steps, batch = [size if isinstance(size, int) else None for size in sizes]
        return cls(path, interface, shapes, elements, session, (steps[0] if steps else None, batch))

    @property
    def metadata(self) -> dict[str, Any]:
        """The source network's metadata: dialect, input coding, grids; raises InputError where they are damaged."""
        try:
            properties = self.session.get_modelmeta().custom_metadata_map
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path}: its metadata is damaged ({error}); export it again") from None
        return graph_metadata(properties, str(self.path))

    def shape_of(self, tensor: str) -> Shape:
        """Return the shape of one sample at one step of an input or output tensor."""
        (port_of_tensor,) = (
            port for port in (*self.session.get_inputs(), *self.session.get_outputs()) if port.name == tensor
        )
        return tuple(port_of_tensor.shape[self.interface.lead_axes :])

    def run(
        self,
        x: NDArray[Any] | Mapping[str, NDArray[Any]],
        *,
        record: Collection[str] = (),
        chunk: int | None = None,
    ) -> Result:
        """Run on ``x`` ``[T, B, *input shape]`` (one array, or one per Input node), from rest, in either form.

        record: names of spiking nodes whose spikes are kept. chunk: samples run at a time (None: all).
        Fewer steps or samples than a file with static shapes takes are filled up with zeros.
        Raises InputError if x does not fit, or the file does not put out a recorded node.
        """
        tensors = self.spike_tensors(record)
        arrays = self.match(x)
        steps, batch = next(iter(arrays.values())).shape[:2]
        most, samples = self.fixed
        if most is not None and steps > most:
            raise InputError(f"{self.path}: takes {counted(most, 'step')}; found {steps}")
        size = samples or min(chunk or batch, self._at_once(steps))
        run = self._run_steps if self.interface.form == "step" else self._run_sequence
        parts = []
        for i in range(0, batch, size):
            part = {name: as_floats(array[:, i : i + size]) for name, array in arrays.items()}
            given = {name: _filled(array, most or steps, samples) for name, array in part.items()}
            parts.append(run(given, tensors))
        if len(parts) == 1 and not (most or samples):
            return parts[0]
        return _combine(parts, lambda arrays: np.concatenate(arrays, axis=1)[:steps, :batch])

    def _at_once(self, steps: int) -> int:
        """Return the samples that fit into `_RUN_BYTES`; raise InputError if one takes more than `_MOST_BYTES`."""
        needed = 4 * self.elements * (1 if self.interface.form == "step" or self.fixed[0] else steps)
        if needed > _MOST_BYTES:
            size = f"{needed / 2**30:.0f} GiB"
            raise InputError(f"{self.path}: expected fewer steps; found {steps}, of which one sample takes {size}")
        return max(1, _RUN_BYTES // max(1, needed))

    @contextmanager
    def failures_named(self) -> Iterator[None]:
        """Raise InputError in one sentence where ONNX Runtime fails."""
        try:
            yield
        except Exception as error:  # ONNX Runtime's errors have no other base
            raise InputError(f"{self.path}: ONNX Runtime failed ({_first_line(error)})") from None

    def spike_tensors(self, record: Collection[str]) -> dict[str, str]:
        """Return the tensors of the spiking nodes ``record``; raise InputError for one without an output."""
        spikes = self.interface.spikes
        missing = sorted(set(record) - set(spikes))
        if missing:
            known = ", ".join(spikes) or "none, it was exported without them"
            raise InputError(f"{self.path}: cannot record '{missing[0]}'; spikes that it puts out: {known}")
        return {name: tensor for name, tensor in spikes.items() if name in record}

    def rest(self, batch: int) -> dict[str, Floats]:
        """Return the step form's states at rest, by tensor, each ``[B, *shape]``."""
        return {
            state.tensor: np.broadcast_to(state.rest, (batch, *self.shapes[state.tensor])).copy()
            for state in self.interface.states
        }

    def match(self, x: NDArray[Any] | Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return ``x`` ``[T, B, *shape]`` as `match_inputs` does; raise InputError if it does not fit."""
        inputs = self.interface.inputs.items()
        ports = [Input(name=name, shape=self.shapes[tensor], operands=()) for name, tensor in inputs]
        ported = Program(tuple(ports), self.interface.dt)
        try:
            return match_inputs(ported, x)
        except ShapeError:
            return match_inputs(replace(ported, metadata=self.metadata), x)  # may know the module's steps

    def _run_sequence(self, arrays: Mapping[str, Floats], spikes: Mapping[str, str]) -> Result:
        feeds = {self.interface.inputs[name]: np.ascontiguousarray(array) for name, array in arrays.items()}
        outputs = self.interface.outputs
        with self.failures_named():
            values = self.session.run([*outputs.values(), *spikes.values()], feeds)
        made = dict(zip([*outputs, *spikes], values, strict=True))
        return Result({name: made[name] for name in outputs}, {name: made[name] for name in spikes})

    def _run_steps(self, arrays: Mapping[str, Floats], spikes: Mapping[str, str]) -> Result:
        stream = OnnxStream(self, record=spikes)
        steps = zip(*arrays.values(), strict=True)
        parts = [stream.advance(dict(zip(arrays, values, strict=True))) for values in steps]
        return _combine(parts, np.stack)


class OnnxStream:
    """Feed a network one time step at a time. Needs a file in the step form.

    States stay in two sets of buffers bound to the session: each step reads one set and writes the other.
    """

    def __init__(self, model: OnnxModel, *, record: Collection[str] = ()) -> None:
        """Open a stream. record: names of spiking nodes whose spikes each step returns.

        Raises InputError for a file in the sequence form, or one that does not put out a recorded node.
        """
        if model.interface.form != "step":
            raise InputError(f"{model.path}: takes whole sequences; to stream, export it in the step form")
        self._model = model
        self._spikes = model.spike_tensors(record)
        self._batch = 0
        self._states: list[dict[str, Floats]]
        self.reset()

    def reset(self) -> None:
        """Go back to rest; the next step may bring another batch size."""
        self._steps = 0

    def step(self, x: NDArray[Any] | Mapping[str, NDArray[Any]]) -> Result:
        """Advance one step with ``x`` ``[B, *input shape]`` (one array, or one per Input node).

        Returns arrays ``[B, *shape]``. Raises InputError if x does not fit, or B changed since the last reset.
        """
        several = {name: array[None] for name, array in x.items()} if isinstance(x, Mapping) else np.asarray(x)[None]
        return self.advance({name: as_floats(array[0]) for name, array in self._model.match(several).items()})

    def advance(self, arrays: Mapping[str, Floats]) -> Result:
        """Advance one step as `step` does, with an array of its shape for every Input node."""
        batch, interface = len(next(iter(arrays.values()))), self._model.interface
        if not self._steps:
            self._bind(self._model.fixed[1] or batch)
        if batch != self._batch:
            raise InputError(f"got {batch} samples after {self._batch}; call reset() before another batch size")
        for name, array in arrays.items():
            self._given[interface.inputs[name]][...] = array
        with self._model.failures_named():
            self._model.session.run_with_iobinding(self._bindings[self._steps % 2])
        self._steps += 1
        outputs, spikes = (
            {name: self._made[tensor].copy() for name, tensor in tensors.items()}
            for tensors in (interface.outputs, self._spikes)
        )
        return Result(outputs, spikes)

    def _bind(self, batch: int) -> None:
        """Set the states at rest, in the last run's buffers if they fit ``batch`` samples, else in new ones."""
        interface = self._model.interface
        if batch == self._batch:
            for state in interface.states:
                self._states[0][state.tensor][...] = state.rest
            return
        self._batch = batch
        self._given = self._buffers(interface.inputs.values())
        self._made = self._buffers([*interface.outputs.values(), *self._spikes.values()])
        self._states = [self._model.rest(batch), self._model.rest(batch)]
        self._bindings = []
        for before, after in (self._states, self._states[::-1]):
            binding = self._model.session.io_binding()
            for tensor, array in {**self._given, **before}.items():
                binding.bind_cpu_input(tensor, array)
            next_states = {state.next_tensor: after[state.tensor] for state in interface.states}
            for tensor, array in {**self._made, **next_states}.items():
                binding.bind_output(tensor, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            self._bindings.append(binding)

    def _buffers(self, tensors: Iterable[str]) -> dict[str, Floats]:
        return {t: np.zeros((self._batch, *self._model.shape_of(t)), np.float32) for t in tensors}


def _filled(array: Floats, steps: int, batch: int | None) -> Floats:
    """Return ``array`` ``[T, B, ...]`` with zeros behind its steps and samples."""
    missing = steps - array.shape[0], (batch or array.shape[1]) - array.shape[1]
    return np.pad(array, [(0, missing[0]), (0, missing[1]), *[(0, 0)] * (array.ndim - 2)]) if any(missing) else array


def _combine(parts: Sequence[Result], join: Callable[[list[Floats]], Floats]) -> Result:
    def joined(arrays: Sequence[Mapping[str, Floats]]) -> dict[str, Floats]:
        return {name: join([part[name] for part in arrays]) for name in arrays[0]}

    return Result(joined([part.outputs for part in parts]), joined([part.recorded for part in parts]))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
