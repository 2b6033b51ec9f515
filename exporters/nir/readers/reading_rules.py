"""Model each framework's reading of a NIR file: the fields that it uses, its neuron steps, and its order of nodes.

Found by reading and running snnTorch 1.0.0, Norse 1.1.0, SpikingJelly 2.0.0 and Sinabs 3.1.3; the conformance run
(`python -m tests.conformance`) proves it again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NoReturn

import nir
import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.remedies import remedy
from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.graph.program import Doubles, Floats, Neuron, Node
from stl_deploy.graph.segments import grouped, strongly_connected

Edge = tuple[str, str]
_RATE_ROUNDED = 2.0**-23
"""Relative error of 1 - dt/τ, and so of dt/τ, in float32."""


def _one(array: Floats | None) -> Floats | None:
    return None if array is None else np.asarray(array.flat[0])


_MENDED: Mapping[str, Callable[[Neuron], Mapping[str, Any]]] = {
    "adapting-threshold": lambda node: {"adaptation": None},
    "start": lambda node: {"v_start": None, "i_start": None},
    "reset": lambda node: {
        "reset": "value",
        "multi_spike": False,
        "cap": None,
        "v_reset": None,
        "v_start": node.v_start if node.v_reset is None else None,
    },
    "v-min": lambda node: {"v_min": None},
    "v-leak": lambda node: {"offset": None},
    "synapse": lambda node: {"synapse": None},
    "threshold-nonuniform": lambda node: {"threshold": _one(node.threshold)},
    "decay-nonuniform": lambda node: {"decay": _one(node.decay)},
    "gain-nonuniform": lambda node: {"gain": _one(node.gain)},
    "v-reset-nonuniform": lambda node: {"v_reset": _one(node.v_reset)},
}
"""A neuron's fields without what a refusal names."""


def _into_weights() -> str:
    """Return the remedy that folds thresholds into the weights."""
    how = remedy(
        cli="stl-deploy fold SOURCE --thresholds weights -o FOLDED.nir", python="net.fold(thresholds='weights')"
    )
    return f"fold thresholds into the weights ({how})"


def refusal(name: str, slug: str, reader: Reader, reason: str, remedy: str) -> UnsupportedError:
    """Return the error for a node that a reader cannot hold."""
    return UnsupportedError(f"{reader.name} {reason}", node=name, slug=slug, remedy=remedy)


def refuse(node: Node, slug: str, reader: Reader, reason: str, remedy: str) -> NoReturn:
    """Raise the UnsupportedError for a node that a reader cannot hold."""
    raise refusal(node.name, slug, reader, reason, remedy)


_STEP = "\nout, state = net(x[t], state)  # in each step; state is None in the first"


class Reader(ABC):
    """One framework as a reader.

    dialect: its steps; load: Python lines that load and run a file there, ``{graph}`` for the graph that nir has read.

    walks: runs the nodes as it meets them; mistakes_loops: rewires loops of neurons and one dense layer, wrongly.
    """

    name: ClassVar[str]
    dialect: ClassVar[Dialect]
    load: ClassVar[str]
    average_pool: ClassVar[bool] = True
    negative_axes: ClassVar[bool] = False
    uniform: ClassVar[bool] = False
    loops: ClassVar[bool] = True
    walks: ClassVar[bool] = False
    mistakes_loops: ClassVar[bool] = False

    def runs(self, names: Sequence[str], edges: Sequence[Edge], start: str) -> tuple[set[Edge], str | None]:
        """Return the edges that it takes a step late, and the node of its output.

        See `traced` and `queued`.
        """
        return (traced if self.walks else queued)(names, edges, start)

    def neuron(self, node: Neuron) -> tuple[nir.NIRNode, Floats]:
        """Return the NIR node, and the factor on its input.

        Raises UnsupportedError.
        """
        if node.decay is None:
            refuse(node, "no-such-layer", self, "has no Threshold", "use average pooling")
        if node.threshold is None:
            refuse(node, "no-such-layer", self, "is given spiking neurons only", "end with spikes")
        if node.adaptation is not None:
            refuse(
                node,
                "adapting-threshold",
                self,
                "reads fixed thresholds",
                "train with fixed thresholds, or export to onnx or c",
            )
        if node.i_start is not None:
            refuse(node, "start", self, "starts currents at 0", "train with currents that start at 0")
        self._require_reset(node)
        if node.v_min is not None:
            refuse(node, "v-min", self, "has no lower bound of the potential", "train without v_min")
        if self.uniform:
            self._require_uniform(node)
        neuron, factor = self._restate(node)
        return neuron, np.broadcast_to(np.asarray(factor, np.float32), node.shape)

    def refusals(self, node: Neuron) -> Iterator[UnsupportedError]:
        """Yield everything that keeps a neuron off this reader: what is left once each refusal's cause is gone."""
        slugs = set[str]()
        while True:
            try:
                self.neuron(node)
            except UnsupportedError as error:
                if error.slug in slugs:
                    return
                yield error
                slugs.add(error.slug)
                if (mended := _MENDED.get(error.slug)) is None:
                    return
                node = replace(node, **mended(node))
            else:
                return

    @abstractmethod
    def _restate(self, node: Neuron) -> tuple[nir.NIRNode, NDArray[np.floating]]:
        """Return the NIR node and the input's factor of a checked spiking neuron with memory."""

    def _require_reset(self, node: Neuron) -> None:
        if node.reset != "value" or node.multi_spike or node.v_reset is not None:
            refuse(
                node,
                "reset",
                self,
                "resets what it reads to 0, and has it fire once in a step",
                "train with a hard reset to 0",
            )
        self._require_start(node)

    def _require_start(self, node: Neuron) -> None:
        if node.v_start is not None:
            refuse(node, "start", self, "starts at 0", "train with potentials that start at 0")

    def _require_uniform(self, node: Neuron) -> None:
        current = None if node.synapse is None else node.synapse.decay
        arrays = {"threshold": node.threshold, "decay": node.decay, "gain": node.gain, "synapse-decay": current}
        arrays["v-reset"] = node.v_reset
        for what, array in arrays.items():
            if array is not None and array.ndim:
                count = np.unique(array).size
                remedy = _into_weights() if what == "threshold" else "train one value per layer"
                refuse(node, f"{what}-nonuniform", self, f"reads one {what} per layer, not {count}", remedy)

    def threshold(self, node: Neuron) -> Floats:
        """Return θ of full shape, moved to its neighbour if program and reader differ in > and >=."""
        assert node.threshold is not None
        theta = np.broadcast_to(node.threshold, node.shape)
        if node.compare == self.dialect.compare:
            return theta.copy()
        towards = np.float32(-np.inf if node.compare == "ge" else np.inf)
        return np.nextafter(theta, towards)


def _full(node: Neuron, array: Floats | None, default: float) -> Doubles:
    return np.broadcast_to(default if array is None else array, node.shape).astype(np.float64)


def _refuse_leak(node: Neuron, reader: Reader) -> None:
    if node.offset is not None:
        refuse(node, "v-leak", reader, "needs v_leak 0 here", "train with v_leak 0")


def _leaks_to(node: Neuron, rate: Doubles, potential: Doubles) -> bool:
    """Return whether ``potential`` is the leak's end, up to rounding; rate: 1 minus the decay."""
    error = np.abs(_full(node, node.offset, 0) - rate * potential)
    return bool((error <= _RATE_ROUNDED * np.abs(potential)).all())


def _current_rate(node: Neuron, reader: Reader) -> Doubles:
    """Return dt/τ_syn of a current that decays before it takes the input in; above 0."""
    assert node.synapse is not None
    rate = 1 - _full(node, node.synapse.decay, 1)
    if node.synapse.rule != "euler" or (rate <= 0).any():
        refuse(node, "synapse", reader, "needs currents that decay, by Euler's rule", "use such, or LIF")
    return rate


def _unscaled_cuba(node: Neuron, reader: Reader) -> tuple[nir.NIRNode, Doubles]:
    """Return CubaLIF for readers that take r for τ_mem/dt and w_in for τ_syn/dt, and the factor that they leave out."""
    dt, zero, theta = reader.dialect.dt, np.zeros(node.shape), reader.threshold(node).astype(np.float64)
    syn, mem = 1 / _current_rate(node, reader), 1 / np.maximum(1 - _full(node, node.decay, 1), 2.0**-40)
    neuron = nir.CubaLIF(
        tau_syn=dt * syn, tau_mem=dt * mem, r=mem, v_leak=zero, v_threshold=theta, w_in=syn, v_reset=zero.copy()
    )
    assert node.synapse is not None
    return neuron, _full(node, node.gain, 1) * _full(node, node.synapse.gain, 1)


class SnnTorch(Reader):
    """Takes r for τ/dt, dt for 1e-4 and the decay of an IF for 0.9; flattens with the batch axis in front."""

    name = "snntorch"
    dialect = Dialect(dt=1e-4)
    load = f"net = snntorch.import_nir.import_from_nir({{graph}}){_STEP}"
    negative_axes = True
    mistakes_loops = True

    def _require_uniform(self, node: Neuron) -> None: ...

    def _restate(self, node: Neuron) -> tuple[nir.NIRNode, NDArray[np.floating]]:
        _refuse_leak(node, self)
        theta = self.threshold(node)
        if np.unique(theta).size > 1:
            count = np.unique(theta).size
            refuse(node, "threshold-nonuniform", self, f"reads one threshold per layer, not {count}", _into_weights())
        if node.synapse is not None:
            return _unscaled_cuba(node, self)
        # A decay of 1 (IF) is a LIF whose 1 - dt/tau rounds to 1.
        tau = self.dialect.dt / np.maximum(1 - _full(node, node.decay, 1), 2.0**-40)
        zero = np.zeros(node.shape, np.float32)
        return nir.LIF(tau, tau / self.dialect.dt, zero, theta, zero.copy()), _full(node, node.gain, 1)


class Norse(Reader):
    """Ignores r and v_reset, steps v += dt/τ·(v_leak + x − v) from v_leak, skips average pools, flattens the batch."""

    name = "norse"
    dialect = Dialect(dt=2.0**-10, integrate="r", start="v_leak")
    load = f"net = norse.torch.from_nir({{graph}}, dt=2**-10){_STEP}"
    average_pool = False
    negative_axes = True
    walks = True

    def _restate(self, node: Neuron) -> tuple[nir.NIRNode, NDArray[np.floating]]:
        theta, gain, one = self.threshold(node), _full(node, node.gain, 1), np.ones(node.shape, np.float32)
        rate = 1 - _full(node, node.decay, 1)
        if node.synapse is not None:
            return self._cuba(node, theta, rate)
        if (rate == 0).all() and node.offset is None:
            super()._require_start(node)
            return nir.IF(one, theta, 0 * one), gain
        if (rate == 0).any():
            refuse(node, "some-leak", self, "cannot mix neurons with and without leak", "split the layer")
        tau = (self.dialect.dt / rate).astype(np.float32)
        return nir.LIF(tau, one, self._v_leak(node, rate), theta, 0 * one), gain / rate

    def _require_start(self, node: Neuron) -> None:
        """Require the start that `_v_leak` gives."""

    def _v_leak(self, node: Neuron, rate: Doubles) -> Floats:
        """Return the leak's end, which must also be the start."""
        start = _full(node, node.v_start, 0)
        if not _leaks_to(node, rate, start):
            refuse(node, "start", self, "starts at v_leak", "train with potentials that start at v_leak")
        return start.astype(np.float32)

    def _cuba(self, node: Neuron, theta: Floats, rate: Doubles) -> tuple[nir.NIRNode, Doubles]:
        """Return CubaLIF; Norse reads r and w_in here, and takes v_leak for the current's rest too."""
        assert node.synapse is not None
        if node.v_start is not None:
            reason = "takes v_leak, at which it starts, for the rest of the current, too"
            refuse(node, "start", self, reason, "train current-based neurons that start and leak to 0")
        _refuse_leak(node, self)
        if (rate <= 0).any():
            refuse(node, "no-leak", self, "needs a leak in current-based neurons", "use IF or LIF")
        syn, zero, dt = _current_rate(node, self), np.zeros(node.shape, np.float32), self.dialect.dt
        neuron = nir.CubaLIF(
            tau_syn=(dt / syn).astype(np.float32),
            tau_mem=(dt / rate).astype(np.float32),
            r=(_full(node, node.gain, 1) / rate).astype(np.float32),
            v_leak=zero,
            v_threshold=theta,
            w_in=(_full(node, node.synapse.gain, 1) / syn).astype(np.float32),
            v_reset=zero.copy(),
        )
        return neuron, np.ones(node.shape)


class SpikingJelly(Reader):
    """One value per layer for everything; r is 1 or τ/dt; compares with >=; v starts and leaks to v_reset."""

    name = "spikingjelly"
    dialect = Dialect(dt=1e-4, compare="ge", start="v_reset")
    load = f"net = spikingjelly.activation_based.nir_exchange.import_from_nir({{graph}}, dt=1e-4){_STEP}"
    uniform = True

    def _require_reset(self, node: Neuron) -> None:
        if node.reset != "value" or node.multi_spike:
            refuse(node, "reset", self, "resets to a value and fires once in a step", "train with a hard reset")
        if (_full(node, node.v_start, 0) != _full(node, node.v_reset, 0)).any():
            refuse(node, "start", self, "starts at v_reset", "train with potentials that start at v_reset")

    def _restate(self, node: Neuron) -> tuple[nir.NIRNode, NDArray[np.floating]]:
        v_reset, gain = _full(node, node.v_reset, 0), _full(node, node.gain, 1)
        if node.synapse is not None:
            _refuse_leak(node, self)
            neuron, gain = _unscaled_cuba(node, self)
            return replace(neuron, v_reset=v_reset), gain
        theta, rate, dt = self.threshold(node).astype(np.float64), 1 - _full(node, node.decay, 1), self.dialect.dt
        if (rate == 0).all():
            _refuse_leak(node, self)
            return nir.IF(np.full(node.shape, 1 / dt), theta, v_reset), gain
        if (rate >= 1).any():
            refuse(node, "no-memory", self, "needs a decay above 0", "use a decay above 0")
        if not _leaks_to(node, rate, v_reset):
            refuse(node, "v-leak", self, "leaks to v_reset", "train with a v_leak equal to v_reset")
        return nir.LIF(dt / rate, 1 / rate, v_reset, theta, v_reset.copy()), gain


class Sinabs(Reader):
    """Steps with exp(−1/τ) and input gain 1; several spikes in a step, reset by subtraction, by default."""

    name = "sinabs"
    dialect = Dialect(dt=1.0, leak="exp", compare="ge")
    load = (
        "net = sinabs.nir.from_nir({graph}, batch_size=B)\n"
        "for layer in net.modules():\n"
        "    if isinstance(layer, sinabs.layers.StatefulLayer):\n"
        "        layer.spike_fn, layer.reset_fn = sinabs.activation.SingleSpike, sinabs.activation.MembraneReset()\n"
        "        layer.min_v_mem = None"
    )
    average_pool = False
    loops = False
    walks = True

    def _restate(self, node: Neuron) -> tuple[nir.NIRNode, NDArray[np.floating]]:
        _refuse_leak(node, self)
        if node.synapse is not None:
            refuse(node, "synapse", self, "does not read current-based neurons", "use LIF")
        theta, gain, one = self.threshold(node), _full(node, node.gain, 1), np.ones(node.shape, np.float32)
        decay = _full(node, node.decay, 1)
        if (decay == 1).all():
            return _without_v_reset(nir.IF(one, theta)), gain
        if (decay <= 0).any() or (decay >= 1).any():
            refuse(node, "decay", self, "needs decays between 0 and 1", "split the layer")
        tau = (-1 / np.log(decay)).astype(np.float32)
        tau, theta = self._by_channel(node, tau), self._by_channel(node, theta)
        return _without_v_reset(nir.LIF(tau, np.ones_like(tau), np.zeros_like(tau), theta)), gain

    def _by_channel(self, node: Neuron, array: Floats) -> Floats:
        """Return ``[C, 1, ...]`` of ``[C, ...]``: its reader fails on a LIF with several values in a channel."""
        first = array.reshape(len(array), -1)[:, :1].reshape(-1, *(1,) * (array.ndim - 1))
        if (array != first).any():
            refuse(
                node,
                "lif-within-channel",
                self,
                "fails to read a LIF whose values differ within a channel",
                "train one value per channel, or flatten first",
            )
        return first


def _without_v_reset(node: nir.NIRNode) -> nir.NIRNode:
    # nir 1.0.4, which Sinabs is tied to, fails on files that hold the field.
    node.v_reset = None
    return node


READERS: dict[str, Reader] = {reader.name: reader for reader in (SnnTorch(), Norse(), SpikingJelly(), Sinabs())}


def traced(names: Sequence[str], edges: Sequence[Edge], start: str) -> tuple[set[Edge], str | None]:
    """`nirtorch.load` (Norse, Sinabs): a depth-first walk in the order of the edges.

    A node runs when the walk meets it, whether or not all that it reads from has run; the last is the output.
    Returns the edges that carry the previous step, and the node whose value is taken for the network's output (None:
    that of its Output, as it should be). Found by reading and running nirtorch 2.6.
    """
    after = grouped(edges)
    place = {start: 0}
    work = [iter(after.get(start, ()))]
    while work:
        for name in work[-1]:
            if name not in place:
                place[name] = len(place)
                work.append(iter(after.get(name, ())))
                break
        else:
            work.pop()
    last = len(names)
    late = {(source, target) for source, target in edges if place.get(source, last) >= place.get(target, last)}
    return late, list(place)[-1]


def queued(names: Sequence[str], edges: Sequence[Edge], start: str) -> tuple[set[Edge], str | None]:
    """`nirtorch.nir_to_torch` (snnTorch, SpikingJelly): a queue in the order of the names, as files are read.

    A node is put back while something that it reads from is missing; but what comes to it through a loop is not waited
    for if it reads anything else. Returns as `traced`.
    """
    before, loop = grouped((target, source) for source, target in edges), loops(names, edges)
    queue = deque(sorted((name for name in names if name != start), key=str.encode))
    done, late, put_back = {start}, set[Edge](), 0
    while queue and loop and put_back < len(queue):
        name = queue.popleft()
        missing = [source for source in before.get(name, ()) if source not in done]
        if missing and (len(before[name]) == 1 or any(loop.get(source) != loop.get(name, -1) for source in missing)):
            queue.append(name)
            put_back += 1
        else:
            done.add(name)
            late |= {(source, name) for source in missing}
            put_back = 0
    return late, None


def loops(names: Sequence[str], edges: Sequence[Edge]) -> Mapping[str, int]:
    """Return, for each node in a loop, a number that the nodes of that loop share."""
    groups = strongly_connected(names, grouped(edges))
    return {
        name: number
        for number, group in enumerate(groups)
        if len(group) > 1 or (group[0], group[0]) in edges
        for name in group
    }
