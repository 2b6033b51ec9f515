"""The arrows between rooms: who may import whom, and no circles.

Imports inside functions and relative imports count; imports for types alone count as circles.
"""

import ast
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = [
    {"errors"},
    {"_util"},
    {"graph", "config"},
    {"passes", "nn", "data", "energy"},
    {"tracing", "integers", "training", "exporters"},
    {"pipeline"},
    {"runs"},
    {"report"},
    {"verbs"},
    {"cli", "__main__"},
]
"""Each room may import those of the rows above it and of its own row; ``stl_deploy`` itself is the lazy face."""
FORBIDDEN = {
    (room, other)
    for room in ("graph", "passes", "nn", "training", "tracing", "integers")
    for other in ("exporters", "energy")
} - {("training", "energy")} | {
    ("exporters", "energy"),
    ("exporters", "training"),
    ("exporters", "nn"),
    ("integers", "training"),
    ("integers", "tracing"),
    ("integers", "nn"),
    ("energy", "data"),
    ("energy", "nn"),
    ("data", "nn"),
    ("config", "graph"),
    ("passes", "nn"),
    ("passes", "data"),
    ("data", "passes"),
    ("energy", "passes"),
}
"""Beyond the rows. ``integers/qat`` alone may import nn."""
EXCEPTIONS = {
    ("stl_deploy.pipeline.results", "stl_deploy.report.energy_page"),  # Bill.to_html
}
NUMPY_ONLY = {"config", "graph", "passes", "energy"}
"""Rooms that import neither torch nor nir."""
LOOSE = {"__init__", "__main__", "errors"}


def _modules() -> dict[str, Path]:
    found = {}
    for folder, prefix in (("stl_deploy", ""), ("exporters", "stl_deploy."), ("energy", "stl_deploy.")):
        for path in (ROOT / folder).rglob("*.py"):
            if "side" in path.parts:  # runs under Lava's own Python
                continue
            name = prefix + ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


MODULES = _modules()


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _imported(tree: ast.AST, package: str, types: bool = False) -> Iterator[str]:
    """types: what a module's top imports, for type annotations, too; else what all of it imports when it runs."""
    for node in ast.iter_child_nodes(tree):
        for_types = isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "_TYPE_CHECKING")
        if types and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and for_types and not types:
            for other in node.orelse:
                yield from _imported(other, package)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(
                    [*package.split(".")[: len(package.split(".")) - node.level + 1], *filter(None, [base])]
                )
            for alias in node.names:
                yield f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (given.value for given in node.args if isinstance(given, ast.Constant))
        else:
            yield from _imported(node, package, types)


@cache
def _arrows(types: bool) -> dict[str, set[str]]:
    arrows = {}
    for name, path in MODULES.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        arrows[name] = {i for i in _imported(_tree(path), package, types) if i in MODULES} - {name}
    return arrows


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def _row(room: str) -> int:
    return next(i for i, rooms in enumerate(LAYERS) if room in rooms)


def _wrong(module: str, target: str) -> bool:
    here, there = _room(module), _room(target)
    if here == there or not here or not there:
        return False
    if module.startswith("stl_deploy.integers.qat") and there == "nn":
        return False
    if (module, target) in EXCEPTIONS:
        return False
    return _row(there) > _row(here) or (here, there) in FORBIDDEN


def test_no_arrow_runs_the_wrong_way() -> None:
    wrong = sorted(f"{m} -> {t}" for m, targets in _arrows(types=False).items() for t in targets if _wrong(m, t))
    assert wrong == []


def test_the_ir_and_its_passes_need_neither_torch_nor_nir() -> None:
    for module, path in MODULES.items():
        if _room(module) in NUMPY_ONLY:
            roots = {name.partition(".")[0] for name in _imported(_tree(path), "")}
            assert not roots & {"torch", "nir"}, module


def test_nobody_inside_takes_a_name_from_the_face() -> None:
    """It would be an arrow to wherever the name lives; its version lives nowhere else."""
    for module, path in MODULES.items():
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.ImportFrom) and node.module == "stl_deploy" and module != "stl_deploy":
                taken = {alias.name for alias in node.names if f"stl_deploy.{alias.name}" not in MODULES}
                assert taken <= {"__version__"}, module
            elif isinstance(node, ast.Import):
                assert all(alias.name != "stl_deploy" or not alias.asname for alias in node.names), module
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "stl_deploy":
                assert node.attr == "__version__", module


def test_no_circle() -> None:
    """For types neither, nor half for types: who reads one module of a circle has to read them all."""
    done: set[str] = set()
    arrows = {name: targets | _arrows(types=True)[name] for name, targets in _arrows(types=False).items()}

    def visit(module: str, path: list[str]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in done:
            return
        # A package's face hands names on; its own modules may import it no more than anyone else's.
        for target in sorted(arrows[module]):
            if _room(target):
                visit(target, [*path, module])
        done.add(module)

    for module in sorted(arrows):
        visit(module, [])


def _bound(tree: ast.Module) -> Iterator[str]:
    """Names that a module binds at its top, one by one; a dispatcher's cases and overloads share theirs."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.decorator_list:
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            parts = [part for each in targets for part in ast.walk(each) if isinstance(part, ast.Name)]
            yield from (part.id for part in parts if isinstance(part.ctx, ast.Store))


@pytest.mark.parametrize("text", ["_MOST = 14\n_WIDTH, _MOST = 10.4, 256", "from a import f\ndef f(): pass"])
def test_a_second_binding_is_seen(text: str) -> None:
    assert len(names := list(_bound(ast.parse(text)))) > len(set(names))


def test_no_module_binds_a_name_twice() -> None:
    """Constants of one name, as of two modules that were merged, would change what the first one's readers read."""
    for module, path in MODULES.items():
        names = [name for name in _bound(_tree(path)) if name != "_"]
        assert sorted(names) == sorted(set(names)), module


def test_every_room_is_known_and_few_modules_lie_loose() -> None:
    rooms = {_room(name) for name in MODULES} - {""}
    assert rooms <= set().union(*LAYERS)
    assert {room for arrow in FORBIDDEN for room in arrow} <= rooms
    assert {path.stem for path in (ROOT / "stl_deploy").glob("*.py")} == LOOSE


@pytest.mark.parametrize(
    ("module", "target"),
    [("stl_deploy.graph.run", "stl_deploy.energy.measure"), ("stl_deploy.nn.x", "stl_deploy.cli.x")],
)
def test_the_rule_finds_a_wrong_arrow(module: str, target: str) -> None:
    assert _wrong(module, target)


def test_relative_and_nested_imports_are_seen() -> None:
    tree = ast.parse("def f():\n    from .lower import x\n    if TYPE_CHECKING:\n        import stl_deploy.cli\n")
    assert list(_imported(tree, "stl_deploy.exporters.nir")) == ["stl_deploy.exporters.nir.lower"]
    hidden = "if not TYPE_CHECKING:\n    import stl_deploy.cli\nx = importlib.import_module('stl_deploy.verbs')\n"
    assert list(_imported(ast.parse(hidden), "stl_deploy.graph")) == ["stl_deploy.cli", "stl_deploy.verbs"]
    assert all(
        _row(a) < _row(b) for a, b in pairwise(["errors", "_util", "graph", "nn", "exporters", "pipeline", "cli"])
    )
