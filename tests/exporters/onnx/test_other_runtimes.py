"""Forms that other runtimes take: refused before a file is written, named by check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stl_deploy.errors import InputError
from stl_deploy.exporters.onnx.target import FORMS, Onnx, OnnxOptions
from tests.exporters.onnx.nets import digits

SIZES = {"steps": 3, "batch": 2, "opset": 18}


@pytest.mark.push(6)
@pytest.mark.parametrize("runtime", FORMS)
@pytest.mark.parametrize("form", ["sequence", "unrolled", "step"])
def test_a_form_that_a_runtime_does_not_take_is_refused_before_writing(runtime: Any, form: Any, tmp_path: Path) -> None:
    path, needed = tmp_path / "net.onnx", FORMS[runtime].get(form)
    given = {name: SIZES[name] for name in needed or ()}
    options = OnnxOptions(form=form, runtime=runtime, **given)
    if needed is None:
        with pytest.raises(InputError) as error:
            Onnx().write(digits(), path, options)
        assert error.value.slug == "runtime-lacks-form"
        assert not path.exists()
        return
    Onnx().write(digits(), path, options)
    for name in needed:
        with pytest.raises(InputError):
            Onnx().write(digits(), path, OnnxOptions(form=form, runtime=runtime, **(given | {name: None})))


def test_an_opset_that_iree_does_not_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    with pytest.raises(InputError) as error:
        Onnx().write(digits(), path, OnnxOptions(runtime="iree", **(SIZES | {"opset": 15})))
    assert error.value.slug == "runtime-lacks-form"
    assert not path.exists()
    Onnx().write(digits(), path, OnnxOptions(runtime="iree", **(SIZES | {"opset": 16})))


def test_check_names_the_forms() -> None:
    findings = list(Onnx().check_for(digits(), OnnxOptions(runtime="tract")))
    assert [finding.slug for finding in findings if finding.severity == "info"] == ["runtime-forms"]


def test_an_unknown_runtime_is_refused() -> None:
    with pytest.raises(InputError) as error:
        OnnxOptions(runtime="tracked")  # type: ignore[arg-type]
    assert error.value.slug == "unknown-name"
