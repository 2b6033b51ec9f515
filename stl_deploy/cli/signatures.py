"""Read the signature of a function without importing its module, so that help does not wait for torch."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def signature_of(module: str, name: str) -> Callable[..., None]:
    """Return a function of a module without its body and decorators.

    Runs only those imports and assignments of the module that the parameters name.
    """
    spec = find_spec(module)
    assert spec is not None, module
    tree = ast.parse(Path(str(spec.origin)).read_text(encoding="utf-8"))
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    function.body, function.decorator_list, function.returns = [ast.Pass()], [], None
    statements: list[ast.stmt] = [function]
    for node in reversed(tree.body[: tree.body.index(function)]):
        needed = {inner.id for statement in statements for inner in ast.walk(statement) if isinstance(inner, ast.Name)}
        if needed & set(_bound(node)):
            statements.insert(0, node)
    namespace: dict[str, Any] = {}
    # The product's own source, by the name of a verb's module: nothing that a user gives comes here.
    exec(compile(ast.fix_missing_locations(ast.Module(statements, [])), module, "exec"), namespace)
    made: Callable[..., None] = namespace[name]
    return made


def _bound(node: ast.stmt) -> Iterator[str]:
    """Yield the names that an import or an assignment of a module binds."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in node.names)
    elif isinstance(node, ast.Assign):
        yield from (target.id for target in node.targets if isinstance(target, ast.Name))
