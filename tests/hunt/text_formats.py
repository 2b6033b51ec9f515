"""Texts that a user writes, or a stranger: configurations, dialects, price lists."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import patch

from tests.hunt.damage import damage_bytes, damage_json, damage_text
from tests.hunt.mutant import Format


def _presets() -> list[bytes]:
    from importlib import resources

    folder = resources.files("stl_deploy.config") / "presets"
    return [entry.read_bytes() for entry in folder.iterdir() if entry.name.endswith(".yaml")]


def _try_yaml(path: Path) -> str:
    from stl_deploy.runs.configure import configure

    configure(str(path))
    return "read"


def _dialects() -> list[bytes]:
    from stl_deploy.exporters.nir.dialect import PRESETS

    return [json.dumps(dialect.as_dict()).encode() for dialect in PRESETS.values()]


def _try_dialect(path: Path) -> str:
    from stl_deploy.exporters.nir.dialect import load_dialect

    load_dialect(str(path))
    return "read"


def _price_lists() -> list[bytes]:
    from importlib import resources

    folder = resources.files("stl_deploy.energy.prices") / "lists"
    return [entry.read_bytes() for entry in folder.iterdir() if entry.name.endswith(".toml")]


def _try_prices(path: Path) -> str:
    from stl_deploy.energy.prices.load import load_prices

    load_prices(path)
    return "read"


def _model_cards() -> list[bytes]:
    from stl_deploy.training import pretrained

    return [(pretrained.models_folder() / name / "card.json").read_bytes() for name in pretrained.names()]


def _try_model_card(path: Path) -> str:
    """As the verb models lists it."""
    from stl_deploy.training import pretrained
    from stl_deploy.verbs.listings import models

    (path.parent / "models" / "mine").mkdir(parents=True)
    (path.parent / "models" / "mine" / "card.json").write_bytes(path.read_bytes())
    with patch.object(pretrained, "models_folder", lambda: path.parent / "models"):
        models()
    return "read"


FORMATS: Mapping[str, Format] = {
    "yaml": Format(".yaml", _presets, _try_yaml, (damage_text, damage_bytes)),
    "dialect": Format(".json", _dialects, _try_dialect, (damage_json, damage_bytes)),
    "model_card": Format(".json", _model_cards, _try_model_card, (damage_json, damage_bytes)),
    "prices": Format(".toml", _price_lists, _try_prices, (damage_text, damage_bytes)),
}
