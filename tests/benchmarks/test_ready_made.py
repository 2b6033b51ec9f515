"""How a ready-made model and its card are made: the shipped ones can be made anew without training."""

import json
import shutil

import pytest

from benchmarks import ready_made
from stl_deploy.training import pretrained
from stl_deploy.training.pretrained.unpacking import unpack
from stl_deploy.training.run_folder import TWIN

ANNS = ("proved_ann", "measured_ann")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A place of its own for models, with digits in it, and a page."""
    place = tmp_path / "models"
    shutil.copytree(pretrained.models_folder() / "digits", place / "digits")
    monkeypatch.setattr(ready_made, "FOLDER", place)
    monkeypatch.setattr(pretrained, "models_folder", lambda: place)
    page = tmp_path / "training.md"
    page.write_text(f"before\n{ready_made.BEGIN}\nold\n{ready_made.END}\nafter\n")
    monkeypatch.setattr(ready_made, "PAGE", page)
    return place


def test_the_shipped_card_is_made_again_from_one_without_energy_and_only_texts_that_are_given_change(folder, capsys):
    file = folder / "digits" / "card.json"
    shipped = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in shipped.items() if key not in ("energy", "weights")}))
    ready_made.main(["digits", "--command", "stl-deploy train digits --data-dir DIR"])
    made = json.loads(file.read_text())
    assert json.loads(capsys.readouterr().out) == made
    assert made.pop("command") == "stl-deploy train digits --data-dir DIR"
    del shipped["command"]
    assert (made["energy"].pop("narrower_anns"), shipped["energy"].pop("narrower_anns")) == (0, 3)
    for kind in ANNS:
        assert made["energy"].pop(kind) is None  # no frontier was named, and the card had none
    assert shipped["energy"].pop("proved_ann") is None
    assert shipped["energy"].pop("measured_ann")["width"] == 0.75
    for energy in (made["energy"], shipped["energy"]):
        energy["modelled"] = (energy.pop("active_fraction"), *energy.pop("snn_over_ann"))
    assert made["energy"].pop("modelled") == pytest.approx(shipped["energy"].pop("modelled"), rel=1e-3)
    assert made["energy"]["quoted"].pop("snn_over_ann") == pytest.approx(
        shipped["energy"]["quoted"].pop("snn_over_ann"), rel=1e-3
    )
    assert made == shipped
    page = (folder.parent / "training.md").read_text().splitlines()
    assert (page[0], page[-1]) == ("before", "after")
    assert "old" not in page
    assert page[4].startswith("| `digits` | 98.05 % | 98.89 % | 376,351 + 34,584 | 246,888 | 16 % | 359 samples |")


def test_a_card_keeps_its_cheapest_ann_while_the_energy_of_the_snn_stays(folder, capsys):
    file = folder / "digits" / "card.json"
    shipped = json.loads(file.read_text())
    ready_made.main(["digits"])
    kept = json.loads(file.read_text())["energy"]
    assert {kind: kept[kind] for kind in ANNS} == {kind: shipped["energy"][kind] for kind in ANNS}
    shipped["energy"]["quoted"]["snn_over_ann"] *= 1.1
    file.write_text(json.dumps(shipped))
    ready_made.main(["digits"])
    assert [json.loads(file.read_text())["energy"][kind] for kind in ANNS] == [None, None]


def test_narrower_anns_in_a_folder_that_is_not_there_are_refused(folder, capsys):
    with pytest.raises(SystemExit):
        ready_made.main(["digits", "--frontier", str(folder / "none")])
    assert "--frontier: expected the folder of ANNs that a run kept; found no folder" in capsys.readouterr().err


def test_the_page_shows_what_the_cards_say():
    page = ready_made.PAGE.read_text()
    assert page.split(ready_made.BEGIN)[1].split(ready_made.END)[0].strip() == ready_made.table()


def test_a_model_is_made_of_a_run_and_its_twin_with_its_card(folder, tmp_path):
    unpack("digits", tmp_path / "run")
    texts = ("--data", "digits", "--licence", "CC BY 4.0", "--command", "stl-deploy train digits", "--commit", "123")
    ready_made.main(["again", str(tmp_path / "run"), str(tmp_path / "run" / TWIN), *texts])
    card = pretrained.card("again")
    assert (card.weights, card.twin_command) == ("8 bits, one scale per output", "stl-deploy train digits --mode ann")
    assert card.accuracy.samples == card.energy.samples == 359
    assert card.energy.ann_macs_exact == pretrained.card("digits").energy.ann_macs_exact
    assert card.energy.quoted.snn_over_ann == pytest.approx(2.8, abs=0.3)
    unpack("again", tmp_path / "unpacked")


def test_a_run_without_its_twin_is_refused(folder, capsys):
    with pytest.raises(SystemExit):
        ready_made.main(["again", "run"])
    assert "a model of RUN needs TWIN, --data, --licence and --command" in capsys.readouterr().err


def test_share_alike_of_a_card_alone_is_refused(folder, capsys):
    before = (folder / "digits" / "card.json").read_text()
    with pytest.raises(SystemExit):
        ready_made.main(["digits", "--share-alike"])
    assert "--share-alike is of a model that is made of RUN and TWIN" in capsys.readouterr().err
    assert (folder / "digits" / "card.json").read_text() == before
