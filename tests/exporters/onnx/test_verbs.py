"""export --exact and --integer, and verify: each file meets a reference that computes as it does."""

import json

import pytest
from typer.testing import CliRunner

from stl_deploy.cli.app import app
from stl_deploy.errors import InputError
from stl_deploy.exporters.onnx import OnnxModel, export_onnx
from stl_deploy.runs.source import open_program, open_source
from stl_deploy.verbs.artifacts import export


@pytest.mark.parametrize("form", ["sequence", "step"])
def test_exact_is_compared_with_sums_in_float64(digits_run, form, tmp_path):
    path = tmp_path / "net.onnx"
    done = export(digits_run, "onnx", path, form=form, precision="exact")
    told, own = done["verified"]["runs"]
    assert (told["run"], told["required"]) == ("net.onnx", False)
    assert (own["run"], own["required"], own["exact"]) == ("net.onnx (against sums in float64)", True, True)
    assert done["precision"] == OnnxModel.load(path).interface.precision == "exact"


@pytest.mark.parametrize("form", ["sequence", "step"])
def test_sums_in_integers_are_compared_with_the_graph_as_it_is(digits_run, form, tmp_path):
    path = tmp_path / "net.onnx"
    done = export(digits_run, "onnx", path, form=form, precision="integer")
    (only,) = done["verified"]["runs"]
    assert (only["run"], only["exact"]) == ("net.onnx", True)
    assert done["precision"] == OnnxModel.load(path).interface.precision == "integer"


def test_a_static_file_is_verified_on_its_steps_of_the_input_and_says_so(digits_run, tmp_path):
    whole, cut = (export(digits_run, "onnx", tmp_path / "net.onnx", steps=steps)["verified"] for steps in (None, 2))
    (of_whole,), (of_cut,) = whole["runs"], cut["runs"]
    steps = 2 * of_whole["compared"] // of_cut["compared"]
    assert steps > 2
    assert cut["input"] == f"{whole['input']}, the first 2 of {steps} steps"


def test_the_precisions_are_of_onnx_alone(digits_run, tmp_path):
    with pytest.raises(InputError, match="expected onnx for option 'precision'; found nir; leave it out"):
        export(digits_run, "nir", tmp_path / "net.nir", precision="exact")


def test_the_options_of_the_command_line(digits_run, tmp_path):
    def call(*options):
        command = ["export", str(digits_run), "--to", "onnx", "-o", str(tmp_path / "net.onnx"), "--no-verify", *options]
        return CliRunner().invoke(app, command)

    for option, precision in {"--exact": "exact", "--integer": "integer"}.items():
        assert call(option).exit_code == 0
        assert OnnxModel.load(tmp_path / "net.onnx").interface.precision == precision
    both = call("--exact", "--integer")
    assert isinstance(both.exception, InputError)
    assert "exclude each other" in str(both.exception)


def test_several_files_are_verified_in_one_call(digits_run, tmp_path):
    paths = [tmp_path / f"{form}.onnx" for form in ("sequence", "step")]
    for path in paths:
        export_onnx(open_program(open_source(digits_run)), path, form=path.stem)
    called = CliRunner().invoke(app, ["verify", str(digits_run), "--against", *map(str, paths), "--json"])
    assert called.exit_code == 0
    assert [run["run"] for run in json.loads(called.stdout)["runs"]] == ["sequence.onnx", "step.onnx"]
