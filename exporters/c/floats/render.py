"""Render the files of a C folder with float32 as text: the same Program always gives the same bytes."""

from __future__ import annotations

import math
import re

import numpy as np
from numpy.typing import NDArray

from stl_deploy.exporters.c.floats.cells import literal
from stl_deploy.exporters.c.floats.network import Layout
from stl_deploy.exporters.c.names import in_comment
from stl_deploy.exporters.c.render import templates
from stl_deploy.graph.program import Program
from stl_deploy.integers.store import About

_FILES = {"net.c.j2": "{}.c", "net.h.j2": "{}.h", "main.c.j2": "main.c", "Makefile.j2": "Makefile"}
_A_LINE = 8


def render(program: Program, layout: Layout, about: About) -> dict[str, str]:
    """Return each file's text by its name."""
    context = {
        "title": in_comment(about.title),
        "source": in_comment(about.source),
        "version": in_comment(about.made_by),
        "P": about.prefix,
        "U": about.prefix.upper(),
        "flash": f"{layout.flash.total():,}",
        "state_bytes": layout.state_bytes,
        "shapes": [
            *(f"x: {in_comment(node.name)}, {list(node.shape)}" for node in program.inputs),
            *(f"y: {in_comment(node.name)}, {list(node.shape)}" for node in program.outputs),
        ],
        "inputs": sum(math.prod(node.shape) for node in program.inputs),
        "outputs": sum(math.prod(node.shape) for node in program.outputs),
        "members": [(member, in_comment(member.about)) for member in layout.members],
        "tables": layout.tables,
        "kernels": layout.kernels,
        "statements": [*layout.statements, *_results(layout)],
        "mathematics": _needs_mathematics(layout),
        "recorded": [(place.replace("s->", "state."), size) for place, size in layout.recorded.values()],
        "numbers": numbers,
    }
    return {
        name.format(about.prefix): templates().get_template(f"floats/{template}").render(context)
        for template, name in _FILES.items()
    }


def _results(layout: Layout) -> list[str]:
    lines, at = [], 0
    for place, size in layout.outputs:
        lines.append(f"memcpy(y{f' + {at}' if at else ''}, {place}, {size} * sizeof(float));")
        at += size
    return lines


def _needs_mathematics(layout: Layout) -> bool:
    """Return whether the C calls functions of math.h, or names infinity."""
    if "largest" in layout.kernels or any(np.isinf(table.values).any() for table in layout.tables):
        return True
    return any("INFINITY" in line or re.search(r"\b(?!sizeof)[a-z0-9]+f\(", line) for line in layout.statements)


def numbers(values: NDArray[np.generic]) -> str:
    """Return the lines of an array's numbers."""
    if values.dtype == np.float32 and np.isfinite(values).all():  # millions: as `literal` writes each
        texts = (f"{value:.9g}" for value in values.tolist())
        written = [f"{text}f" if "." in text or "e" in text else f"{text}.0f" for text in texts]
    else:
        written = [literal(value) for value in values]
    lines = (", ".join(written[at : at + _A_LINE]) for at in range(0, len(written), _A_LINE))
    return ",\n".join(f"    {line}" for line in lines)
