"""The counts once more, from explicit synapse lists in plain Python loops; shares no code with the counter."""

from __future__ import annotations

from itertools import product

import numpy as np

from stl_deploy.graph.program import (
    Concat,
    Conv,
    Delay,
    Gather,
    Linear,
    MaxPool,
    Neuron,
    Node,
    Output,
    Pool,
    Program,
    Reshape,
    Scale,
    is_spike_max_pool,
)
from stl_deploy.graph.run import run

Index = tuple[int, ...]
Tap = tuple[Index, Index, float]


def indices(shape: tuple[int, ...]) -> list[Index]:
    return list(product(*(range(n) for n in shape)))


def synapse_list(node: Node) -> tuple[list[Tap], int]:
    """Every (input, output, weight) inside the borders, and how many taps fell on padding."""
    taps: list[Tap] = []
    outside = 0
    if isinstance(node, Linear):
        for out in indices(node.shape):
            for i in range(node.weight.shape[1]):
                taps.append(((*out[:-1], i), out, float(node.weight[out[-1], i])))
    elif isinstance(node, Scale):
        scale = np.broadcast_to(node.scale, node.shape)
        taps = [(i, i, float(scale[i])) for i in indices(node.shape)]
    elif isinstance(node, Conv):
        in_per_group = node.weight.shape[1]
        out_per_group = node.weight.shape[0] // node.groups
        for out in indices(node.shape):
            group = out[0] // out_per_group
            for cell in indices(node.weight.shape[1:]):
                at = tuple(
                    o * s - before + k * d
                    for o, s, (before, _), k, d in zip(
                        out[1:], node.stride, node.padding, cell[1:], node.dilation, strict=True
                    )
                )
                if all(0 <= a < n for a, n in zip(at, node.input_shape[1:], strict=True)):
                    taps.append(((group * in_per_group + cell[0], *at), out, float(node.weight[(out[0], *cell)])))
                else:
                    outside += 1
    elif isinstance(node, Pool | MaxPool):
        lead = len(node.shape) - len(node.kernel)
        for out in indices(node.shape):
            for cell in indices(node.kernel):
                at = tuple(
                    o * s - before + k
                    for o, s, (before, _), k in zip(out[lead:], node.stride, node.padding, cell, strict=True)
                )
                if all(0 <= a < n for a, n in zip(at, node.input_shape[lead:], strict=True)):
                    taps.append(((*out[:lead], *at), out, 1.0))
                else:
                    outside += 1
    return taps, outside


def _delayed(x: np.ndarray, steps: int) -> np.ndarray:
    return np.concatenate([np.zeros_like(x[:steps]), x[: max(0, len(x) - steps)]])[: len(x)]


class Walk:
    """One program and its activity; every count by looking at every synapse, step and sample."""

    def __init__(self, program: Program, x: np.ndarray, coding: str) -> None:
        self.program, self.coding = program, coding
        self.y = dict(run(program, x, record=list(program.by_name)).recorded)
        self.x = {n.name: self._summed(n) for n in program.nodes if n.operands}
        self.T, self.B = x.shape[:2]
        self.lists = {n.name: synapse_list(n) for n in program.nodes}

    def _summed(self, node: Node) -> np.ndarray:
        if isinstance(node, Concat):
            return np.concatenate([_delayed(self.y[s.node], s.delay) for s in node.operands], axis=2)
        total = _delayed(self.y[node.operands[0].node], node.operands[0].delay)
        for source in node.operands[1:]:
            total = total + _delayed(self.y[source.node], source.delay)
        return total

    def layer(self, node: Node) -> dict[str, object]:
        if isinstance(node, MaxPool):
            return self.maximum(node)
        return self.neuron(node) if isinstance(node, Neuron) else self.tapped(node)

    def maximum(self, node: MaxPool) -> dict[str, object]:
        """Window by window: the first value is taken, every other is compared."""
        compares = 0
        for out in indices(node.shape):
            compares += len([at for at, to, _ in self.lists[node.name][0] if to == out]) - 1
        passes = self.T * self.B
        read, written = len(indices(node.input_shape)), len(indices(node.shape))
        return {"values_read": read * passes, "values_written": written * passes, "max_compares": compares * passes}

    def tapped(self, node: Node) -> dict[str, object]:
        taps, outside = self.lists[node.name]
        x = self.x[node.name]
        synops = nonzero_w = 0
        read = self.T - self.late(node.name)
        for t, b in product(range(read), range(self.B)):
            for at, _, w in taps:
                if x[(t, b, *at)] != 0:
                    synops += 1
                    nonzero_w += w != 0
        bias = getattr(node, "bias", None)
        counts: dict[str, object] = {
            "in_nonzero": sum(1 for value in x[: max(0, read)].ravel().tolist() if value != 0),
            "binary_input": all(value in (0.0, 1.0) for value in x[: max(0, read)].ravel().tolist()),
            "synops": synops,
            "synops_nonzero_w": nonzero_w,
            "synapses": len(taps),
            "dense_macs_exact": len(taps) * self.T * self.B,
            "dense_macs_nominal": (len(taps) + outside) * self.T * self.B,
            "bias_adds": 0 if bias is None else len(indices(node.shape)) * max(0, read) * self.B,
            "op": "AC" if self.binary(node) else "MAC",
        }
        counts |= self.fetched(node)
        folded = None if isinstance(node, Pool) else self.folded(node)
        if folded is not None:
            counts["synops_pool_folded"] = folded
        return counts

    def fetched(self, node: Node) -> dict[str, int]:
        """Different weights that events meet: sets of them, for each step and for each sample."""
        sets: dict[str, set[object]] = {"per_step": set(), "per_inference": set()}
        for t, b in product(range(self.T - self.late(node.name)), range(self.B)):
            for at, out, w in [] if isinstance(node, Pool) else self.lists[node.name][0]:
                if self.x[node.name][(t, b, *at)] != 0:
                    which = self.weight_of(node, at, out)
                    sets["per_step"].add((t, b, which, w != 0))
                    sets["per_inference"].add((b, which, w != 0))
        counts = {f"weights_{key}": len(met) for key, met in sets.items()}
        return counts | {f"weights_nonzero_{key}": sum(each[-1] for each in met) for key, met in sets.items()}

    def late(self, name: str, met: frozenset[str] = frozenset()) -> int:
        """Fewest steps around loops on any way from a node to an output; 0 where there is no way."""
        ways = self._ways(name, met)
        return min(ways) if ways else 0

    def _ways(self, name: str, met: frozenset[str]) -> list[int]:
        if not isinstance(self.program.by_name[name], Output):
            ways = []
            for reader in self.program.nodes:
                own = int(np.min(reader.steps)) if isinstance(reader, Delay) else 0
                for source in reader.operands:
                    if source.node == name and reader.name not in met:
                        around = self._leads(reader.name, name) and reader.name != name
                        steps = source.delay + own if around else 0
                        ways += [steps + way for way in self._ways(reader.name, met | {name})]
            return ways
        return [0]

    def _leads(self, start: str, end: str) -> bool:
        """Whether a value of one node can come to another."""
        reached, waiting = set(), [start]
        while waiting:
            if (name := waiting.pop()) not in reached:
                reached.add(name)
                waiting += [n.name for n in self.program.nodes if name in {s.node for s in n.operands}]
        return end in reached

    def weight_of(self, node: Node, at: Index, out: Index) -> Index:
        """Which stored weight a tap carries; a scale is one wherever it is broadcast to."""
        if isinstance(node, Linear):
            return (out[-1], at[-1])
        if isinstance(node, Scale):
            sizes = (1,) * (len(at) - node.scale.ndim) + node.scale.shape
            return tuple(a if size > 1 else 0 for a, size in zip(at, sizes, strict=True))
        if not isinstance(node, Conv):
            return at
        steps = zip(at[1:], out[1:], node.stride, node.padding, node.dilation, strict=True)
        return (out[0], at[0], *((a - o * s + before) // d for a, o, s, (before, _), d in steps))

    def binary(self, node: Node) -> bool:
        """Whether only 0 and 1 can arrive at the node."""
        if len(node.operands) != 1:
            return False
        before = self.program.by_name[node.operands[0].node]
        if isinstance(before, Neuron):
            return before.threshold is not None and not before.multi_spike
        if isinstance(before, Reshape | Delay | MaxPool | Gather):
            return self.binary(before)
        return not before.operands and self.coding == "spikes"

    def folded(self, node: Node) -> int | None:
        """Follow single events forward: through every window, then every synapse of the node."""
        chain: list[Node] = []
        here = node
        while len(here.operands) == 1 and here.operands[0].delay == 0:
            here = self.program.by_name[here.operands[0].node]
            if not (isinstance(here, Pool | Reshape) or is_spike_max_pool(self.program, here)):
                break
            chain.append(here)
        while chain and not isinstance(chain[-1], Pool):
            chain.pop()
        if not chain:
            return None
        first = chain[-1]
        x = self.x[first.name]
        total = 0
        for at in indices(first.input_shape):  # type: ignore[attr-defined]
            hits = [at]
            for stage in reversed(chain):
                if isinstance(stage, Pool):
                    hits = [out for hit in hits for i, out, _ in self.lists[stage.name][0] if i == hit]
                elif isinstance(stage, Reshape):
                    flat = [int(np.ravel_multi_index(hit, stage.input_shape)) for hit in hits]
                    hits = [tuple(int(v) for v in np.unravel_index(f, stage.shape)) for f in flat]
            crossed = sum(1 for hit in hits for i, _, _ in self.lists[node.name][0] if i == hit)
            read = self.T - self.late(first.name)
            total += crossed * sum(1 for t in range(read) for b in range(self.B) if x[(t, b, *at)] != 0)
        return total

    def neuron(self, node: Neuron) -> dict[str, object]:
        at = list(product(range(self.T), range(self.B), indices(node.shape)))
        count = len(indices(node.shape))
        return {
            "neurons": count,
            "neuron_updates": count * self.T * self.B,
            "neuron_updates_touched": sum(1 for t, b, i in at if self._arrives(node, t, b, i)),
            "spikes": int(sum(self.y[node.name].ravel().tolist())) if node.threshold is not None else 0,
        }

    def _arrives(self, node: Node, t: int, b: int, i: Index) -> bool:
        return any(self._leaves(self.program.by_name[s.node], t - s.delay, b, i) for s in node.operands)

    def _leaves(self, node: Node, t: int, b: int, i: Index) -> bool:
        if t < 0:
            return False
        if isinstance(node, Reshape):
            flat = int(np.ravel_multi_index(i, node.shape))
            before = tuple(int(v) for v in np.unravel_index(flat, node.input_shape))
            return self._arrives(node, t, b, before)
        if isinstance(node, Delay):
            return self._arrives(node, t - int(np.broadcast_to(node.steps, node.shape)[i]), b, i)
        if isinstance(node, Gather):
            place = int(node.indices[i])
            at = () if place < 0 else tuple(int(v) for v in np.unravel_index(place, node.input_shape))
            return place >= 0 and self._arrives(node, t, b, at)
        if isinstance(node, Concat):
            part, row = divmod(i[0], node.sizes[0])
            source = node.operands[part]
            return self._leaves(self.program.by_name[source.node], t - source.delay, b, (row, *i[1:]))
        if isinstance(node, MaxPool):
            return any(self._arrives(node, t, b, at) for at, to, _ in self.lists[node.name][0] if to == i)
        if not isinstance(node, Linear | Conv | Scale | Pool):
            return bool(self.y[node.name][(t, b, *i)] != 0)
        bias = getattr(node, "bias", None)
        if bias is not None and bias[i[-1] if isinstance(node, Linear) else i[0]] != 0:
            return True
        return any(out == i and self.x[node.name][(t, b, *at)] != 0 for at, out, _ in self.lists[node.name][0])

    def operations(self, node: Neuron) -> dict[str, int]:
        """Line by line of the neuron's equations, at every step of every neuron."""
        leaks = shifts = compares = resets = 0
        decays = [node.decay, None if node.synapse is None else node.synapse.decay]
        for t, b, at in product(range(self.T), range(self.B), indices(node.shape)):
            for decay in decays:
                values = [] if decay is None else np.ravel(decay).tolist()
                if any(v != 1 for v in values):
                    powers = [2.0**-k for k in range(150)]
                    shifted = all(v in powers for v in values) or all(1 - v in powers for v in values)
                    shifts, leaks = shifts + shifted, leaks + (not shifted)
            if node.threshold is not None:
                compares += 1
                resets += int(node.decay is not None and self.y[node.name][(t, b, *at)] != 0)
        return {"leak_muls": leaks, "leak_shifts": shifts, "threshold_cmps": compares, "resets": resets}

    def memory(self, node: Node) -> dict[str, object]:
        """Accesses, by walking: a weight and a potential at each crossed tap, a bias and a potential at each output."""
        return self._neuron_memory(node) if isinstance(node, Neuron) else self._tap_memory(node)

    def _tap_memory(self, node: Node) -> dict[str, object]:
        crossed = events = 0
        read = max(0, self.T - self.late(node.name))
        for t, b in product(range(read), range(self.B)):
            crossed += sum(1 for at, _, _ in self.lists[node.name][0] if self.x[node.name][(t, b, *at)] != 0)
            events += sum(1 for value in self.x[node.name][t, b].ravel().tolist() if value != 0)
        bias = getattr(node, "bias", None)
        biased = 0 if bias is None else sum(1 for _ in product(range(read), range(self.B), indices(node.shape)))
        stored = [getattr(node, field) for field in ("weight", "scale") if hasattr(node, field)]
        weights = len(stored[0].ravel().tolist()) if stored else 0
        places = len(indices(node.shape if isinstance(node, Scale) else node.input_shape))  # type: ignore[attr-defined]
        return {
            "weight_words": weights,
            "bias_words": 0 if bias is None else len(bias),
            "weight_bits": 32,
            "weight_bytes": 4 * (weights + (0 if bias is None else len(bias))),
            "weight_reads": 0 if isinstance(node, Pool) else crossed,
            "bias_reads": biased,
            "potential_reads": crossed + biased,
            "potential_writes": crossed + biased,
            "queue_reads": events,
            "queue_bits": _address(places) + (0 if self.binary(node) else 32),
        }

    def _neuron_memory(self, node: Neuron) -> dict[str, object]:
        kept = [node.decay is not None, node.synapse is not None]
        kept.append(node.threshold is not None and node.reset in ("subtract_delayed", "value_delayed"))
        places = len(indices(node.shape))
        moved = sum(kept) * places * self.T * self.B
        valued = node.multi_spike or node.threshold is None
        return {
            "state_words": sum(kept),
            "state_bits": 32,
            "state_bytes": 4 * sum(kept) * places,
            "state_reads": moved,
            "state_writes": moved,
            "queue_writes": sum(1 for value in self.y[node.name].ravel().tolist() if value != 0),
            "queue_bits": _address(places) + (32 if valued else 0),
        }


def _address(places: int) -> int:
    bits = 1
    while 2**bits < places:
        bits += 1
    return bits
