"""Forms that our writing avoids (docs/style.md): python -m tests.style [PATH ...] lists every line that has one."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORDS = re.compile(
    r"\b(for who|which is said|is said|are said|told|stranger'?s?|whole numbers?|asks? nobody)\b",
    re.IGNORECASE,
)
NAMES = re.compile(
    r"^\s*found: [^=]+ =|\bfound\b(?:, \w+)* =(?!=)|\bfor (?:\w+, )?(?:one|found) in\b|\blambda (?:one|found)\b"
    r"|\b(?:_told|_said|blamed|told_where)\b"
)
OPENINGS = ("What", "Who", "How", "That", "Which", "Whose")


def problems(path: Path) -> Iterator[tuple[int, str]]:
    """Line and reason of every avoided form in a Python or Markdown file."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if match := WORDS.search(line):
            yield number, f"'{match[0]}'"
        if path.suffix == ".py" and (match := NAMES.search(line)):
            yield number, f"'{match[0]}' names nothing"
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                first = (ast.get_docstring(node) or " ").split(maxsplit=1)[:1]
                if first and first[0].rstrip(",:") in OPENINGS:
                    yield node.body[0].lineno, f"a docstring begins with '{first[0]}'"


def main() -> None:
    """Print them; exit code 1 if there are any."""
    total = 0
    for start in sys.argv[1:] or ["stl_deploy", "exporters", "energy", "docs", "README.md"]:
        place = ROOT / start
        for path in sorted([place] if place.is_file() else [*place.rglob("*.py"), *place.rglob("*.md")]):
            for number, reason in problems(path):
                print(f"{path.relative_to(ROOT)}:{number}: {reason}")
                total += 1
    print(f"{total} in all", file=sys.stderr)
    sys.exit(total > 0)


if __name__ == "__main__":
    main()
