"""Lay out the engine's memories and program: the .hex files and the table of entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from stl_deploy.exporters.verilog.plan import Lanes, Map, Pass, Plan, Pool, Scan, Taps, bits
from stl_deploy.integers.net import DECAY_ONE

LEAST_ADDRESS = 6
"""Bits of an address of weights: the engine adds a lane's number to it."""


@dataclass
class TapTable:
    """Taps of the rows, or of the columns, of all scans: each place has the number of its taps and where they begin."""

    places: list[tuple[int, int]] = field(default_factory=list)
    taps: list[tuple[int, int]] = field(default_factory=list)
    _known: dict[Taps, int] = field(default_factory=dict)
    _lists: dict[tuple[tuple[int, int], ...], int] = field(default_factory=dict)

    def add(self, taps: Taps) -> int:
        """Return the start of a scan's places; equal ones are kept once."""
        if taps not in self._known:
            self._known[taps] = len(self.places)
            self.places += [(len(axis_taps), self._list(axis_taps)) for axis_taps in taps]
        return self._known[taps]

    def _list(self, place_taps: tuple[tuple[int, int], ...]) -> int:
        if not place_taps:
            return 0
        if place_taps not in self._lists:
            self._lists[place_taps] = len(self.taps)
            self.taps += place_taps
        return self._lists[place_taps]


@dataclass
class Memories:
    """Words of every memory, and the fields of every entry of the program."""

    lanes: int
    weights: list[Lanes] = field(default_factory=list)
    weight_words: int = 0
    rows: TapTable = field(default_factory=TapTable)
    columns: TapTable = field(default_factory=TapTable)
    entries: list[dict[str, int]] = field(default_factory=list)
    _known: dict[bytes, int] = field(default_factory=dict)

    def add_weights(self, words: Lanes) -> int:
        """Return the start of words of weights; equal ones are kept once."""
        key = words.tobytes()
        if key not in self._known:
            self._known[key] = self.weight_words
            self.weights.append(words)
            self.weight_words += len(words)
        return self._known[key]

    def pad(self, words: int) -> None:
        """Add words of 0 until there are as many."""
        missing = words - self.weight_words
        if missing > 0:
            self.weights.append(np.zeros((missing, self.lanes), np.int64))
            self.weight_words = words

    @property
    def all_weights(self) -> Lanes:
        """Return all weights ``[N, lanes]``."""
        return np.concatenate(self.weights)


def memories_of(plan: Plan) -> Memories:
    """Lay out the memories of a plan."""
    made = Memories(plan.lanes)
    layers = {layer.name: index for index, layer in enumerate(plan.layers)}
    for entry in plan.entries:
        if isinstance(entry, Scan):
            fields = _scan(plan, entry, made)
        elif isinstance(entry, Pool):
            fields = _pool(plan, entry, made, layers)
        else:
            fields = _pass(plan, entry, made, layers)
        made.entries.append({name: value for name, value in fields.items() if value})
    address = max(LEAST_ADDRESS, bits(plan.frame * plan.kept_steps - 1))  # pools read spikes by addresses of weights
    made.pad(2 ** (address - 1) + 1)
    return made


def _scan(plan: Plan, scan: Scan, made: Memories) -> dict[str, int]:
    how, of_input = scan.map, scan.source == plan.graph.input.name
    base = plan.values[scan.to] if scan.to_value else plan.states[scan.to]
    spikes = scan.source in plan.spikes
    return {
        "op": 1,
        "state_base": base,
        "weight_base": made.add_weights(how.weights),
        "spike_base": plan.spikes[str(scan.source)] if spikes else 0,
        "group_last": how.groups - 1,
        "from_input": int(of_input),
        "from_one": int(scan.source is None),
        "back_steps": scan.delay,
        "back_words": scan.delay * plan.frame if spikes else 0,
        "back_inputs": scan.delay * int(np.prod(plan.graph.input.shape)) if of_input else 0,
        "outer_last": how.outers - 1,
        "outer_step": how.outer_step if how.outers > 1 else 0,
        "shift": how.shift,
        **_places(how, made),
    }


def _places(how: Map, made: Memories) -> dict[str, int]:
    return {
        "row_last": len(how.rows) - 1,
        "row_base": made.rows.add(how.rows),
        "col_last": len(how.columns) - 1,
        "col_base": made.columns.add(how.columns),
        "word_last": how.words - 1,
        "word_step": how.word_step if how.words > 1 else 0,
    }


def _pool(plan: Plan, pool: Pool, made: Memories, layers: dict[str, int]) -> dict[str, int]:
    return {
        "op": 3,
        "weight_base": plan.spikes[pool.source],
        "spike_base": plan.spikes[pool.name],
        "layer": layers[pool.name],
        **_places(pool.map, made),
    }


def _pass(plan: Plan, layer: Pass, made: Memories, layers: dict[str, int]) -> dict[str, int]:
    layout = layer.layout
    last = layout.channels - (layout.groups - 1) * layout.lanes
    keep_from, filter_from = (0 if layer.by_neuron else _lowest_bit(keep) for keep in (layer.keep, layer.filter_keep))
    return {
        "op": 2,
        "state_base": plan.states[layer.name],
        "weight_base": made.add_weights(layer.parameters),
        "spike_base": plan.spikes.get(layer.name, 0),
        "back_words": plan.frame if plan.kept_steps > 1 else 0,
        "layer": layers[layer.name],
        "pass_last": layout.words - 1,
        "repeat_last": layer.repeat - 1,
        "value_base": plan.values.get(layer.name, 0),
        "filtered": int(layer.filtered),
        "spiking": int(layer.spiking),
        "emits": int(layer.emits),
        "subtracts": int(layer.soft),
        "late": int(layer.late),
        "more": layer.most - 1,
        "keep": layer.keep >> keep_from,
        "keep_from": keep_from,
        "filter_keep": layer.filter_keep >> filter_from,
        "filter_from": filter_from,
        "last_lanes": (1 << last) - 1,
    }


def _lowest_bit(keep: int) -> int:
    """Return the lowest bit of the multiplication by ``keep`` of 4096."""
    return 12 if keep in (0, DECAY_ONE) else (keep & -keep).bit_length() - 1


def parameters_of(plan: Plan, made: Memories) -> dict[str, int]:
    """Return the parameters of snn_engine.v, each derived from its counts."""

    def most(name: str) -> int:
        return max((entry.get(name, 0) for entry in made.entries), default=0)

    widths, inputs = plan.widths, int(np.prod(plan.graph.input.shape))
    fans = [count for table in (made.rows, made.columns) for count, _ in table.places]
    spike_words, input_words = plan.frame * plan.kept_steps, inputs * plan.kept_inputs
    return {
        "LANES": plan.lanes,
        "MULTIPLIERS": plan.multipliers,
        "WEIGHT_BITS": widths.weight,
        "STATE_BITS": widths.state,
        "CLIP": int(widths.clip),
        "THRESH_BITS": widths.threshold,
        "VALUE_BITS": widths.value,
        "KEEP_BITS": 13 if widths.keeps else 0,
        "BIAS_BITS": widths.bias,
        "LOADS": widths.loads,
        "IN_BITS": widths.input,
        "OUT_BITS": widths.output,
        "OUT_SHIFT": widths.output_shift,
        "SPIKE_BITS": widths.spikes,
        "INPUTS": inputs,
        "INPUT_ADDR": bits(input_words - 1),
        "INPUT_WORDS": input_words,
        "SPIKE_ADDR": bits(spike_words - 1),
        "SPIKE_WORDS": spike_words,
        "FRAME": plan.frame,
        "STEP_BITS": bits(plan.longest),
        "STATE_ADDR": bits(plan.state_words - 1),
        "STATE_WORDS": plan.state_words,
        "WEIGHT_ADDR": bits(made.weight_words - 1),
        "WEIGHT_WORDS": made.weight_words,
        "ENTRY_BITS": bits(len(made.entries)),
        "LAYER_BITS": bits(most("layer")),
        "SHIFT_BITS": widths.shift,
        "FACTOR_BITS": widths.factor,
        "OUTER_BITS": bits(most("outer_last")),
        "ROW_BITS": bits(most("row_last")),
        "COL_BITS": bits(most("col_last")),
        "WORD_BITS": bits(most("word_last")),
        "GROUP_BITS": bits(most("group_last")),
        "PASS_BITS": bits(max(most("pass_last"), most("repeat_last"))),
        "FAN_BITS": bits(max(fans, default=1)),
        "ROW_ADDR": bits(len(made.rows.places) - 1),
        "ROW_WORDS": len(made.rows.places),
        "COL_ADDR": bits(len(made.columns.places) - 1),
        "COL_WORDS": len(made.columns.places),
        "ROW_TAP_ADDR": bits(len(made.rows.taps) - 1),
        "ROW_TAPS": len(made.rows.taps),
        "COL_TAP_ADDR": bits(len(made.columns.taps) - 1),
        "COL_TAPS": len(made.columns.taps),
    }


def hex_files(plan: Plan, made: Memories, sizes: dict[str, int]) -> dict[str, str]:
    """Return the memories as $readmemh reads them."""
    tables = {f"{name}.hex": _lines(numbers, width) for name, (numbers, width) in tables_of(made, sizes).items()}
    return {"weights.hex": _weights(made.all_weights, plan.widths.weight), **tables}


def tables_of(made: Memories, sizes: dict[str, int]) -> dict[str, tuple[list[int], int]]:
    """Return the words of the tables of rows, columns and taps, and their widths."""
    weight = sizes["WEIGHT_ADDR"]

    def places(table: TapTable, address: int) -> tuple[list[int], int]:
        return [count << address | first for count, first in table.places], sizes["FAN_BITS"] + address

    def taps(table: TapTable) -> tuple[list[int], int]:
        return [to << weight | at for to, at in table.taps], sizes["STATE_ADDR"] + weight

    return {
        "rows": places(made.rows, sizes["ROW_TAP_ADDR"]),
        "columns": places(made.columns, sizes["COL_TAP_ADDR"]),
        "row_taps": taps(made.rows),
        "column_taps": taps(made.columns),
    }


def flash_image(plan: Plan, made: Memories) -> bytes:
    """Return PREFIX_weights.bin: the words of PREFIX_weights.hex as snn_flash.v reads them, the highest byte first."""
    digits = 2 * -(-plan.lanes * plan.widths.weight // 8)
    text = _weights(made.all_weights, plan.widths.weight)
    return b"".join(bytes.fromhex(line.zfill(digits)) for line in text.split())


def _lines(numbers: Sequence[int], width: int) -> str:
    digits = -(-width // 4)
    return "".join(f"{number:0{digits}x}\n" for number in numbers)


def _weights(words: Lanes, width: int) -> str:
    lanes = words.shape[1]
    shifts = [width * lane for lane in range(lanes)]
    masked = (words & ((1 << width) - 1)).tolist()
    numbers = [sum(value << shift for value, shift in zip(word, shifts, strict=True)) for word in masked]
    return _lines(numbers, width * lanes)
