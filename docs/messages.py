"""List the messages that stl-deploy raises, by slug, read from the code: python docs/messages.py."""

from __future__ import annotations

import ast
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from stl_deploy.errors import default_slug

ROOT = Path(__file__).parent.parent
ROOMS = {"stl_deploy": "", "exporters": "stl_deploy.", "energy": "stl_deploy."}


def catalogue() -> dict[str, list[str]]:
    """Return the messages as they stand at their ``raise``, by slug."""
    found: dict[str, list[str]] = defaultdict(list)
    for slug, message in _raised():
        found[slug].append(message)
    return dict(sorted(found.items()))


def _raised() -> Iterator[tuple[str, str]]:
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for top in ROOMS for path in (ROOT / top).rglob("*.py")}
    kinds = _error_classes([*trees.values()])
    for path, tree in sorted(trees.items()):
        parts = path.relative_to(ROOT).with_suffix("").parts
        module = (ROOMS[parts[0]] + ".".join(parts)).removesuffix(".__init__")
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in kinds and call.args:
                given = {keyword.arg: keyword.value for keyword in call.keywords}
                usual = "bad-graph" if call.func.id == "GraphError" else default_slug(call.func.id, module)
                slug = given.get("slug", ast.Constant(usual))
                yield str(slug.value) if isinstance(slug, ast.Constant) else "of-the-cause", ast.unparse(call.args[0])


def _error_classes(trees: list[ast.Module]) -> set[str]:
    """Return the names of StlDeployError and of the classes made of it."""
    kinds, before = {"StlDeployError"}, 0
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    while len(kinds) > before:
        before = len(kinds)
        kinds |= {node.name for node in classes if {ast.unparse(base) for base in node.bases} & kinds}
    return kinds


if __name__ == "__main__":
    print(json.dumps(catalogue(), indent=1, ensure_ascii=False))
