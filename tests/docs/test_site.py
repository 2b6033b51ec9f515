"""The documentation names everything that is public, its snippets run as told, and the build is strict."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import stl_deploy as stl
from stl_deploy import verbs

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))

import by_target  # noqa: E402
import generate  # noqa: E402
import snippets  # noqa: E402

DIRECTIVES = set(re.findall(r"^::: (\S+)$", generate.python(), re.MULTILINE))


@pytest.mark.parametrize("name", [name for name in stl.__all__ if not isinstance(getattr(stl, name), ModuleType)])
def test_every_public_name_has_its_place_in_the_reference(name: str) -> None:
    assert f"stl_deploy.{name}" in DIRECTIVES
    assert inspect.getdoc(getattr(stl, name))


@pytest.mark.parametrize("name", verbs.__all__)
def test_every_verb_too(name: str) -> None:
    found = getattr(verbs, name)
    assert f"{found.__module__}.{found.__qualname__}" in DIRECTIVES
    assert inspect.getdoc(found)


def test_every_public_method_tells_what_it_does() -> None:
    members = inspect.getmembers(stl.SpikingGraph, lambda it: inspect.isfunction(it) or isinstance(it, property))
    public = [(name, value) for name, value in members if not name.startswith("_")]
    assert len(public) > 8
    assert [name for name, value in public if not inspect.getdoc(value)] == []


def test_every_verb_of_the_command_line_is_on_its_page() -> None:
    page = generate.command_line()
    for verb in ("run", "train", "eval", "fold", "export", "check", "verify", "simulate", "energy", "lava remove"):
        assert f"\n## {verb}\n" in page
    assert "| `--mode` `stl` `sl` `tl` `ann`" in page
    assert "| 130 |" in page


def test_every_key_of_the_configuration_is_on_its_page() -> None:
    from stl_deploy.config import schema

    page = generate.configuration()
    for section in (schema.RunConfig, schema.DatasetConfig, schema.NeuronConfig, schema.TrainConfig):
        for key in section.model_fields:
            assert f"| `{key}` |" in page
    assert "| `T` | an integer, ≥ 1, ≤ 10000 | `4` |" in page


def test_the_table_by_target_is_what_check_finds() -> None:
    """``python docs/by_target.py`` makes it anew."""
    assert by_target.table() in by_target.PAGE.read_text()


def test_every_link_leads_to_a_file_of_the_repository() -> None:
    """As GitHub follows it: pages that the site generates are not there."""
    pages = (*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "examples").rglob("*.md"))
    dead = []
    for page in pages:
        if "node_modules" in page.parts:  # what an example's test installed
            continue
        for link in re.findall(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)", page.read_text(encoding="utf-8")):
            if ":" not in link and not (page.parent / link).exists():
                dead.append(f"{page.relative_to(ROOT)}: {link}")
    assert dead == []


PAGE = """
<!-- file: one.py -->
```python
ONE = 1
```

```python
from one import ONE
print(ONE + 1, "and more")
```

<!-- output -->
```text
2 and ...
```

```console
echo $((1 + 1))
```

<!-- output -->
```text
{told}
```
"""


def _run(page: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DOCS / "snippets.py"), "--here", str(page)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_page_that_tells_the_truth_passes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.format(told="2"), encoding="utf-8")
    done = _run(page, tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_page_that_does_not_fails_and_names_its_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.format(told="3"), encoding="utf-8")
    done = _run(page, tmp_path)
    assert done.returncode == 1
    assert f"{page}:22: the page shows" in done.stderr


@pytest.mark.parametrize("block", ["```python\n1 / 0\n```\n", "```console\nfalse\n```\n"])
def test_a_snippet_that_fails_fails_the_page(block: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(block, encoding="utf-8")
    assert _run(page, tmp_path).returncode == 1


def test_what_is_skipped_and_what_is_needed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- needs: snntorch==1.0.0 -->\n\n<!-- skip: long -->\n```python\n1 / 0\n```\n", encoding="utf-8")
    assert snippets.needs(page) == ["snntorch==1.0.0"]
    assert not snippets.runnable(page)
    assert _run(page, tmp_path).returncode == 0
