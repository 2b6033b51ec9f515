"""Raw samples to the class in C: the encoder is ours, and the streamed class is the integer model's at every sample."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks.mcu.__main__ import BOARDS, call
from benchmarks.mcu.motion import ENCODER, UNIT, compile_here, expected, measure, quantised
from examples.xylo import motion
from stl_deploy.data.sensors import encode_axes
from stl_deploy.exporters.c.compiler import find_compiler
from stl_deploy.exporters.c.options import COptions
from stl_deploy.exporters.c.target import CFormat
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.verbs.capturing import untrained_graph

AXES = 6
HARNESS = """
#include <stdio.h>
#include "axes.h"
int main(void)
{
    static axes_state state;
    int16_t raw[AXES];
    int32_t x[2 * AXES];
    axes_init(&state);
    while (fread(raw, sizeof raw, 1, stdin) == 1) {
        axes_step(&state, raw, x);
        fwrite(x, sizeof x, 1, stdout);
    }
    return 0;
}
"""
pytestmark = pytest.mark.skipif(find_compiler() is None, reason="no C compiler")


@pytest.fixture(scope="module")
def raw() -> np.ndarray:
    """Recordings ``[4, 30, 6]`` that move by up to 3 units a sample."""
    rng = np.random.default_rng(0)
    return quantised(np.cumsum(rng.uniform(-0.6, 0.6, (4, 30, AXES)), axis=1))


@pytest.fixture(scope="module")
def folder(raw: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C folder of the network before training."""
    place = tmp_path_factory.mktemp("motion")
    config = yaml.safe_load(motion.CONFIG.read_text())
    config["dataset"] |= {"input_shape": [2 * AXES], "classes": list("abcd")}
    (place / "net.yaml").write_text(yaml.safe_dump(config))
    graph, dialect = untrained_graph(str(place / "net.yaml"))
    counts = encode_axes(raw, UNIT).swapaxes(0, 1)
    CFormat().write(lower(graph, dialect), place / "c", COptions(x=counts, origin={"source": "net.nir"}))
    return place / "c"


def test_the_encoder_is_ours_from_one_end_of_16_bits_to_the_other(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    raw = rng.integers(-(2**15), 2**15, (200, AXES)).astype(np.int16)
    raw[50:150] = (np.cumsum(rng.integers(-450, 451, (100, AXES)), axis=0)).astype(np.int16)
    raw[10:12] = [[-(2**15)] * AXES, [2**15 - 1] * AXES]
    (tmp_path / "all.c").write_text(HARNESS)
    flags = [f"-DAXES={AXES}", f"-DAXES_UNIT={UNIT}", "-I", str(ENCODER), "-std=c99", "-Wall", "-Wextra", "-Werror"]
    call(
        [str(find_compiler()), *flags, "-fsanitize=undefined", "-fno-sanitize-recover", "all.c", "-o", "all"], tmp_path
    )
    done = subprocess.run([tmp_path / "all"], input=raw.tobytes(), capture_output=True, check=True)
    counts = np.frombuffer(done.stdout, np.int32).reshape(-1, 2 * AXES)
    assert counts.max() == 15
    np.testing.assert_array_equal(counts, encode_axes(raw, UNIT))


def test_a_csv_has_the_class_of_the_integers(folder: Path, raw: np.ndarray, tmp_path: Path) -> None:
    program = compile_here(folder, AXES, tmp_path)
    _, classes = expected(folder, raw)
    assert len({*classes[-1]}) > 1
    for recording, label in zip(raw, classes[-1], strict=True):
        lines = "\n".join(",".join(map(str, sample)) for sample in recording)
        assert run(program, lines) == (0, f"{label}\n", "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected a sample in each line; found none"),
        ("1,2,3,4,5,6\n1,2,3,4,5\n", "line 2: expected 6 integers"),
        ("1,2,3,4,5,6,7\n", "line 1: expected 6 integers"),
        ("1,2,3,4,5,32768\n", "line 1: expected 6 integers"),
        ("1,2,3,4,5,0.5\n", "line 1: expected 6 integers"),
        ("1,2,3,4,5,\n1\n", "line 1: expected 6 integers"),
        ("a" * 2000, "line 1: expected 6 integers"),
    ],
)
def test_a_damaged_csv_is_one_sentence(text: str, words: str, folder: Path, tmp_path: Path) -> None:
    code, out, error = run(compile_here(folder, AXES, tmp_path), text)
    assert (code, out) == (2, "")
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("board", ["Cortex-M4", "RV32IMC"])
def test_on_an_emulated_core(board: str, folder: Path, raw: np.ndarray) -> None:
    reason = BOARDS[board].missing
    if reason is not None:
        pytest.skip(reason)
    labels = expected(folder, raw)[1][-1]
    found = measure(folder, raw, labels, board)
    assert found.compared == 30 * 4 * (4 + 1)
    assert (found.differing, found.right) == (0, 4)


def run(program: Path, text: str) -> tuple[int, str, str]:
    done = subprocess.run([program], input=text, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr
