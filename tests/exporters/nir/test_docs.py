"""docs/nir.md tells of every key, every choice, every preset and how it differs from spec."""

from pathlib import Path

import pytest

from stl_deploy.exporters.nir.dialect import CHOICES, PRESETS, Dialect
from stl_deploy.exporters.nir.lower import metadata_dialect
from stl_deploy.exporters.nir.readers.reading_rules import READERS

LINES = (Path(__file__).parents[3] / "docs" / "nir.md").read_text(encoding="utf-8").splitlines()


def row(key):
    (found,) = (line for line in LINES if line.startswith(f"| `{key}` |"))
    return found


@pytest.mark.parametrize("key", Dialect().as_dict())
def test_keys_and_their_choices(key):
    assert all(f"`{choice}`" in row(key) for choice in CHOICES.get(key, ()))


@pytest.mark.parametrize("preset", PRESETS)
def test_presets(preset):
    spec = Dialect().as_dict()
    differs = {key: value for key, value in PRESETS[preset].as_dict().items() if value != spec[key]}
    cells = [part.split() for part in row(preset).rsplit("|", 2)[1].split(",") if part.strip()]
    told = {key.strip("`"): float(value) if key == "`dt`" else value for key, value in cells}
    assert told == differs


def test_readers():
    assert f"--for {'|'.join(READERS)}`" in "\n".join(LINES)


@pytest.mark.parametrize("preset", PRESETS)
def test_what_a_file_keeps_is_read_back_and_leaves_earlier_files_as_they_were(preset):
    meant = PRESETS[preset]
    assert metadata_dialect({"dialect": meant.written()}) == meant
    assert not {"rate", "bounded"} & set(Dialect().written())
