"""What `import stl_deploy` gives, and what it waits for."""

import subprocess
import sys
from pathlib import Path

import pytest

import stl_deploy as stl
from stl_deploy import errors

EXCEPTIONS = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}


def _run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_it_waits_for_nothing() -> None:
    code = "import sys, stl_deploy; print(sorted({'torch', 'numpy', 'nir', 'onnx', 'pydantic'} & set(sys.modules)))"
    assert _run(code) == "[]\n"


def test_reading_a_file_needs_no_torch() -> None:
    code = "import sys, stl_deploy; stl_deploy.read, stl_deploy.SpikingGraph; print('torch' in sys.modules)"
    assert _run(code) == "False\n"


def test_the_command_line_loads_no_library_before_a_verb_does() -> None:
    heavy = "{'torch', 'numpy', 'nir', 'onnx', 'pydantic', 'rich', 'ssl'}"
    code = f"import sys, stl_deploy.cli, stl_deploy.cli.app; print(sorted({heavy} & set(sys.modules)))"
    assert _run(code) == "[]\n"


def test_dir_is_what_is_meant_to_be_there() -> None:
    assert _run("import stl_deploy; print(dir(stl_deploy) == sorted([*stl_deploy.__all__, '__version__']))") == "True\n"


def test_every_name_is_there_and_every_error() -> None:
    for name in stl.__all__:
        assert getattr(stl, name) is not None
    assert set(stl.__all__) >= EXCEPTIONS
    assert stl.__version__


def test_the_datasets_come_with_their_name() -> None:
    assert _run("import stl_deploy as stl; print(stl.data.__name__)") == "stl_deploy.data\n"


def test_a_tree_that_was_never_installed_has_a_version(tmp_path: Path) -> None:
    (tmp_path / "stl_deploy").symlink_to(Path(stl.__file__).parent)
    code = "import sys; sys.path.insert(0, sys.argv[1]); import stl_deploy; print(stl_deploy.__version__)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, tmp_path], check=True, capture_output=True, text=True
    )
    assert done.stdout == "0+unknown\n"


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'stl_deploy' has no attribute 'compile'; it has: ALIF, LI, LIF,"):
        stl.compile  # noqa: B018
