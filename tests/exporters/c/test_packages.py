"""Packages: what each ecosystem reads is there and well-formed, and the self-test passes, and fails where it must."""

from __future__ import annotations

import json
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import yaml

from stl_deploy.errors import InputError
from stl_deploy.exporters.c.compiler import FLAGS, find_compiler, why_none
from stl_deploy.exporters.c.layout import make_plan
from stl_deploy.exporters.c.options import COptions
from stl_deploy.exporters.c.packages import MOST_BYTES, Package, recorded
from stl_deploy.exporters.c.target import CFormat
from stl_deploy.integers.graph import IntegerGraph
from tests.exporters.c.graphs import Grower
from tests.exporters.c.test_by_hand import dense, entry, lif, out
from tests.exporters.c.test_target import data, small
from tests.refusals import refuses

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason=why_none())
KINDS: tuple[Package, ...] = get_args(Package)
CROSS = {
    "arm-none-eabi-gcc": ("-mcpu=cortex-m0plus", "-mthumb"),
    "riscv64-unknown-elf-gcc": ("-march=rv32imc", "-mabi=ilp32", "-specs=picolibc.specs"),
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind of one network, with its name."""
    program = small().lif("a", 0.7).program()
    place = tmp_path_factory.mktemp("packages")
    for kind in KINDS:
        CFormat().write(program, place / kind, COptions(x=data(program), name="kws", package=kind))
    return place


def folder(packages: Path, kind: str) -> Path:
    return packages / kind / f"kws_{kind}"


def sources(place: Path) -> list[Path]:
    return sorted(place.rglob("*.c"))


def test_the_folders_own_main_is_no_source_of_a_package(tmp_path: Path) -> None:
    program = small().lif("a", 0.7).program()
    CFormat().write(program, tmp_path / "net", COptions(x=data(program), name="ma", package="cmake"))
    assert {path.name for path in (tmp_path / "net" / "ma_cmake" / "src").iterdir()} == {"ma.c", "ma_decide.c"}


@pytest.mark.push(2)
@pytest.mark.parametrize("kind", KINDS)
def test_the_c_folder_beside_a_package_is_read_as_before(packages: Path, kind: str) -> None:
    CFormat().load(packages / kind)
    own = folder(packages, kind)
    assert (own / "src" / "kws.c").read_text() == (packages / kind / "kws.c").read_text()


def built(place: Path, own: Path, *flags: str) -> str:
    """The self-test compiled for this machine by what the package holds, and what it prints."""
    includes = [f"-I{header.parent}" for header in own.rglob("*.h")]
    main = place / "main.c"
    main.write_text(
        '#include <stdio.h>\n#include "kws_selftest.h"\nint main(void)\n{\n'
        '    puts(kws_selftest() ? "FAIL" : "PASS");\n    return 0;\n}\n'
    )
    files = [str(path) for path in sources(own) if path.name not in ("main.c",)]
    command = [str(find_compiler()), *FLAGS, *flags, *includes, *files, str(main), "-o", str(place / "run")]
    subprocess.run(command, check=True)
    return subprocess.run([str(place / "run")], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.push(2)
@needs_compiler
@pytest.mark.parametrize("kind", KINDS)
def test_recorded_sequences_pass_and_a_changed_weight_fails(packages: Path, kind: str, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(folder(packages, kind), own)
    assert built(tmp_path, own) == "PASS"
    source = own / "src" / "kws.c"
    text = source.read_text()
    begin = text.index("{", text.index("_weight[")) + 1
    start = text.index("\n", begin) + 5
    first = text[start:].split(",")[0]
    changed = "127" if int(first) < 100 else "-127"
    source.write_text(text[:start] + changed + text[start + len(first) :])
    assert built(tmp_path, own) == "FAIL"


@pytest.mark.push(4)
@pytest.mark.parametrize("compiler", CROSS)
@pytest.mark.parametrize("kind", KINDS)
def test_sources_compile_for_microcontrollers(packages: Path, kind: str, compiler: str, tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    own = folder(packages, kind)
    includes = [f"-I{header.parent}" for header in own.rglob("*.h")]
    for file in sources(own):
        command = [compiler, *FLAGS, *CROSS[compiler], *includes, "-c", str(file), "-o", str(tmp_path / "one.o")]
        subprocess.run(command, check=True)


@pytest.mark.skipif(shutil.which("cmake") is None or shutil.which("make") is None, reason="cmake or make is missing")
@needs_compiler
def test_cmake_builds_and_tests_its_package(packages: Path, tmp_path: Path) -> None:
    own = folder(packages, "cmake")
    for command in (
        ["cmake", "-S", str(own), "-B", str(tmp_path)],
        ["cmake", "--build", str(tmp_path)],
        ["ctest", "--test-dir", str(tmp_path), "--output-on-failure"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "1 tests passed" in done.stdout or "100% tests passed" in done.stdout


def test_arduino_finds_its_library(packages: Path) -> None:
    """Fields, version and category as arduino-lint asks for them; a sketch has its folder's name."""
    own = folder(packages, "arduino")
    lines = (own / "library.properties").read_text().splitlines()
    fields = dict(line.split("=", 1) for line in lines)
    needed = "name version author maintainer sentence paragraph category url architectures includes"
    assert set(fields) == set(needed.split())
    assert all(fields.values())
    assert fields["version"].count(".") == 2
    assert fields["category"] == "Data Processing"
    assert (own / "src" / fields["includes"]).is_file()
    assert (own / "examples" / "selftest" / "selftest.ino").is_file()


def test_platformio_zephyr_and_esp_idf_read_their_manifests(packages: Path) -> None:
    manifest = json.loads((folder(packages, "platformio") / "library.json").read_text())
    assert (manifest["name"], manifest["version"]) == ("kws", "1.0.0")
    (example,) = manifest["examples"]
    for name in example["files"]:
        assert (folder(packages, "platformio") / example["base"] / name).is_file()
    assert yaml.safe_load((folder(packages, "zephyr") / "zephyr" / "module.yml").read_text())["name"] == "kws"
    sample = yaml.safe_load((folder(packages, "zephyr") / "examples" / "selftest" / "sample.yaml").read_text())
    assert sample["tests"]["kws.selftest"]["harness_config"]["regex"] == ["^PASS"]
    component = yaml.safe_load((folder(packages, "esp-idf") / "idf_component.yml").read_text())
    assert component["version"] == "1.0.0"
    for kind in ("zephyr", "esp-idf"):
        for file in folder(packages, kind).rglob("CMakeLists.txt"):
            for word in file.read_text().translate(str.maketrans('"()', "   ")).split():
                if word.endswith(".c"):
                    assert (file.parent / word).is_file(), (file, word)
    project = (folder(packages, "esp-idf") / "examples" / "selftest" / "CMakeLists.txt").read_text()
    assert 'set(EXTRA_COMPONENT_DIRS "${kws_package}")' in project


def test_the_cmsis_pack_names_files_that_are_there(packages: Path) -> None:
    own = folder(packages, "cmsis-pack")
    package = ET.parse(own / "stl-deploy.kws.pdsc").getroot()
    order = [child.tag for child in package]
    assert order == ["vendor", "name", "description", "url", "releases", "components"]
    files = [file.get("name") for file in package.iter("file")]
    assert len(files) > 6
    for name in files:
        assert (own / str(name)).exists(), name


@pytest.mark.parametrize(("high", "low", "ctype"), [(1, 0, "uint8_t"), (100, -3, "int8_t"), (4000, 0, "int32_t")])
@needs_compiler
def test_input_is_recorded_in_the_narrowest_form(high: int, low: int, ctype: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    graph = IntegerGraph((entry((20,), high), dense("fc", "in", rng.integers(-3, 4, (3, 20))), lif("a", "fc", (3,), 5),
                          out("a", (3,))))  # fmt: skip
    node: Any = graph.nodes[0]
    object.__setattr__(node, "low", low)
    x = rng.integers(low, high + 1, (9, 7, 20)).astype(np.int32)
    found = recorded(make_plan(graph), x)
    assert found["ctype"] == ctype
    assert (found["samples"], found["steps"]) == (4, 9)
    assert len(set(found["expected"].tolist())) > 1


def test_long_recordings_are_cut() -> None:
    graph, _ = Grower(7).grow()
    plan = make_plan(graph)
    x = np.zeros((100_000, 2, *graph.input.shape), np.int32)
    found = recorded(plan, x[:, :1])
    assert found["values"].nbytes <= 2 * MOST_BYTES * 8
    assert found["samples"] == 1
    assert 1 <= found["steps"] < 100_000


def test_a_package_that_is_not_known() -> None:
    with pytest.raises(InputError, match=r"package: expected one of cmake, arduino, .*; found 'arduin' \(did you mean"):
        COptions(package="arduin")  # type: ignore[arg-type]
    with refuses("unknown-name", where="package"):
        CFormat().write(small().lif("a", 0.7).program(), Path("/nonexistent/x"), COptions(package="mbed"))  # type: ignore[arg-type]
