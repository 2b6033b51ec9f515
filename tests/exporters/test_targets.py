"""The registry of targets: names, refusals, options, and how an artifact's format is told."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stl_deploy.errors import InputError
from stl_deploy.exporters import targets
from stl_deploy.exporters.targets import Options, find_format, find_runner, format_of, make_options, register_target


@dataclass(frozen=True, kw_only=True, eq=False)
class Knobs(Options):
    flash: str | None = None
    row_bits: int = 8


class Text:
    name, description, suffix, folder, options = "text", "words", ".words", None, Knobs

    def write(self, program: Any, path: Path, options: Knobs) -> dict[str, Any]:
        return {}

    def load(self, path: Path) -> Any: ...

    def check(self, program: Any) -> tuple[()]:
        return ()


class Book(Text):
    name, suffix, folder = "book", None, "index.words"


class Talker:
    name, description, label, reads, options, agrees_with = "talker", "says", "measured", ("text",), Options, None

    @classmethod
    def available(cls) -> None: ...

    def run(self, x: Any, record: bool = False) -> Any: ...


@pytest.fixture(autouse=True)
def own_registry() -> Iterator[None]:
    targets.registry.cache_clear()
    yield
    targets.registry.cache_clear()


def test_what_is_registered_is_found_by_its_name_and_kind() -> None:
    text = Text()
    register_target(text)
    register_target(Talker)
    assert find_format("text") is text
    assert find_runner("talker") is Talker
    register_target(text)  # the same again is no conflict


def test_a_name_is_taken_once_in_its_kind() -> None:
    register_target(Text())
    with pytest.raises(InputError, match="found 'text', which is registered; rename it"):
        register_target(Text())
    with pytest.raises(InputError, match="a Format \\(an object\\) or a Runner \\(a class\\); found <class"):
        register_target(Text)
    with pytest.raises(InputError, match="found 3"):
        register_target(3)


def test_an_unknown_name_is_told_what_there_is() -> None:
    register_target(Text())
    with pytest.raises(InputError, match=r"expected a format: .*text; found 'txet' \(did you mean 'text'\?\)"):
        find_format("txet")
    with pytest.raises(InputError, match=r"expected a backend: .*found 'text'"):
        find_runner("text")


def test_a_package_that_cannot_be_loaded_hides_no_other_target(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> None:
        raise ImportError("no words")

    entries = [
        SimpleNamespace(name="bad", value="bad:Bad", load=load),
        SimpleNamespace(name="good", value="good:T", load=lambda: [Text(), Talker]),
    ]
    monkeypatch.setattr(targets, "entry_points", lambda group: entries)
    assert find_runner("talker") is Talker
    with pytest.raises(InputError, match=r"'bad' is installed, but bad:Bad cannot be loaded \(ImportError: no words\)"):
        find_format("bad")


def test_an_artifact_is_told_by_its_suffix_or_by_the_file_in_a_folder(tmp_path: Path) -> None:
    text, book = Text(), Book()
    register_target(text)
    register_target(book)
    assert format_of(tmp_path / "a.words") is text
    assert format_of(tmp_path / "a.other") is None
    folder = tmp_path / "folder.words"
    folder.mkdir()
    (folder / "index.words").touch()
    assert format_of(folder) is book


def test_options_are_those_of_the_target_and_no_others() -> None:
    made = make_options(Text(), {"flash": "4K", "row_bits": None}, origin={"source": "a"})
    assert (made.flash, made.row_bits, made.origin) == ("4K", 8, {"source": "a"})
    register_target(Text())
    with pytest.raises(InputError, match="expected text for option 'row_bits'; found talker; leave it out"):
        make_options(Talker, {"row_bits": 2})
    with pytest.raises(InputError, match="expected no target for option 'say'; found text; leave it out"):
        make_options(Text(), {"say": 2})
