"""Render the files of a C folder as text: the same integers always give the same bytes."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from stl_deploy.exporters.c.names import in_comment
from stl_deploy.exporters.c.plan import BYTES, Plan, Recorded, Share, Step
from stl_deploy.integers.store import About

_FILES = {"net.c.j2": "{}.c", "net.h.j2": "{}.h", "main.c.j2": "main.c", "Makefile.j2": "Makefile"}
_DECISION_FILES = {"decide.c.j2": "{}_decide.c", "decide.h.j2": "{}_decide.h"}
"""Names of files by their templates; {} is the prefix. The second: where the outputs are scores of classes."""
WIDTH = 120
"""Columns of a line of C."""
_LITERALS = 106
"""Characters of a line of numbers, behind its indent of 4."""
_WORD = 8
"""Characters of a number of 16 bits with its comma and blank, at most."""
_AT_ONCE = 2**14
"""Numbers that are written at a time, so that they stay in the cache."""
MOST_NAMES = 1000
"""Class names in the header."""


def render_plan(plan: Plan, about: About) -> dict[str, str]:
    """Return each file's text by its name."""
    decision = _decision(plan, about)
    context = _context(plan, about) | {"decision": decision} | (decision or {})
    names = _FILES | (_DECISION_FILES if decision else {})
    return {name.format(about.prefix): _rendered(template, context) for template, name in names.items()}


def _rendered(template: str, context: Mapping[str, Any]) -> str:
    """Render a template, wrapped; tables of numbers, millions of lines that all fit, enter last."""
    tables = list[str]()

    def numbers(values: NDArray[Any]) -> str:
        tables.append(literals(values))
        return "\0"

    text = _wrapped(templates().get_template(template).render(context, numbers=numbers))
    start, *between = text.split("\0")
    return start + "".join(table + after for table, after in zip(tables, between, strict=True))


def _wrapped(text: str) -> str:
    """Break long lines of C at the last comma that fits, aligned below the first argument."""
    return "\n".join(line if len(line) <= WIDTH else "\n".join(_broken(line)) for line in text.split("\n"))


def _broken(line: str) -> Iterator[str]:
    indent = line.find("(") + 1
    while len(line) > WIDTH and 0 < indent < (at := line.rfind(", ", 0, WIDTH)):
        yield line[: at + 1]
        line = " " * indent + line[at + 2 :]
    yield line


def _decision(plan: Plan, about: About) -> dict[str, Any] | None:
    """Return fields of the decision's template; None if the outputs are no list of classes."""
    readout = about.decision(plan.graph.output.shape)
    if readout is None:
        return None
    votes = "" if readout.population == 1 else f" of votes, sums of {readout.population} outputs,"
    rules = {
        "max": f"the greatest{votes or ' output'} over time",
        "last": f"the greatest{votes or ' output'} of the last step",
        "first": f"the first{votes or ' output'} above 0, of those in one step the greatest",
    }
    every = f"the greatest{votes or ' output'} of each step"
    sure = {
        "max": "the leader is ahead of the next by `margin` or more",
        "last": "the leader is ahead of the next by `margin` or more",
        "first": "some class has spiked, which settles it (`margin` says nothing here)",
    }
    return {
        "classes": plan.graph.output.shape[0] // readout.population,
        "population": readout.population,
        "over_time": readout.over_time,
        "per_step": about.per_step,
        "rule": every if about.per_step else rules.get(str(readout.over_time), f"the greatest sum{votes} over time"),
        "sure": sure.get(
            str(readout.over_time),
            "the leader is ahead of the next by `margin` or more in the mean over the steps taken",
        ),
    }


@cache
def templates() -> Environment:
    """Return the folder of the templates."""
    return Environment(
        loader=PackageLoader("stl_deploy.exporters.c", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _context(plan: Plan, about: About) -> dict[str, Any]:
    graph = plan.graph
    steps = plan.statements
    forms = {(step.kind, tuple(step.fields["form"])) for step in steps if "form" in step.fields}
    weighted = {(kind, form) for kind, form in forms if kind in _WEIGHTED}
    functions = {(kind, form) for kind, form in forms if kind not in ("reorder", "delay", "gather")}
    functions |= {("add", form) for kind, form in forms if kind == "sum_pool"}
    kinds = {step.kind for step in steps}
    if "or_pool" in kinds:
        functions |= {("or_row", ()), ("or_pool", ())}
    shapes = {step.layer: step.numbers for step in steps if "layer" in step.fields}
    shares = list(plan.shares.values())
    pairs = {form[1] for kind, form in weighted if kind != "conv" and form[0] == "spikes"}
    leveled = {form[1] for kind, form in weighted if kind == "conv_levels"}
    widest = max((BYTES[ctype] for ctype in plan.sums), default=4)
    for name, share in plan.shares.items():
        share.measured = about.measured.get(name)
    return {
        "title": in_comment(about.title),
        "source": in_comment(about.source),
        "version": in_comment(about.made_by),
        "P": about.prefix,
        "U": about.prefix.upper(),
        "input": next(step for step in plan.steps if step.kind == "input"),
        "events": math.prod(graph.input.shape) <= 2**16,
        "state_bytes": plan.ram,
        "steps_told": about.steps,
        "trained": about.trained,
        "class_names": _class_names(about),
        "dt": f"{about.dt:g}" if about.dt else "",
        "wide_members": [buffer for buffer in plan.members if BYTES[buffer.ctype] >= widest],
        "narrow_members": [buffer for buffer in plan.members if BYTES[buffer.ctype] < widest],
        "inputs": math.prod(graph.input.shape),
        "outputs": math.prod(graph.output.shape),
        "low": graph.input.low,
        "high": graph.input.high,
        "input_shape": _shape(graph.input.shape),
        "output_shape": _shape(graph.output.shape),
        "input_meaning": "" if graph.input.scale == 1 else f"; each is {graph.input.scale:g} times the real input",
        "unit": f"{graph.output.unit:.9g}",
        "memory_map": memory_map(plan, shares),
        "shares": shares,
        "steps": _of_a_step(plan),
        "begins": plan.begins,
        "shapes": shapes,
        "shape_fields": _shape_fields(shapes),
        "sums": {ctype: count + plan.padding for ctype, count in plan.sums.items()},
        "row_spikes": plan.row_spikes,
        "recorded": sum(math.prod(population.shape) for population in plan.recorded),
        "recorded_layers": [(kept.offset, in_comment(kept.node), _stored_order(kept)) for kept in plan.recorded],
        "rules": plan.rules,
        "passes": {rule.passes for rule in plan.rules},
        "u_top": graph.accumulator.u_top,
        "v_top": graph.accumulator.v_top,
        "clips": {rule.clips for rule in plan.rules},
        "blocks": [block for block in BLOCKS if any(_tiles(block, count) for count in plan.pairs)],
        "pair_takers": sorted(pairs),
        "leveled": sorted(leveled),
        "halves": sorted(pairs | leveled),
        "dotted": sorted({form[1] for kind, form in weighted if kind in ("conv_window", "conv_levels")}),
        "spiked": any(form[0] == "spikes" for _, form in weighted),
        "windows": "conv_window" in kinds,
        "row_adders": sorted({form[1] for kind, form in weighted if kind == "conv" and form[0] == "spikes"}),
        "ones": [_ones(number) for number in range(256)],
        "time_adders": sorted({form[1] for kind, form in weighted if form[0] != "spikes" and kind != "conv_levels"}),
        "functions": sorted(functions, key=lambda rule: (_ORDER.index(rule[0]), rule[1])),
    }


def _stored_order(population: Recorded) -> str:
    """Return the axes of a layer's recorded spikes, as ``[H, W, C] = [4, 4, 2]`` for an image stored channels last."""
    channels, *places = population.shape
    if not places or list(population.order) == sorted(population.order):
        return _shape(population.shape)
    return f"[{', '.join(('H', 'W')[-len(places) :])}, C] = {_shape((*places, channels))}"


def _class_names(about: About) -> list[str]:
    """Return lines of a comment: the name of each class, cut to 40 characters."""
    names = ", ".join(f"{i} {in_comment(name[:40])}" for i, name in enumerate(about.classes[:MOST_NAMES]))
    if len(about.classes) > MOST_NAMES:
        names += ", ..."
    return textwrap.wrap(names, WIDTH - 14, break_on_hyphens=False)


def _of_a_step(plan: Plan) -> list[Step]:
    """Return the statements of a step without its input, which each form handles itself."""
    taken = next(i for i, step in enumerate(plan.steps) if step.kind == "input")
    return [*plan.steps[: taken - 1], *plan.steps[taken + 1 :], *plan.last]


_WEIGHTED = ("dense", "conv_window", "conv_levels", "conv", "conv_any")
_ORDER = (
    "clear",
    "fill",
    "add",
    "gain",
    "product",
    "multiply",
    *_WEIGHTED,
    "sum_pool",
    "max_pool",
    "or_row",
    "or_pool",
)

BLOCKS = (32, 16, 8)
"""Pairs that a row function adds at once: what vector registers hold over all spikes of a window."""


def _tiles(block: int, pairs: int) -> bool:
    """Return whether a row uses this block: as many of the largest as fit, and at most one of each other."""
    return pairs >= block if block == BLOCKS[0] else bool(pairs & block)


def _ones(number: int) -> list[int]:
    """Return the positions of the 1 bits of a byte, padded with 0, and their number."""
    places = [bit for bit in range(8) if number >> bit & 1]
    return [*places, *[0] * (8 - len(places)), len(places)]


def _shape_fields(shapes: Mapping[str, Mapping[str, int]]) -> list[str]:
    fields: dict[str, None] = {}
    for numbers in shapes.values():
        fields |= dict.fromkeys(numbers)
    return list(fields)


def memory_map(plan: Plan, shares: list[Share]) -> str:
    """Return the lines of the header's table."""
    lines = [f" *   {'layer':<24}{'flash':>9}{'RAM':>9}{'synops, at most':>17}{'measured':>12}  what"]
    for share in shares:
        seen = "" if share.measured is None else f"{share.measured:,.0f}"
        most = f"{share.synops:,}" if share.synops else ""
        lines.append(f" *   {share.node[:23]:<24}{share.flash:>9,}{share.ram:>9,}{most:>17}{seen:>12}  {share.what}")
    if plan.shared_ram:
        lines.append(f" *   {'shared':<24}{0:>9,}{plan.shared_ram:>9,}")
    padding = plan.ram - sum(share.ram for share in shares) - plan.shared_ram
    if padding:
        lines.append(f" *   {'padding':<24}{0:>9,}{padding:>9,}")
    total = sum(share.synops for share in shares)
    counted = [share.measured for share in shares if share.measured is not None]
    measured = f"{sum(counted):,.0f}" if counted else ""
    lines.append(f" *   {'total':<24}{plan.flash:>9,}{plan.ram:>9,}{total:>17,}{measured:>12}")
    return "\n".join(line.rstrip() for line in lines)


def _shape(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(str(size) for size in shape)}]"


def literals(values: NDArray[Any]) -> str:
    """Return lines of comma-separated numbers for an array initialiser, as `textwrap.fill` would break them.

    A network has millions of them: in a long array they are looked up, many at once, and lines may be shorter than
    they could be.
    """
    numbers = np.asarray(values, np.int64).reshape(-1)
    if len(numbers) <= _AT_ONCE or numbers.min() < -(2**15) or numbers.max() >= 2**16:
        return ",\n".join(_lines("".join(f"{number}, " for number in numbers.tolist())[:-2]))
    parts = (numbers[start : start + _AT_ONCE] for start in range(0, len(numbers), _AT_ONCE))
    return b",\n".join(_filled(_words()[part + 2**15].tobytes().translate(None, b"\0")) for part in parts).decode(
        "ascii"
    )


@cache
def _words() -> NDArray[np.uint64]:
    """Return the numbers of 16 bits, with or without a sign, each with a comma and a blank: 8 characters in one."""
    return np.array([f"{number}, " for number in range(-(2**15), 2**16)], f"S{_WORD}").view(np.uint64)


def _filled(words: bytes) -> bytes:
    """Break a text of `_words` at the last comma before each multiple of a line's length."""
    text = np.frombuffer(bytearray(words[:-2]), np.uint8)
    commas = np.arange(length := _LITERALS - _WORD + 1, len(text), length)
    for _ in range(_WORD - 1):
        commas -= text[commas] != ord(",")
    text[commas + 1] = ord("\n")
    return b"    " + text.tobytes().replace(b"\n", b"\n    ")


def _lines(text: str) -> Iterator[str]:
    """Break a text behind as many of its words as fit."""
    past = 0
    while len(text) - past > _LITERALS:
        last = text.rfind(",", past, past + _LITERALS)
        yield "    " + text[past:last]
        past = last + 2
    yield "    " + text[past:]
