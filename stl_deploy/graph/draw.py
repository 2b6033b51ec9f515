"""Draw a network as a small SVG: boxes from top to bottom, loops dashed at the side.

Needs no other module.
"""

from __future__ import annotations

from html import escape

from stl_deploy.graph.program import Conv, Input, Linear, Neuron, Node, Output, Program

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 176, 40, 24, 28, 16
_FILL: tuple[tuple[type[Node], str], ...] = (
    (Input, "#e8eef7"),
    (Output, "#e8eef7"),
    (Neuron, "#fde8d0"),
    (Linear, "#e3f2e1"),
    (Conv, "#e3f2e1"),
)
_OTHER = "#f3f3f3"


def svg(program: Program) -> str:
    """Return the network as SVG text; solid arrows carry this step's values, dashed ones an earlier step's."""
    places = _places(program)
    right = max(x for x, _ in places.values()) + _WIDTH + _MARGIN
    loops = sum(source.delay > 0 for node in program.nodes for source in node.operands)
    width, height = right + 14 * loops + _MARGIN * (loops > 0), max(y for _, y in places.values()) + _HEIGHT + _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="11">',
        '<defs><marker id="tip" viewBox="0 0 6 6" refX="6" refY="3" markerWidth="6" markerHeight="6" orient="auto">'
        '<path d="M0 0L6 3L0 6z" fill="#555"/></marker></defs>',
        *_edges(program, places, right),
        *(_box(node, *places[node.name]) for node in program.nodes),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _places(program: Program) -> dict[str, tuple[int, int]]:
    """Return the top left corner of each box; the row is the longest path from an input."""
    rows: dict[int, list[str]] = {}
    depth: dict[str, int] = {}
    for node in program.nodes:
        before = [depth[source.node] for source in node.operands if not source.delay]
        depth[node.name] = max(before, default=-1) + 1
        rows.setdefault(depth[node.name], []).append(node.name)
    widest = max(len(names) for names in rows.values())
    step = _WIDTH + _GAP_X
    return {
        name: (_MARGIN + column * step + (widest - len(names)) * step // 2, _MARGIN + row * (_HEIGHT + _GAP_Y))
        for row, names in rows.items()
        for column, name in enumerate(names)
    }


def _edges(program: Program, places: dict[str, tuple[int, int]], right: int) -> list[str]:
    lines, lane = [], right
    for node in program.nodes:
        x, y = places[node.name]
        for source in node.operands:
            from_x, from_y = places[source.node]
            if source.delay:
                start, end = (from_x + _WIDTH, from_y + _HEIGHT // 2), (x + _WIDTH, y + _HEIGHT // 2)
                path = f"M{start[0]} {start[1]}H{lane}V{end[1]}H{end[0]}"
                lane += 14
            else:
                start, end = (from_x + _WIDTH // 2, from_y + _HEIGHT), (x + _WIDTH // 2, y)
                middle = (start[1] + end[1]) // 2
                path = f"M{start[0]} {start[1]}C{start[0]} {middle} {end[0]} {middle} {end[0]} {end[1]}"
            dashes = ' stroke-dasharray="4 3"' if source.delay else ""
            lines.append(f'<path d="{path}" fill="none" stroke="#555"{dashes} marker-end="url(#tip)"/>')
    return lines


def _box(node: Node, x: int, y: int) -> str:
    fill = next((colour for kind, colour in _FILL if isinstance(node, kind)), _OTHER)
    shape = "×".join(map(str, node.shape)) or "1"
    name = node.name if len(node.name) <= 26 else f"{node.name[:25]}…"
    title, label = (escape(text, quote=False) for text in (node.name, name))
    return (
        f'<g><title>{title}</title><rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="5" '
        f'fill="{fill}" stroke="#888"/>'
        f'<text x="{x + _WIDTH // 2}" y="{y + 17}" text-anchor="middle" font-weight="bold">{label}</text>'
        f'<text x="{x + _WIDTH // 2}" y="{y + 32}" text-anchor="middle" fill="#555">'
        f"{type(node).__name__} {shape}</text></g>"
    )
