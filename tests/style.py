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
        for line, docstring in docstrings(ast.parse(text)):
            first = (docstring or " ").split(maxsplit=1)[:1]
            if first and first[0].rstrip(",:") in OPENINGS:
                yield line, f"a docstring begins with '{first[0]}'"


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring, those of attributes and constants included."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        documents = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        for before, statement in zip([node if documents else None, *body], body, strict=False):
            documented = before is node or isinstance(before, ast.Assign | ast.AnnAssign)
            if not (documented and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
                continue
            if isinstance(text := statement.value.value, str):
                yield statement.lineno, text


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
