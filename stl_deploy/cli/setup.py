"""Verbs about the installation: lava, witness."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from stl_deploy.cli.output import console, emit_json
from stl_deploy.errors import CheckFailed
from stl_deploy.verbs.arguments import Json, Verbs, completed


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    lava = typer.Typer(
        cls=Verbs, help="Lava's side environment (Python 3.10): install, status, remove.", no_args_is_help=True
    )
    lava.command("install")(lava_install)
    lava.command("status")(lava_status)
    lava.command("remove")(lava_remove)
    app.add_typer(lava, name="lava", rich_help_panel=None)
    witness = typer.Typer(cls=Verbs, help="Other simulators, each in its own environment.", no_args_is_help=True)
    witness.command("install")(witness_install)
    witness.command("status")(witness_status)
    witness.command("remove")(witness_remove)
    app.add_typer(witness, name="witness", rich_help_panel=None)


def lava_install(
    python: Annotated[
        Path | None,
        typer.Option(help="A Python 3.10; default: $STL_DEPLOY_PYTHON310, PATH, pyenv, uv."),
    ] = None,
    json: Json = False,
) -> None:
    """Build Lava's side environment (5.8 GB, some minutes) and check it; does nothing if it is there."""
    from stl_deploy.exporters.lava.environment import install

    install(python=python, progress=console().say)
    _show_lava(json)


def lava_status(json: Json = False) -> None:
    """Whether Lava's side environment is there and works."""
    if not _show_lava(json):
        raise CheckFailed("Lava is not ready; 'stl-deploy lava install' sets it up")


def lava_remove(json: Json = False) -> None:
    """Remove Lava's side environment (5.8 GB); what else there is of Lava on this machine stays."""
    from stl_deploy.exporters.lava.environment import remove

    _show_removed(*remove(), json)


def _show_lava(json: bool) -> bool:
    from stl_deploy.verbs.listings import lava_sentence
    from stl_deploy.verbs.listings import lava_status as examine

    state = examine()
    console().say(lava_sentence(state))
    emit_json(state, json)
    return bool(state["ready"])


def _witnesses() -> Iterable[str]:
    from stl_deploy.exporters.witnesses.environment import WITNESSES

    return WITNESSES


Name = Annotated[
    str,
    typer.Argument(metavar="NAME", autocompletion=completed(_witnesses), help="brian2, xylosim"),
]


def witness_install(
    name: Name,
    python: Annotated[
        Path | None,
        typer.Option(help="A Python of the required version; default: $STL_DEPLOY_PYTHON312 (311), PATH, pyenv, uv."),
    ] = None,
    json: Json = False,
) -> None:
    """Build a witness's environment and check it; does nothing if it is there."""
    from stl_deploy.exporters.witnesses.environment import witness_install

    _show_witness(witness_install(name, python, console().say), json)


def witness_status(name: Name, json: Json = False) -> None:
    """Whether a witness's environment is there and works."""
    from stl_deploy.exporters.witnesses.environment import witness_status

    if not _show_witness(witness_status(name), json):
        raise CheckFailed(f"{name} is not ready; 'stl-deploy witness install {name}' sets it up")


def witness_remove(name: Name, json: Json = False) -> None:
    """Remove a witness's environment."""
    from stl_deploy.exporters.witnesses.environment import witness_remove

    _show_removed(*witness_remove(name), json)


def _show_removed(place: Path, size: int, json: bool) -> None:
    from stl_deploy._util.units import in_words

    console().say(f"removed {place}: {in_words(size)} free again")
    emit_json({"location": str(place), "bytes": size}, json)


def _show_witness(state: dict[str, Any], json: bool) -> bool:
    said = f"ready at {state['location']}" if state["ready"] else f"not ready: {state['reason']}"
    console().say(f"{state['name']} is {said}")
    emit_json(state, json)
    return bool(state["ready"])
