"""Clocks of the engine by the integer model, without running Verilog."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stl_deploy.exporters.verilog.memories import Memories, memories_of
from stl_deploy.exporters.verilog.plan import Map, Pass, Plan, Pool, Scan, recorded

REREAD = 4
"""Clocks until a word of potentials that was added to is read again."""
ADD_STAGES, POOL_STAGES = 7, 5
"""Clocks from an event's last tap until its pipeline is empty."""


def clocks_of(plan: Plan, x: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return clocks of each sample ``[B]`` of integer inputs ``x`` ``[T, B, *shape]``, if neither end waits."""
    made, inputs = memories_of(plan), math.prod(plan.graph.input.shape)
    spikes = {name: _lanes(plan, name, counts) for name, counts in recorded(plan, x).spikes.items()}
    words = {name: np.count_nonzero(counts, axis=-1) for name, counts in spikes.items()}
    words[plan.graph.input.name] = (x.reshape(*x.shape[:2], -1) != 0).astype(np.int64)
    total = np.full(x.shape[1], plan.state_words, np.int64)
    for step in range(len(x)):
        total += inputs + 3  # the program's end, and the step's
        for index, entry in enumerate(plan.entries):
            total += 2  # an entry is read
            if isinstance(entry, Pass):
                total += _pass(plan, entry, made, index, spikes[entry.name][step] if entry.most > 1 else None)
            elif isinstance(entry, Pool):
                total += _walk(entry.map, np.ones(_places(entry.map), np.int64), 1, POOL_STAGES)
            elif entry.delay <= step:
                total += _scan(entry, words, step)
    return total


def _lanes(plan: Plan, name: str, spikes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the spikes of a layer in words ``[T, B, words, lanes]``."""
    layout = next(layer.layout for layer in plan.layers if layer.name == name)
    spread = np.zeros((*spikes.shape[:2], layout.words * layout.lanes), np.uint8)
    spread[..., layout.place()] = spikes.reshape(*spikes.shape[:2], -1)
    return spread.reshape(*spikes.shape[:2], layout.words, layout.lanes)


def _places(how: Map) -> int:
    return how.outers * len(how.rows) * len(how.columns) * how.words


def _scan(scan: Scan, words: dict[str, NDArray[np.int64]], step: int) -> NDArray[np.int64]:
    if scan.source is None:
        return np.asarray(_walk(scan.map, np.ones(_places(scan.map), np.int64), REREAD, ADD_STAGES))
    events = words[scan.source][step - scan.delay]
    return np.array([_walk(scan.map, sample, REREAD, ADD_STAGES) for sample in events], np.int64)


def _walk(how: Map, events: Sequence[int] | NDArray[np.int64], reread: int, stages: int) -> int:
    """Return the clocks of a scan or a pool: a place is read during the walk of the one before."""
    fans = np.outer([len(taps) for taps in how.rows], [len(taps) for taps in how.columns]).reshape(-1)
    taps = np.tile(np.repeat(fans, how.words), how.outers) * how.groups
    counts = np.where(taps > 0, events, 0)
    places, sequences = len(fans) * how.words, dict[int, Words]()
    recent: Recent = []
    handed, last, free = 0, -2, 0  # when the place before was handed on; which it was; when the next can be
    for place in np.flatnonzero(counts).tolist():
        at = place % places // how.words
        if at not in sequences:
            sequences[at] = _reached(how, at)
        handed = max(handed + place - last, free)
        recent, free = _issue(recent, sequences[at], handed, reread)
        if counts[place] > 1:
            others = (int(counts[place]) - 1) * _pace(sequences[at], reread)
            handed, free = handed + others, free + others
            recent = [(word, time + others) for word, time in recent]
        last = place
    read = handed + len(counts) - last - 2
    added = free + stages + 1 if last >= 0 else 0
    return max(read + 2, added) + 1


Recent = list[tuple[int, int]]
"""The last words that were added to, and when: as many as may still be on their way."""
Words = list[tuple[int, int]]
"""Words that an event adds to, and the clocks until the next one if that need not wait."""


def _reached(how: Map, at: int) -> Words:
    """Return the words that an event at a place adds to, in order; of many only those that could wait."""
    row, column = divmod(at, len(how.columns))
    words = [
        down + along + group
        for down, _ in how.rows[row]
        for along, _ in how.columns[column]
        for group in range(how.groups)
    ]
    near, inner = REREAD - 1, len(words) - 2 * (REREAD - 1)
    waits = any(word in words[i + 1 : i + 1 + near] for i, word in enumerate(words))
    if inner <= 0 or waits:
        return [(word, 1) for word in words]
    return [*((word, 1) for word in words[: near - 1]), (words[near - 1], 1 + inner), *((w, 1) for w in words[-near:])]


def _issue(recent: Recent, words: Words, start: int, reread: int) -> tuple[Recent, int]:
    """Add to words one a clock, those still on their way later; return the last of them, and the clock behind."""
    free = start
    for word, clocks in words:
        time = max([free, *(before + reread for other, before in recent if other == word)])
        recent = [*recent[2 - REREAD :], (word, time)]
        free = time + clocks
    return recent, free


def _pace(words: Words, reread: int) -> int:
    """Return the clocks from one of several events at a place to the next."""
    recent, free = _issue([], words, 0, reread)
    return _issue(recent, words, free, reread)[1] - free


def _pass(
    plan: Plan, layer: Pass, made: Memories, index: int, counts: NDArray[np.uint8] | None
) -> int | NDArray[np.int64]:
    fields, loads, words = made.entries[index], plan.widths.loads, layer.layout.words
    resets = plan.widths.value > 0 and counts is None
    body = 2 + resets + 13 - fields.get("keep_from", 0) + (layer.soft and layer.late)
    if layer.filtered:
        body += 1 + 13 - fields.get("filter_from", 0)
    # The next word is read while this one leaks.
    ahead = not (layer.filtered or layer.late or layer.emits) and fields.get("keep_from", 0) < 12
    outputs = layer.layout.channels * layer.layout.height * layer.layout.width if layer.emits else 0
    fixed = 1 + loads + outputs
    if counts is None:
        return fixed + (words - 1) * max(body - ahead, loads) + body
    # A clock for each spike of a word's most, and one in which none fires any more.
    of_words = body + np.minimum(counts.max(axis=-1).astype(np.int64), layer.most - 1)
    waits = np.maximum(of_words[:, :-1] - ahead, loads).sum(axis=1)
    return np.asarray(fixed + waits + of_words[:, -1], np.int64)
