"""Build hooks: generated pages, folded measurements, and links that leave the folder.

A paragraph that is one link to measurements/NAME.md becomes that file's content, folded. Other links to NAME.md lead to
the page that folds it.
"""

from __future__ import annotations

import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))

import generate  # noqa: E402

REPOSITORY = "https://github.com/stl-deploy/stl-deploy/blob/main/"
_OUTSIDE = re.compile(r"(\]\()((?:\.\./)+)((?:examples|stl_deploy|exporters|energy|tests|benchmarks|\w+\.\w+)[^)#\s]*)")
_MEASURED = re.compile(r"^\[([^\]\n]+)\]\((?:\.\./)*measurements/([a-z-]+)\.md\)$", re.MULTILINE)
_TO_MEASURED = re.compile(r"\]\((?:\.\./)*measurements/([a-z-]+)\.md\)")
_LINK = re.compile(r"(\]\()([^)\s:#]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages."""
    for place, make in generate.PAGES.items():
        files.append(File.generated(config, place, content=make()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to files outside the site lead to the repository; one that leads nowhere breaks the build."""
    here = Path(page.file.src_uri).parent

    def outside(found: re.Match[str]) -> str:
        target = found[3].rstrip("/")
        inside = (ROOT / "docs" / here / found[2] / target).resolve()
        if not inside.is_relative_to(ROOT) or inside.is_relative_to(ROOT / "docs"):
            return found[0]
        if not inside.exists():
            raise PluginError(f"{page.file.src_uri}: the link to {found[2]}{found[3]} leads nowhere")
        return f"{found[1]}{REPOSITORY}{inside.relative_to(ROOT)}"

    def elsewhere(found: re.Match[str]) -> str:
        page_of = _folding_pages()
        if found[1] not in page_of:
            raise PluginError(f"{page.file.src_uri}: no page folds measurements/{found[1]}.md; give it a paragraph")
        return f"]({os.path.relpath(page_of[found[1]], here)}#{found[1]})"

    folded = _MEASURED.sub(lambda found: _folded(found[1], found[2], here), markdown)
    return _OUTSIDE.sub(outside, _TO_MEASURED.sub(elsewhere, folded))


def _folded(title: str, name: str, here: Path) -> str:
    """The measurement's content below its title, as a block that opens on a click."""
    text = (ROOT / "docs" / "measurements" / f"{name}.md").read_text(encoding="utf-8").split("\n", 1)[1]
    text = re.sub(r"^#+ (.*)$", r"**\1**", text, flags=re.MULTILINE)

    def moved(found: re.Match[str]) -> str:
        return f"{found[1]}{os.path.relpath(Path('measurements') / found[2], here)}{found[3]}"

    body = "\n".join(f"    {line}".rstrip() for line in _LINK.sub(moved, text).strip().split("\n"))
    return f'<a id="{name}"></a>\n\n??? abstract "{title}"\n\n{body}\n'


@cache
def _folding_pages() -> dict[str, str]:
    """Measurement -> page that folds it."""
    docs = ROOT / "docs"
    return {
        found[2]: str(page.relative_to(docs))
        for page in docs.rglob("*.md")
        for found in _MEASURED.finditer(page.read_text(encoding="utf-8"))
    }
