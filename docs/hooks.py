"""What the site's build does beyond Markdown: pages made from the program, and links that leave the folder."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))

import generate  # noqa: E402

REPOSITORY = "https://github.com/stl-deploy/stl-deploy/blob/main/"
_OUTSIDE = re.compile(r"(\]\()((?:\.\./)+)((?:examples|stl_deploy|exporters|energy|tests|benchmarks|\w+\.\w+)[^)#\s]*)")
_DRAWINGS = "examples/study/results"


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages, and the drawings of the study that a page shows."""
    for place, make in generate.PAGES.items():
        files.append(File.generated(config, place, content=make()))
    for drawing in sorted((ROOT / _DRAWINGS).glob("*.svg")):
        files.append(File.generated(config, f"{_DRAWINGS}/{drawing.name}", abs_src_path=str(drawing)))
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
        if target.startswith(_DRAWINGS) and target.endswith(".svg"):
            return f"{found[1]}{found[2].removesuffix('../')}{target}"
        return f"{found[1]}{REPOSITORY}{inside.relative_to(ROOT)}"

    return _OUTSIDE.sub(outside, markdown)
