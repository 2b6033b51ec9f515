"""Tokens of code by room. ``python -m tests.ledger ROOM "reason"`` records a rise, ``python -m tests.ledger`` falls.

A token is a name, operator, number or string of Python; docstrings and comments do not count, an f-string is one.
"""

import ast
import io
import sys
import tokenize
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
LEDGER = Path(__file__).with_name("ledger.toml")
_KINDS = {tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING}
_START, _END = getattr(tokenize, "FSTRING_START", -1), getattr(tokenize, "FSTRING_END", -1)
_HEAD = """# Tokens of code by room, held by tests/test_ledger.py: a room grows only with a reason, in the same commit.
# python -m tests.ledger ROOM "reason" records a rise, python -m tests.ledger what fell.
"""


def _docstring_lines(tree: ast.AST) -> set[int]:
    lines: set[int] = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            value = getattr(statement, "value", None)
            if isinstance(statement, ast.Expr) and isinstance(value, ast.Constant) and isinstance(value.value, str):
                lines |= set(range(statement.lineno, (statement.end_lineno or statement.lineno) + 1))
    return lines


def tokens(text: str) -> int:
    """Count the tokens of a module's code."""
    docstrings = _docstring_lines(ast.parse(text))
    count = depth = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        depth -= token.type == _END
        is_code = token.type in _KINDS or token.type == _END
        count += is_code and not depth and token.start[0] not in docstrings
        depth += token.type == _START
    return count


def rooms() -> dict[str, int]:
    """Return the tokens of each package's own modules, by folder."""
    counted: dict[str, int] = {}
    for top in ("stl_deploy", "exporters", "energy"):
        for path in sorted((ROOT / top).rglob("*.py")):
            room = path.parent.relative_to(ROOT).as_posix()
            counted[room] = counted.get(room, 0) + tokens(path.read_text())
    return dict(sorted(counted.items()))


def ledger() -> dict[str, dict[str, object]]:
    """Return the recorded rooms: tokens, and the reason of the last rise."""
    return tomllib.loads(LEDGER.read_text())["room"] if LEDGER.exists() else {}


def _write(entries: dict[str, dict[str, object]]) -> None:
    lines = [_HEAD]
    for room, entry in sorted(entries.items()):
        reason = str(entry["reason"]).replace('"', "'")
        lines.append(f'[room."{room}"]\ntokens = {entry["tokens"]}\nreason = "{reason}"\n')
    LEDGER.write_text("\n".join(lines))


def main(arguments: list[str]) -> int:
    """Record falls, and the rise of one room with its reason."""
    known, counted = ledger(), rooms()
    risen, reason = arguments if len(arguments) == 2 else ("", "")
    entries: dict[str, dict[str, object]] = {}
    for room, count in counted.items():
        before = known.get(room, {"tokens": 0, "reason": ""})
        falls = count <= int(str(before["tokens"]))
        if falls or room == risen:
            entries[room] = {"tokens": count, "reason": reason if room == risen else before["reason"]}
        else:
            print(f'{room}: {count:,} tokens, {before["tokens"]:,} recorded; python -m tests.ledger {room} "reason"')
            entries[room] = before
    _write({room: entry for room, entry in entries.items() if entry["tokens"]})
    print(f"{sum(counted.values()):,} tokens in all; 565,414 when 0.4 began")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
