"""Third-party simulators (witnesses) as Runners, each in its own environment."""

from __future__ import annotations

import json
import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.files import write_npz
from stl_deploy._util.remedies import option
from stl_deploy._util.temporary import temporary_folder
from stl_deploy._util.units import with_unit
from stl_deploy.errors import InputError, ToolError
from stl_deploy.exporters.lava.process import run_worker
from stl_deploy.exporters.netx.convert import run_file, to_graph
from stl_deploy.exporters.netx.layers import NetxFile
from stl_deploy.exporters.netx.target import WIDE, Loihi
from stl_deploy.exporters.targets import Network, Options, Runner
from stl_deploy.exporters.witnesses.environment import BRIAN2, NENGO_LOIHI, SANAFE, SIDE, XYLOSIM, Witness
from stl_deploy.exporters.witnesses.equations import Arrays, equations
from stl_deploy.exporters.witnesses.rows import net_arrays, shapes
from stl_deploy.exporters.xylo.runner import Xylo
from stl_deploy.exporters.xylo.simulate import ChipRun
from stl_deploy.exporters.xylo.specification import Specification
from stl_deploy.graph.program import Program
from stl_deploy.graph.run import NetworkInput, Result, as_floats, match_inputs
from stl_deploy.integers.graph import IntegerGraph, IntegerInput, IntegerLIF
from stl_deploy.integers.net import DECAY_ONE, STATE_SHIFT, STATE_TOP, Ints
from stl_deploy.integers.simulate import IntegerRun, as_integers, evaluate

TERMS = ("synapse", "dendrite", "soma", "network")
"""Parts of the energy that SANA-FE returns, in order."""


class Emulator(Loihi):
    """Run the integers of a Program, or of a netx file, on a witness in its side environment.

    script: of `SIDE`, given the network's rows; it returns each layer's spikes, and may return more.
    """

    reads = ("netx",)
    agrees_with = "loihi"
    witness: ClassVar[Witness]
    script: ClassVar[str]

    @classmethod
    def available(cls) -> str | None:
        """Return why its side environment cannot be used, or None."""
        return cls.witness.reason()

    def integers(self, file: NetxFile, x: NDArray[Any], record: bool) -> IntegerRun:
        """Run the layers of a netx file on integers, none below 0."""
        x = as_integers(x, file.input_shape)
        if x.size and x.min() < 0:
            raise InputError(f"expected counts of spikes, 0 or more; found {x.min()}; use {option('backend', 'loihi')}")
        arrays = net_arrays(file)
        self.check(arrays)
        with temporary_folder() as folder:
            write_npz(folder / "net.npz", arrays)
            results: dict[str, NDArray[Any]] = dict(
                run_worker(
                    self.witness.require(),
                    folder / "net.npz",
                    x,
                    deadline=self._options.deadline,
                    progress=self._options.progress,
                    script=SIDE / self.script,
                    tool=self.witness.title,
                )
            )
        self.tell(results, x.shape[1])
        expected = shapes(file)
        if {key: array.shape[2:] for key, array in results.items()} != {
            key: (math.prod(shape),) for key, shape in expected.items()
        }:
            raise ToolError(f"{self.witness.title} returned arrays of other shapes than the network's")
        spikes = {key: results[key].reshape(*x.shape[:2], *shape) for key, shape in expected.items()}
        return IntegerRun(spikes[list(expected)[-1]], spikes)

    def check(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Raise InputError for rows that it cannot hold."""

    def tell(self, results: dict[str, NDArray[Any]], samples: int) -> None:
        """Remove everything but spikes from the result, and print it."""


class NengoLoihi(Emulator):
    """nengo-loihi: an emulator of Loihi 1, equal to our integer model in every spike.

    It must equal our integer model with its narrower registers (`Wrapped`): 64 times a weighted sum wraps at 2^21.
    """

    name = "nengo_loihi"
    description = "nengo-loihi's emulator of Loihi 1 in its side environment (simulated; not the chip)"
    witness = NENGO_LOIHI
    script = "nengo_loihi_worker.py"

    def model(self, program: Program) -> Wrapped:
        """Return our model with its registers."""
        return Wrapped(program if self._path is None else self._path, self._options).of(program)

    def integers(self, file: NetxFile, x: NDArray[Any], record: bool) -> IntegerRun:
        """Run as `Emulator.integers`; print where its registers make it differ from Lava."""
        result = super().integers(file, x, record)
        why = parting(file, x)
        if why is not None:
            self._options.say.say(why)
        return result


class SanaFe(Emulator):
    """SANA-FE: a model of Loihi 1 with our integer model's spikes, and its energy.

    Each layer is on cores of 1,024 neurons in order.

    energy: joules of the last run by term, as its own model of the chip prices it, without floor power; None before.
    """

    name = "sanafe"
    description = "SANA-FE's model of Loihi 1 in its side environment (simulated; not the chip)"
    witness = SANAFE
    script = "sanafe_worker.py"
    energy: dict[str, float] | None = None

    def check(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Raise InputError for currents that decay, which it keeps in floating point."""
        for key in (str(key) for key in arrays["keys"]):
            if (arrays[f"{key}.i_decay"] != DECAY_ONE).any():
                raise InputError(
                    f"'{key}': expected neurons whose current lasts one step; use {option('backend', 'loihi')}"
                )

    def tell(self, results: dict[str, NDArray[Any]], samples: int) -> None:
        """Print an inference's energy and its terms."""
        joules = results.pop("energy", None)
        if joules is None or joules.shape != (len(TERMS),):
            raise ToolError("SANA-FE returned no energy")
        self.energy = dict(zip(TERMS, joules.tolist(), strict=True))
        terms = ", ".join(f"{name} {with_unit(value / samples, 'J')}" for name, value in self.energy.items())
        total = with_unit(sum(self.energy.values()) / samples, "J")
        self._options.say.say(f"SANA-FE's own model of Loihi 1: {total} an inference without floor power ({terms})")


class Brian2(Runner):
    """A Program in Brian2, in float32, in its side environment.

    On the exact grid every spike is the reference's; off it, sums are added up in another order.
    """

    name = "brian2"
    description = "Brian2 in its side environment"
    label = "measured"
    agrees_with = "reference"

    def __init__(self, network: Network, options: Options) -> None:
        if not isinstance(network, Program):
            raise InputError(f"{network}: expected a run folder or a .nir file for brian2; found an artifact")
        self._program, self._options = network, options
        self._groups, self._arrays = equations(network)

    @classmethod
    def available(cls) -> str | None:
        """Return why its side environment cannot be used, or None."""
        return BRIAN2.reason()

    def run(self, x: NetworkInput, record: bool = False) -> Result:
        """See `stl_deploy.exporters.targets.Runner`; raises ToolError if Brian2 is missing, fails or takes too long."""
        given = {name: as_floats(array) for name, array in match_inputs(self._program, x).items()}
        rows = [given[node.name] for node in self._program.inputs]
        entering = np.concatenate([array.reshape(*array.shape[:2], -1) for array in rows], axis=2)
        spikes = self._work(entering)
        arrays: dict[str, NDArray[np.float32]] = {}
        for place, group in enumerate(self._groups):
            if group["keep"]:
                node, array = self._program.by_name[group["name"]], spikes.get(f"out{place}")
                if array is None or array.shape != (*entering.shape[:2], group["size"]):
                    raise ToolError(f"Brian2 returned no array of the shape of '{node.name}'")
                arrays[node.name] = array.astype(np.float32).reshape(*entering.shape[:2], *node.shape)
        outputs = {node.name: arrays[node.name] for node in self._program.outputs}
        return Result(outputs, {node.name: arrays[node.name] for node in self._program.spiking} if record else {})

    def _work(self, entering: NDArray[np.float32]) -> Arrays:
        with temporary_folder() as folder:
            write_npz(folder / "net.npz", {**self._arrays, "groups": np.array(json.dumps(self._groups))})
            return run_worker(
                BRIAN2.require(),
                folder / "net.npz",
                entering,
                deadline=self._options.deadline,
                progress=self._options.progress,
                script=SIDE / "brian2_worker.py",
                tool=BRIAN2.title,
            )


class XyloSim(Xylo):
    """xylosim in its side environment."""

    name = "xylosim"
    description = "xylosim, SynSense's simulator of Xylo, in its side environment (simulated; not the chip)"
    agrees_with = "xylo"

    @classmethod
    def available(cls) -> str | None:
        """Return why its side environment cannot be used, or None."""
        return XYLOSIM.reason()

    def model(self, program: Program) -> Xylo:
        """Return our model of the same integers."""
        own = Xylo(program, self._options)
        own.network = self.network
        return own

    def integers(self, spec: Specification, x: NDArray[Any], record: bool) -> ChipRun:
        """Run the chip's integers; raise ToolError if xylosim is missing, fails or takes too long."""
        with temporary_folder() as folder:
            write_npz(folder / "net.npz", spec.arrays())
            results: dict[str, NDArray[Any]] = dict(
                run_worker(
                    XYLOSIM.require(),
                    folder / "net.npz",
                    x,
                    deadline=self._options.deadline,
                    progress=self._options.progress,
                    script=SIDE / "xylosim_worker.py",
                    tool=XYLOSIM.title,
                )
            )
        shape = x.shape[:2]
        expected = {
            "spikes": (*shape, spec.hidden),
            "v": (*shape, spec.hidden),
            "i": (*shape, spec.hidden, spec.synapses),
            "outputs": (*shape, spec.outputs),
            "v_out": (*shape, spec.outputs),
            "i_out": (*shape, spec.outputs),
        }
        if {name: array.shape for name, array in results.items()} != expected:
            raise ToolError("xylosim returned arrays of other shapes than the network's")
        saturated, saturated_out = np.zeros(spec.hidden, np.int64), np.zeros(spec.outputs, np.int64)
        return ChipRun(**results, saturated=saturated, saturated_out=saturated_out)


TARGETS = (Brian2, NengoLoihi, SanaFe, XyloSim)


ARRIVING, U = 21, 23
"""Bits of the registers, without their signs (nengo-loihi 1.1.0: ``Q_BITS``, ``U_BITS``)."""


class Wrapped(Loihi):
    """Integer model with nengo-loihi's registers: a step's input wraps at 21 bits and a sign, u + bias at 23.

    Lava and our model wrap u alone, at 24 bits. Where no register is passed, both are the same.
    """

    name = "loihi with registers of 21 bits"

    def integers(self, file: NetxFile, x: NDArray[Any], record: bool) -> IntegerRun:
        """Run the layers of a netx file on integers ``x``."""
        return simulate_wrapped(file, x)


def simulate_wrapped(net: NetxFile, x: NDArray[Any]) -> IntegerRun:
    """Run as `stl_deploy.exporters.netx.convert.run_file`, with these registers; every layer is recorded."""
    values = _values(to_graph(net), as_integers(x, net.input_shape))
    spikes = {key: values[key] for key, _ in net.spiking}
    return IntegerRun(values["output"], spikes)


def _values(graph: IntegerGraph, x: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return the output of every node."""
    values: dict[str, NDArray[Any]] = {graph.input.name: x}
    for node in graph.nodes:
        if isinstance(node, IntegerInput):
            continue
        arriving = [values[source.node] for source in node.operands]
        if isinstance(node, IntegerLIF):
            values[node.name] = _spikes(node, arriving[0])
        else:
            values[node.name] = evaluate(node, arriving, {}, graph.accumulator)
    return values


def parting(net: NetxFile, x: NDArray[Any]) -> str | None:
    """Return the spikes that these registers change: count, first spike, and the overflowing register; None if none."""
    graph, ours = to_graph(net), run_file(net, x, record=True).spikes
    theirs = _values(graph, as_integers(x, net.input_shape))
    differ = {key: theirs[key] != spikes for key, spikes in ours.items()}
    first = next((key for key, where in differ.items() if where.any()), None)
    if first is None:
        return None
    step, sample, *neuron = np.argwhere(differ[first])[0].tolist()
    arriving = theirs[graph.by_name[first].operands[0].node]
    sums = arriving[(slice(None, step + 1), sample, *neuron)].astype(np.int64)
    past = np.flatnonzero(wrap(sums << STATE_SHIFT, ARRIVING) != sums << STATE_SHIFT)
    why = f"its u and bias come to more than 2^{U}, where both wrap, and Lava u alone"
    if len(past):
        at = int(past[0])
        why = (
            f"its weighted sum of {sums[at]:,} in step {at} is past 2^{ARRIVING}/{2**STATE_SHIFT} = {WIDE:,}, where "
            "nengo-loihi's accumulator wraps and Lava's does not"
        )
    count, of = sum(int(where.sum()) for where in differ.values()), sum(where.size for where in differ.values())
    return (
        f"nengo-loihi's registers change {count:,} of {of:,} spikes; the first: "
        f"'{dict(net.spiking)[first].node or first}', step {step}, sample {sample}, neuron {neuron}: {why}"
    )


def _spikes(node: IntegerLIF, arriving: NDArray[Any]) -> NDArray[np.uint8]:
    neuron = node.neuron
    added = 0 if node.bias is None else node.bias.astype(np.int64) << STATE_SHIFT
    threshold = neuron.threshold.astype(np.int64) << STATE_SHIFT
    u = v = np.zeros(arriving.shape[1:], np.int64)
    spikes = np.empty(arriving.shape, np.uint8)
    for now, fired in zip(arriving, spikes, strict=True):
        u = wrap(_leak(u, neuron.i_decay) + wrap(now.astype(np.int64) << STATE_SHIFT, ARRIVING), U)
        v = np.clip(_leak(v, neuron.v_decay) + wrap(u + added, U), 1 - STATE_TOP, STATE_TOP - 1)
        fired[...] = v > threshold
        v[fired.astype(bool)] = 0
    return spikes


def wrap(values: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """Wrap into [-2^bits, 2^bits), as two's complement does."""
    wrapped: NDArray[np.int64] = (values + 2**bits) % 2 ** (bits + 1) - 2**bits
    return wrapped


def _leak(values: NDArray[np.int64], decay: int | Ints) -> NDArray[np.int64]:
    keeps: NDArray[np.int64] = np.asarray(DECAY_ONE - decay, np.int64)
    kept: NDArray[np.int64] = np.abs(values) * keeps // DECAY_ONE
    return np.where(values < 0, -kept, kept)
