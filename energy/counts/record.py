"""Count records: the exact integers of the energy JSON, per node and in total, and NeuroBench's fields from them.

Counts are integers; estimates for other spike rates or time steps are fractions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from stl_deploy._util.json_twin import JsonTwin
from stl_deploy.energy.counts.coding import Op
from stl_deploy.energy.counts.taps import Ints, bias_of
from stl_deploy.graph.cell import Cell
from stl_deploy.graph.program import Conv, Linear, Neuron, Program, Scale, is_spike_max_pool

Population = Neuron | Cell


def populations(program: Program) -> tuple[Population, ...]:
    """Return the neuron nodes and the Cells, in order."""
    return tuple(node for node in program.nodes if isinstance(node, Neuron | Cell))


def firing(program: Program) -> tuple[Population, ...]:
    """Return those that put out spikes, without max pools of spikes."""
    return tuple(n for n in populations(program) if np.any(n.fires) and not is_spike_max_pool(program, n))


@dataclass(frozen=True)
class Fetched:
    """Different weights that events meet, summed over samples: in each step anew, or in each inference.

    nonzero_*: those that are not zero.
    """

    per_step: float = 0
    nonzero_per_step: float = 0
    per_inference: float = 0
    nonzero_per_inference: float = 0


@dataclass(frozen=True)
class TapCounts:
    """Counts of a weighted or pooling node, summed over T steps (those whose outputs are read) and B samples.

    Attributes:
        in_nonzero: Non-zero inputs.
        binary_input: Whether the data held only 0 and 1.
        synops: Structural taps crossed by them.
        synops_nonzero_w: Those whose weight is not zero.
        synapses: Structural taps (dense MACs of one step of one sample).
        dense_macs_exact: ``synapses`` times T·B.
        dense_macs_nominal: The same with taps on padding.
        bias_adds: outputs·T·B if there is a bias, of the steps that are read.
        op: Fixed by structure.
        synops_pool_folded: None unless directly behind a pool.
        folded_nonzero_w: Those of them whose weight is not zero.
        spikes_carried: Synops with each event counted once per spike that it carries; None unless it can carry several.
        fetched: Different weights that events meet.
    """

    in_nonzero: float
    binary_input: bool
    synops: float
    synops_nonzero_w: float
    synapses: int
    dense_macs_exact: float
    dense_macs_nominal: float
    bias_adds: float
    op: Op
    synops_pool_folded: float | None = None
    folded_nonzero_w: float | None = None
    spikes_carried: float | None = None
    fetched: Fetched = field(default_factory=Fetched)

    def as_dict(self) -> dict[str, Any]:
        """Return the keys of the energy JSON."""
        data = asdict(self)
        del data["folded_nonzero_w"], data["spikes_carried"], data["fetched"]
        data |= {f"weights_{key}": count for key, count in asdict(self.fetched).items()}
        if self.synops_pool_folded is None:
            del data["synops_pool_folded"]
        return data


@dataclass(frozen=True)
class NeuronCounts:
    """Counts of a neuron node or a Cell, summed over T steps and B samples.

    neuron_updates: neurons·T·B. neuron_updates_touched: those where an event or a non-zero bias arrived.
    events: outputs that were not zero, whatever their sign and size. spikes: how many these carry; of amplitudes that
    are no integers, the events; none of a Cell that puts out values without jumps. Of a Cell that puts out
    spikes and other values, the spikes alone are counted.
    """

    neurons: int
    neuron_updates: float
    neuron_updates_touched: float
    spikes: float
    events: float

    def as_dict(self) -> dict[str, Any]:
        """Return the keys of the energy JSON; ``events`` becomes queue_writes."""
        data = asdict(self)
        del data["events"]
        return data


@dataclass(frozen=True)
class MaxPoolCounts(JsonTwin):
    """Counts of a max pool of currents, summed over T steps and B samples: it looks at every value in each step.

    values_read: positions before it; values_written: positions behind it; max_compares: comparisons of two values.
    """

    values_read: float
    values_written: float
    max_compares: float


@dataclass(frozen=True)
class ProductCounts(JsonTwin):
    """Counts of a product of two signals, summed over T steps and B samples.

    in_nonzero: non-zero values of both operands. synops: products of two non-zero values. synapses: products of one
    dense step of one sample; dense_macs_exact: times T·B. values: positions of both operands. outputs: of the result.
    op: AC where one operand is 0 or 1 by structure, so that the other's values are added, MAC otherwise.
    """

    in_nonzero: float
    synops: float
    synapses: int
    dense_macs_exact: float
    values: int
    outputs: int
    op: Op


@dataclass(frozen=True)
class Totals(JsonTwin):
    """Sums over the layers. Weighted nodes and products make synops and MACs; pools make pool_events only.

    ann_macs_*: the dense MACs of one pass of the same topology for each sample.
    """

    synops_AC: float
    synops_MAC: float
    synops: float
    dense_macs_exact: float
    dense_macs_nominal: float
    ann_macs_exact: float
    ann_macs_nominal: float
    bias_adds: float
    neuron_updates: float
    neuron_updates_touched: float
    spikes: float
    pool_events: float


Counted = TapCounts | NeuronCounts | MaxPoolCounts | ProductCounts
C = TypeVar("C", TapCounts, MaxPoolCounts, ProductCounts)
_OF_EVERY_SAMPLE = ("bias_adds", "values_read", "values_written", "max_compares")
"""Work of a node at every step, the same in every sample."""


@dataclass(frozen=True)
class Repeating:
    """Events of a node, over all T steps, in those ``samples`` whose later steps repeat its first.

    Such a node computes the same at every step.
    """

    samples: int
    in_nonzero: float = 0
    synops: float = 0
    synops_nonzero_w: float = 0


@dataclass(frozen=True)
class Counts:
    """Counts of T steps of ``batch`` samples: ``weighted``, ``pools``, ``neurons``, ``maxima``, ``products`` by name.

    order: the names of the counted nodes in the Program's order.
    still: samples of which every input repeats its first step in all later ones.
    arriving: non-zero inputs of each weighted or pooling node by position, int64 of its input shape.
    signed: nodes that add events of -1 and 1, which have a sign.
    """

    T: int
    batch: int
    order: tuple[str, ...]
    weighted: Mapping[str, TapCounts]
    pools: Mapping[str, TapCounts]
    neurons: Mapping[str, NeuronCounts]
    still: int
    arriving: Mapping[str, Ints] = field(default_factory=dict, compare=False, repr=False)
    maxima: Mapping[str, MaxPoolCounts] = field(default_factory=dict)
    products: Mapping[str, ProductCounts] = field(default_factory=dict)
    repeating: Mapping[str, Repeating] = field(default_factory=dict)
    signed: frozenset[str] = frozenset()

    @property
    def is_static(self) -> bool:
        """Whether most samples repeat their first step, as images do: layer by layer fits them, streaming a stream."""
        return 2 * self.still >= self.batch

    @property
    def layers(self) -> dict[str, Counted]:
        """Return every counted node, in the Program's order."""
        counts: dict[str, Counted] = {**self.weighted, **self.pools}
        counts |= {**self.neurons, **self.maxima, **self.products}
        return {name: counts[name] for name in self.order}

    @property
    def max_compares(self) -> float:
        """Comparisons of all max pools of currents."""
        return sum(c.max_compares for c in self.maxima.values())

    @property
    def has_zero_weights(self) -> bool:
        """Whether events crossed weights that are zero."""
        return any(c.synops_nonzero_w < c.synops for c in self.weighted.values())

    def at_one_step(self) -> Counts:
        """Return the counts with every node computed once in the samples whose steps are all alike to it."""

        def once(name: str, counted: C) -> C:
            repeating = self.repeating.get(name)
            if repeating is None or not repeating.samples:
                return counted
            shares = dict.fromkeys(_OF_EVERY_SAMPLE, repeating.samples / self.batch)
            spared = {key: getattr(counted, key) * share for key, share in shares.items() if hasattr(counted, key)}
            spared |= {key: n for key, n in vars(repeating).items() if key != "samples" and hasattr(counted, key)}
            # steps are alike, so the later ones have (T - 1) / T of the events, exactly
            later = {key: n * (self.T - 1) / self.T for key, n in spared.items()}
            return replace(counted, **{key: getattr(counted, key) - n for key, n in later.items()})

        def each(layers: Mapping[str, C]) -> dict[str, C]:
            return {name: once(name, counted) for name, counted in layers.items()}

        weighted, pools = each(self.weighted), each(self.pools)
        return replace(self, weighted=weighted, pools=pools, maxima=each(self.maxima), products=each(self.products))

    @property
    def totals(self) -> Totals:
        """Sums over the layers."""
        weighted, neurons = self.weighted.values(), self.neurons.values()
        multiplying: tuple[TapCounts | ProductCounts, ...] = (*weighted, *self.products.values())
        nominal = sum(c.dense_macs_nominal for c in weighted) + sum(c.dense_macs_exact for c in self.products.values())
        return Totals(
            synops_AC=sum(c.synops for c in multiplying if c.op == "AC"),
            synops_MAC=sum(c.synops for c in multiplying if c.op == "MAC"),
            synops=sum(c.synops for c in multiplying),
            dense_macs_exact=sum(c.dense_macs_exact for c in multiplying),
            dense_macs_nominal=nominal,
            ann_macs_exact=sum(c.synapses for c in multiplying) * self.batch,
            ann_macs_nominal=nominal // self.T,
            bias_adds=sum(c.bias_adds for c in weighted),
            neuron_updates=sum(c.neuron_updates for c in neurons),
            neuron_updates_touched=sum(c.neuron_updates_touched for c in neurons),
            spikes=sum(c.spikes for c in neurons),
            pool_events=sum(c.synops for c in self.pools.values()),
        )


def neurobench_fields(program: Program, counts: Counts) -> dict[str, Any]:
    """Return SynapticOperations per sample (zero weights left out; Dense: every tap), sparsities and parameters.

    Where NeuroBench looks at the values of a batch to tell AC from MAC, the structure decides here; its
    MembraneUpdates (states whose value changed) and Footprint are not counts of the network's graph and left out.
    """
    weighted, products = counts.weighted.values(), counts.products.values()
    nodes = [n for n in program.nodes if isinstance(n, Linear | Conv | Scale)]
    arrays = [node.scale if isinstance(node, Scale) else node.weight for node in nodes]
    biases = [bias for node in nodes if (bias := bias_of(node)) is not None]
    weights = sum(array.size for array in arrays)
    fired = [counts.neurons[node.name] for node in firing(program)]
    updates = sum(c.neuron_updates for c in fired)
    return {
        "SynapticOperations": {
            "Effective_MACs": sum(c.synops_nonzero_w for c in weighted if c.op == "MAC") / counts.batch
            + sum(c.synops for c in products if c.op == "MAC") / counts.batch,
            "Effective_ACs": sum(c.synops_nonzero_w for c in weighted if c.op == "AC") / counts.batch
            + sum(c.synops for c in products if c.op == "AC") / counts.batch,
            "Dense": counts.totals.dense_macs_exact / counts.batch,
        },
        "ActivationSparsity": 1 - sum(c.events for c in fired) / updates if updates else None,
        "ConnectionSparsity": sum(int(np.sum(a == 0)) for a in arrays) / weights if weights else None,
        "ParameterCount": weights + sum(bias.size for bias in biases),
    }
