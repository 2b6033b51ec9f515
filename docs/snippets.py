"""Run the documentation: every block of Python and every command of a page, in order, in an empty folder.

    python docs/snippets.py                     all quick pages
    python docs/snippets.py --all               those that need another framework, too, in an environment of their own
    python docs/snippets.py docs/how-to/x.md    one page

A page is a Markdown file. What runs, and what decides how, stands before a fence as an HTML comment:

    <!-- needs: snntorch==1.0.0 -->     at the head: the page runs in an environment with this, on the long lane
    <!-- skip: why -->                  the next block is shown and not run
    <!-- file: model.py -->             the next block is written to a file of that name
    <!-- output -->                     the next block is what the block before printed; "..." stands for anything
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
ROOT = DOCS.parent
BLOCK = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
MARK = re.compile(r"<!-- (needs|skip|file|output):? ?(.*?) ?-->")


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, text and line, and the mark that stands right before it."""

    language: str
    text: str
    line: int
    mark: str | None
    value: str


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        before = text[: found.start()].rstrip().rsplit("\n", 1)[-1].strip()
        mark = MARK.fullmatch(before)
        indent = len(found[1])
        body = "".join(line[indent:] or "\n" for line in found[3].splitlines(keepends=True))
        line = text.count("\n", 0, found.start()) + 1
        yield Block(found[2], body, line, mark[1] if mark else None, mark[2] if mark else "")


def needs(page: Path) -> list[str]:
    """Return what a page asks for beyond this project's own development environment."""
    head = page.read_text(encoding="utf-8")[:500]
    return [word for kind, value in MARK.findall(head) if kind == "needs" for word in value.split()]


def runnable(page: Path) -> bool:
    """Whether there is anything in a page to run."""
    return any(block.language in ("python", "console") and block.mark != "skip" for block in blocks(page))


class Failed(Exception):
    """A block that did not do what the page says."""


def run_page(page: Path) -> None:
    """Run a page's blocks in the current folder; raises Failed, naming page and line, at the first that fails."""
    sys.path[0] = str(Path.cwd())  # as if the blocks stood in a script there
    names: dict[str, Any] = {"__name__": "__main__"}
    printed = ""
    for block in blocks(page):
        where = f"{page}:{block.line}"
        if block.mark == "skip":
            continue
        if block.mark == "file":
            Path(block.value).write_text(block.text, encoding="utf-8")
        elif block.mark == "output":
            _compare(block.text, printed, where)
        elif block.language == "python":
            printed = _python(block, names, where)
        elif block.language == "console":
            printed = _console(block.text, where)


def _python(block: Block, names: dict[str, Any], where: str) -> str:
    out = io.StringIO()
    source = "\n" * block.line + block.text  # tracebacks name the page's own lines
    try:
        with contextlib.redirect_stdout(out):
            exec(compile(source, where.rsplit(":", 1)[0], "exec"), names)
    except Exception as error:
        raise Failed(f"{where}: {type(error).__name__}: {error}") from error
    return out.getvalue()


def _console(text: str, where: str) -> str:
    script = "set -euo pipefail\n" + text
    done = subprocess.run(["bash", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise Failed(f"{where}: exit code {done.returncode}\n{done.stdout}")
    return done.stdout


def _compare(expected: str, printed: str, where: str) -> None:
    """Raise Failed unless ``printed`` is what the page shows, where "..." is anything, also nothing."""
    pattern = ".*".join(
        re.escape(part) for part in "\n".join(map(str.rstrip, expected.strip().splitlines())).split("...")
    )
    output = "\n".join(map(str.rstrip, printed.strip().splitlines()))
    if not re.fullmatch(pattern, output, re.DOTALL):
        raise Failed(f"{where}: the page shows\n{expected}\nand this was printed:\n{printed}")


def _environment(page: Path, wanted: list[str]) -> Path:
    """A Python with this project and what the page needs, made once under build/."""
    folder = ROOT / "build" / "pages" / page.stem
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    stamp = folder / "stamp.txt"
    if not stamp.is_file() or stamp.read_text() != " ".join(wanted):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-e", f"{ROOT}[fast]"]
        subprocess.run([*install, *wanted], check=True)
        stamp.write_text(" ".join(wanted))
    return python


def _in_empty_folder(page: Path) -> bool:
    """Run one page in a process of its own; whether it went well."""
    wanted, start = needs(page), time.perf_counter()
    python = _environment(page, wanted) if wanted else Path(sys.executable)
    path = f"{python.parent}:{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as folder:
        command = [str(python), str(Path(__file__)), "--here", str(page)]
        done = subprocess.run(command, cwd=folder, env={**os.environ, "PATH": path})
    print(f"{'failed' if done.returncode else 'ran'} {page.relative_to(ROOT)} in {time.perf_counter() - start:.0f} s")
    return not done.returncode


def pages(everything: bool) -> list[Path]:
    """The pages that have something to run, without those of the long lane unless ``everything``."""
    all_pages = [
        page for part in ("", "tutorials", "how-to", "reference") for page in sorted((DOCS / part).glob("*.md"))
    ]
    return [page for page in all_pages if (everything or not needs(page)) and _opted_in(page) and runnable(page)]


def _opted_in(page: Path) -> bool:
    """The tutorials and how-tos all run; a page of reasons says so at its head."""
    return page.parent != DOCS or "<!-- run -->" in page.read_text(encoding="utf-8")[:500]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Run the documentation's snippets.")
    parser.add_argument("page", nargs="*", type=Path)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        try:
            run_page(given.page[0])
        except Failed as error:
            print(error, file=sys.stderr)
            return 1
        return 0
    chosen = [page.resolve() for page in given.page] or pages(given.all)
    return int(not all([_in_empty_folder(page) for page in chosen]))


if __name__ == "__main__":
    raise SystemExit(main())
