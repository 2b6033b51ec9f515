"""The C as an application uses it: several networks and instances, other forms of input, classes of each step."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stl_deploy.errors import InputError
from stl_deploy.exporters.c.compiler import FLAGS, find_compiler, why_none
from stl_deploy.exporters.c.layout import make_plan
from stl_deploy.exporters.c.names import require_prefix
from stl_deploy.exporters.c.options import COptions
from stl_deploy.exporters.c.render import render_plan
from stl_deploy.exporters.c.target import CFormat
from stl_deploy.integers.graph import IntegerGraph, IntegerLIF
from stl_deploy.integers.simulate import simulate
from stl_deploy.integers.store import About, read_integers
from tests.exporters.c.graphs import Grower
from tests.exporters.c.test_by_hand import dense, digits_like, entry, ints, lif, out
from tests.exporters.c.test_graphs import STRICT
from tests.exporters.c.test_target import data, small

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason=why_none())


def other() -> IntegerGraph:
    """A network whose nodes have the names of those of `digits_like`."""
    weight = np.arange(-8, 8).reshape(2, 8) % 5
    return IntegerGraph((entry((8,)), dense("fc", "in", weight), lif("lif1", "fc", (2,), [9, 4]), out("lif1", (2,))))


def write(place: Path, graph: IntegerGraph, prefix: str, **about: Any) -> None:
    for name, text in render_plan(make_plan(graph), About(prefix=prefix, **about)).items():
        if name not in ("main.c", "Makefile"):
            (place / name).write_text(text)


def compiled(place: Path, main: str, *options: str) -> list[int]:
    """What a program with this main writes to stdout: integers."""
    (place / "main.c").write_text(main)
    sources = sorted(str(path) for path in place.glob("*.c"))
    command = [str(find_compiler()), *FLAGS, *STRICT, "-fsanitize=address,undefined", *options, *sources, "-o", "run"]
    subprocess.run(command, cwd=place, check=True)
    done = subprocess.run([str(place / "run")], capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


def table(name: str, x: Any, ctype: str = "int32_t") -> str:
    values = np.asarray(x).reshape(-1)
    return f"static const {ctype} {name}[{values.size}] = {{ {', '.join(map(str, values))} }};\n"


@needs_compiler
def test_two_networks_and_two_instances_of_one_in_one_program(tmp_path: Path) -> None:
    """They take turns step by step, and none disturbs another."""
    rng = np.random.default_rng(0)
    kws, gesture = digits_like(), other()
    x = rng.integers(0, 4, (9, 2, 1, 4, 4)).astype(np.int32)
    z = rng.integers(0, 2, (9, 1, 8)).astype(np.int32)
    write(tmp_path, kws, "kws")
    write(tmp_path, gesture, "Gesture2")
    main = (
        '#include <stdio.h>\n#include "kws.h"\n#include "Gesture2.h"\n'
        + table("a", x[:, 0]) + table("b", x[:, 1]) + table("c", z)
        + "int main(void)\n{\n    kws_state one, two;\n    Gesture2_state g;\n"
        "    int32_t y[KWS_OUTPUTS + GESTURE2_OUTPUTS];\n"
        "    kws_init(&one);\n    kws_init(&two);\n    Gesture2_init(&g);\n    for (int t = 0; t < 9; t++) {\n"
        "        if (kws_step(&one, &a[t * KWS_INPUTS], y) != 0)\n            return 1;\n"
        "        for (int i = 0; i < KWS_OUTPUTS; i++)\n            printf(\"%ld \", (long)y[i]);\n"
        "        if (Gesture2_step(&g, &c[t * GESTURE2_INPUTS], y) != 0)\n            return 1;\n"
        "        for (int i = 0; i < GESTURE2_OUTPUTS; i++)\n            printf(\"%ld \", (long)y[i]);\n"
        "        if (kws_step(&two, &b[t * KWS_INPUTS], y) != 0)\n            return 1;\n"
        "        for (int i = 0; i < KWS_OUTPUTS; i++)\n            printf(\"%ld \", (long)y[i]);\n"
        "    }\n    return 0;\n}\n"
    )  # fmt: skip
    found = np.array(compiled(tmp_path, main)).reshape(9, 8)
    y = simulate(kws, x).y
    np.testing.assert_array_equal(found[:, :3], y[:, 0])
    np.testing.assert_array_equal(found[:, 3:5], simulate(gesture, z).y[:, 0])
    np.testing.assert_array_equal(found[:, 5:], y[:, 1])
    assert 0 < y.mean() < 1


@needs_compiler
@pytest.mark.parametrize("seed", [3, 12, 21])
def test_every_form_of_input_gives_the_same_spikes(seed: int, tmp_path: Path) -> None:
    """Images of several channels, whose order in memory is not that of the input; each place listed twice."""
    rng = np.random.default_rng(seed)
    grower = Grower(seed)
    grower.nodes.append(entry((3, 4, 2)))
    grower.block()
    grower.end()
    graph = IntegerGraph(tuple(grower.nodes))
    x = rng.integers(0, 2, (6, 1, 3, 4, 2)).astype(np.int32)
    flat = x.reshape(6, 24)
    events = [np.repeat(np.flatnonzero(row), 2) for row in flat]
    write(tmp_path, graph, "net")
    loop = (
        "    net_init(&s);\n    for (int t = 0; t < 6; t++) {\n        if (%s != 0)\n            return 1;\n"
        "        put(y);\n    }\n"
    )
    main = (
        '#include <stdio.h>\n#include "net.h"\n'
        + table("plain", flat)
        + table("small", flat, "int8_t")
        + table("bits", np.packbits(flat, axis=1, bitorder="little"), "uint8_t")
        + table("events", np.concatenate([*events, [0]]), "uint16_t")
        + table("start", np.cumsum([0, *map(len, events)]))
        + "static void put(const int32_t *y)\n{\n    for (int i = 0; i < NET_OUTPUTS; i++)\n"
        '        printf("%ld ", (long)y[i]);\n}\n'
        "int main(void)\n{\n    static net_state s;\n    int32_t y[NET_OUTPUTS];\n"
        + loop % "net_step(&s, &plain[t * 24], y)"
        + loop % "net_step_int8(&s, &small[t * 24], y)"
        + loop % "net_step_bits(&s, &bits[t * 3], y)"
        + loop % "net_step_events(&s, &events[start[t]], start[t + 1] - start[t], y)"
        + "    return 0;\n}\n"
    )
    found = np.array(compiled(tmp_path, main)).reshape(4, 6, -1)
    for form in found:
        np.testing.assert_array_equal(form, simulate(graph, x).y.reshape(6, -1))


@needs_compiler
def test_input_that_is_refused_leaves_the_state_as_it_was(tmp_path: Path) -> None:
    """A value above 9, a place beyond the last: the next step goes on from the step before."""
    graph = IntegerGraph((entry((2,), 9), dense("fc", "in", [[3, 0]]), lif("a", "fc", (1,), [10]), out("a", (1,))))
    write(tmp_path, graph, "net")
    main = (
        '#include <stdio.h>\n#include "net.h"\nint main(void)\n{\n    net_state s;\n    int32_t y[1];\n'
        "    const int32_t two[2] = {2, 0}, ten[2] = {0, 10}, below[2] = {-1, 0};\n"
        "    const int8_t small[2] = {10, 0};\n"
        "    const uint16_t place[2] = {1, 2};\n    net_init(&s);\n    for (int t = 0; t < 3; t++) {\n"
        '        printf("%d ", net_step(&s, ten, y) + net_step(&s, below, y) + net_step_int8(&s, small, y));\n'
        '        printf("%d ", net_step_events(&s, place, 2, y));\n'
        '        printf("%d ", net_step(&s, two, y));\n        printf("%ld ", (long)y[0]);\n    }\n    return 0;\n}\n'
    )
    assert compiled(tmp_path, main) == [-3, -1, 0, 0, -3, -1, 0, 0, -3, -1, 0, 1]


@needs_compiler
def test_the_state_has_the_size_that_is_told(tmp_path: Path) -> None:
    for seed in range(30):
        plan = make_plan(Grower(seed + 4000).grow()[0])
        (tmp_path / "net.h").write_text(render_plan(plan, About())["net.h"])
        (tmp_path / "size.c").write_text(
            f'#include "net.h"\ntypedef char told[NET_STATE_BYTES == {plan.ram} ? 1 : -1];\n'
            f"typedef char same[sizeof(net_state) == {plan.ram} ? 1 : -1];\nint unused;\n"
        )
        subprocess.run([str(find_compiler()), *FLAGS, "-c", "size.c", "-o", "size.o"], cwd=tmp_path, check=True)


@needs_compiler
def test_a_state_of_another_size_does_not_compile(tmp_path: Path) -> None:
    write(tmp_path, digits_like(), "net")
    header = tmp_path / "net.h"
    header.write_text(header.read_text().replace("    int16_t lif2_v[3];", "    int32_t lif2_v[3];"))
    done = subprocess.run(
        [str(find_compiler()), "-c", "net.c", "-o", "net.o"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode
    assert "net_state_size_as_told" in done.stderr


def test_potentials_take_16_bits_where_no_input_can_pass_them() -> None:
    """A threshold of 511 is 32,704 in 64ths; a leak of a half doubles what inhibits at most: 2 · 255 · 64 = 32,640."""

    def types(threshold: int, weight: int, **more: Any) -> list[str]:
        graph = IntegerGraph(
            (entry((2,)), dense("fc", "in", [[127, weight]]), lif("a", "fc", (1,), [threshold], **more), out("a", (1,)))
        )
        return [buffer.ctype for buffer in make_plan(graph).buffers if buffer.name == "a_v"]

    assert types(511, -128) == ["int16_t"]
    assert types(512, -128) == ["int32_t"]
    assert types(511, -128, v_decay=1000) == ["int32_t"]
    assert types(511, -128, v_decay=0) == ["int32_t"]  # without a leak it may fall for ever
    assert types(511, 1, v_decay=0) == ["int16_t"]
    assert types(1, 1, reset="subtract", drop=ints(1)) == ["int32_t"]


@pytest.mark.push(1)
@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
@pytest.mark.parametrize("seed", range(4))
def test_the_network_itself_compiles_as_cpp(seed: int, tmp_path: Path) -> None:
    write(tmp_path, Grower(seed + 500).grow()[0], "net")
    for file in tmp_path.glob("*.c"):
        flags = ["-x", "c++", "-std=c++11", "-Wall", "-Wextra", "-Werror", "-pedantic"]
        subprocess.run(["g++", *flags, "-c", file.name, "-o", "net.o"], cwd=tmp_path, check=True)


@pytest.mark.parametrize("name", ["", "3d", "a-b", "_net", "größe", "a b", "x" * 33, "a\nb", "net.c", "../x"])
def test_a_prefix_that_is_no_identifier(name: str) -> None:
    with pytest.raises(InputError, match="name: expected an identifier"):
        require_prefix(name)


@pytest.mark.parametrize("name", ["int", "class", "main", "restrict", "nullptr", "string"])
def test_a_prefix_that_is_reserved(name: str) -> None:
    with pytest.raises(InputError, match=f"'{name}' is reserved in C or C.*choose another name, as name='{name}_net'"):
        require_prefix(name)
    assert require_prefix(f"{name}_net") == f"{name}_net"


@needs_compiler
def test_a_folder_keeps_its_prefix(tmp_path: Path) -> None:
    program = small().lif("a", 0.7).program()
    x = data(program)
    CFormat().write(program, tmp_path / "c", COptions(x=x, name="kws"))
    names = {path.name for path in (tmp_path / "c").iterdir()}
    assert {"kws.c", "kws.h", "kws_decide.c", "kws_decide.h"} < names
    runner = CFormat().load(tmp_path / "c").of(program)
    np.testing.assert_array_equal(runner.run(x, record=True).y, runner.model(program).run(x).y)
    subprocess.run(["make", "-s"], cwd=tmp_path / "c", check=True)
    assert (tmp_path / "c" / "kws").is_file()


@needs_compiler
def test_labels_of_each_step_are_decided_at_each_step(tmp_path: Path) -> None:
    """The sum since the start was asked before, of 33 % where the steps' own classes are 66 % right."""
    program = small().lif("a", 0.7).program()
    x = data(program)
    labels = np.zeros((x.shape[1], x.shape[0]), np.int64)
    CFormat().write(program, tmp_path / "c", COptions(x=x, labels=labels))
    graph, about = read_integers(tmp_path / "c" / "integers.npz")
    assert about.per_step
    assert not read_integers_of(program, x, tmp_path / "once").per_step
    assert "labels of each step" in (tmp_path / "c" / "net_decide.h").read_text()
    classes = stepped(tmp_path / "c", x[:, 0].astype(np.int32))
    y = simulate(graph, x[:, :1].astype(np.int32)).y[:, 0]
    assert classes == [[int(row.argmax())] * 2 for row in y]
    assert len({first for first, _ in classes}) > 1
    summed = stepped(tmp_path / "once", x[:, 0].astype(np.int32))
    assert summed == [[int(y[: t + 1].sum(axis=0).argmax()), int(y[t].argmax())] for t in range(len(y))]


def read_integers_of(program: Any, x: Any, place: Path) -> About:
    CFormat().write(program, place, COptions(x=x, labels=np.zeros(x.shape[1], np.int64)))
    return read_integers(place / "integers.npz")[1]


def stepped(folder: Path, x: Any) -> list[list[int]]:
    """net_class and net_step_class after each step of a sequence."""
    (folder / "main.c").unlink()
    main = (
        '#include <stdio.h>\n#include "net.h"\n#include "net_decide.h"\n' + table("x", x)
        + "int main(void)\n{\n    static net_state s;\n    net_decision d;\n"
        "    int32_t y[NET_OUTPUTS];\n    net_init(&s);\n"
        f"    net_decide_init(&d);\n    for (int t = 0; t < {len(x)}; t++) {{\n"
        "        if (net_step(&s, &x[t * NET_INPUTS], y) != 0)\n            return 1;\n        net_decide(&d, y);\n"
        '        printf("%d %d ", net_class(&d), net_step_class(y));\n    }\n    return 0;\n}\n'
    )  # fmt: skip
    found = compiled(folder, main)
    return [found[i : i + 2] for i in range(0, len(found), 2)]


@needs_compiler
def test_the_ecg_preset_is_decided_at_each_step(tmp_path: Path) -> None:
    """The shipped network for heartbeats, with weights as drawn: a class for each of its steps."""
    from stl_deploy.config.load import load_config
    from stl_deploy.exporters.nir.lower import lower
    from stl_deploy.verbs.capturing import untrained_graph

    steps = load_config("qtdb_ecg").dataset.steps if hasattr(load_config("qtdb_ecg").dataset, "steps") else 40
    graph, dialect = untrained_graph("qtdb_ecg")
    program = lower(graph, dialect)
    rng = np.random.default_rng(0)
    x = (rng.random((min(steps, 60), 3, *program.inputs[0].shape)) < 0.3).astype(np.float32)
    CFormat().write(program, tmp_path / "c", COptions(x=x, labels=np.zeros((3, len(x)), np.int64)))
    integers, about = read_integers(tmp_path / "c" / "integers.npz")
    assert about.per_step
    y = simulate(integers, x[:, :1].astype(np.int32)).y[:, 0]
    classes = stepped(tmp_path / "c", x[:, 0].astype(np.int32))
    assert classes == [[int(row.argmax())] * 2 for row in y]
    assert any(isinstance(node, IntegerLIF) for node in integers.nodes)


@needs_compiler
def test_built_to_saturate_input_out_of_range_counts_as_the_nearest(tmp_path: Path) -> None:
    graph = IntegerGraph((entry((2,), high=3), dense("fc", "in", [[1, 0], [0, 1]]), out("fc", (2,))))
    write(tmp_path, graph, "net")
    main = """
#include <stdio.h>
#include "net.h"
int main(void)
{
    static net_state state;
    const int32_t x[2] = { -5, 9 };
    const int8_t bytes[2] = { 127, -128 };
    int32_t y[2] = { 7, 7 };
    net_init(&state);
    printf("%d ", (int)net_step(&state, x, y));
    printf("%d %d ", (int)y[0], (int)y[1]);
    printf("%d ", (int)net_step_int8(&state, bytes, y));
    printf("%d %d\\n", (int)y[0], (int)y[1]);
    return 0;
}
"""
    assert compiled(tmp_path, main) == [-1, 7, 7, -1, 7, 7]
    assert compiled(tmp_path, main, "-DNET_SATURATE") == [0, 0, 3, 0, 3, 0]


def test_the_header_names_classes_training_steps_and_licence() -> None:
    about = About(steps=8, trained=4, dt=0.001, classes=("rest", "walk */ #error", "run"))
    header = render_plan(make_plan(other()), about)["net.h"]
    assert " * Classes: 0 rest, 1 walk * / #error, 2 run.\n" in header
    assert "trained with sequences of 4 steps; exported with sequences of 8 steps" in header
    assert "SPDX-License-Identifier: BSD-3-Clause" in header
    assert "a step is 0.001 " in header


@needs_compiler
@pytest.mark.parametrize("begins", [True, False])
def test_a_state_that_was_never_initialised_fails_an_assertion_in_debug_builds(begins: bool, tmp_path: Path) -> None:
    write(tmp_path, other(), "net")
    main = f"""
#include <stdio.h>
#include "net.h"
int main(void)
{{
    static net_state state;
    const int32_t x[8] = {{ 0 }};
    int32_t y[2];
    {"net_init(&state);" if begins else ""}
    printf("%d\\n", (int)net_step(&state, x, y));
    return 0;
}}
"""
    if begins:
        assert compiled(tmp_path, main, "-DNET_DEBUG") == [0]
    else:
        with pytest.raises(subprocess.CalledProcessError) as failed:
            compiled(tmp_path, main, "-DNET_DEBUG")
        assert "begun" in failed.value.stderr
        assert compiled(tmp_path, main) == [0]
