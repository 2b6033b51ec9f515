"""Spikes of the C by compiler and flags against the integer model: python -m benchmarks.c_compilers [--nets N] [-o OUT]

Drawn convolutional nets of 1 to 9 channels with each reset, with and without a pool, in the forms for registers of 64
and of 32 bits, built by every gcc and clang on the PATH. With 3, 5, 6 or 7 channels, gcc 12 and 13 read tables wrongly
that are read under a mask of AVX-512; the neurons' loop therefore reads them in every turn.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.files import write_text
from stl_deploy.exporters.c.layout import make_plan
from stl_deploy.exporters.c.program import Program
from stl_deploy.exporters.c.render import render_plan
from stl_deploy.graph.program import Node, Operand
from stl_deploy.integers.graph import ConvNode, IntegerGraph, IntegerInput, IntegerLIF, IntegerOutput, SumPoolNode
from stl_deploy.integers.net import INT16, LOIHI, WIDE, IntegerAdaptation, IntegerNeuron
from stl_deploy.integers.simulate import simulate
from stl_deploy.integers.store import About

COMPILERS = ("gcc-12", "gcc-13", "gcc-14", "gcc", "clang")
RESETS = ("value", "subtract", "value_delayed", "subtract_delayed", "several", "adapting")
V4 = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
"""Processor flags of x86-64-v4, as Linux names them."""
FORMS = ((), ("-DNET_NARROW",))


def compilers() -> list[str]:
    """Those on the PATH, each once."""
    paths = {os.path.realpath(path): name for name in reversed(COMPILERS) if (path := shutil.which(name))}
    return sorted(paths.values())


def flags() -> list[str]:
    """The levels, and this machine's vectors."""
    cpu = Path("/proc/cpuinfo")
    known = set(cpu.read_text().split()) if cpu.exists() else set()
    return ["-O1", "-O2", "-O3", "-O3 -march=native", *(["-O3 -march=x86-64-v4"] if known >= V4 else [])]


def draw(seed: int, channels: int, reset: str) -> tuple[IntegerGraph, NDArray[np.int32]]:
    """A convolution and its neurons, and input ``[8, 2, 3, H, W]``; about half have a max pool behind them."""
    rng = np.random.default_rng((seed, channels))
    height, width = (int(n) for n in rng.integers(2, 12, 2))
    accumulator = (WIDE, LOIHI, INT16)[rng.integers(3)]
    sizes = ((), (channels, 1, 1), (channels, height, width))
    top, high = (int(rng.choice(values)) for values in ((100, 400), (1, 16)))

    def whole(low: int, most: int, among: int = 3) -> Any:
        return np.asarray(rng.integers(low, most, sizes[3 - int(rng.integers(1, among + 1))], endpoint=True), np.int32)

    soft = reset.startswith("subtract") or reset in ("several", "adapting")
    neuron = IntegerNeuron(
        v_decay=int(rng.choice([0, 500, 2048, 4096])) if rng.random() < 0.7 else whole(0, 4096, 2),
        i_decay=4096 if rng.random() < 0.6 else 1500,
        threshold=whole(0, top),
        reset="subtract" if reset in ("several", "adapting") else reset,
        drop=whole(1, top, 1) if soft else None,
        v_reset=None if soft else whole(-20, 20, 1),
        cap=5 if reset == "several" else 1,
        adaptation=IntegerAdaptation(decay=700, jump=whole(0, 30, 1)) if reset == "adapting" else None,
    )
    shape = (channels, height, width)
    weight = rng.integers(-60, 64, (channels, 3, 3, 3)).astype(np.int32)
    window: dict[str, Any] = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
    image = (3, height, width)
    nodes: list[Node] = [
        IntegerInput(name="in", shape=image, operands=(), low=0, high=high, scale=1.0),
        ConvNode(
            name="c", shape=shape, operands=(Operand("in"),), weight=weight, bias=None, input_shape=image, **window
        ),
        IntegerLIF(name="a", shape=shape, operands=(Operand("c"),), neuron=neuron, bias=None),
    ]
    if rng.random() < 0.5 and reset != "several":
        shape = (channels, height // 2, width // 2)
        pool: dict[str, Any] = {"kernel": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0))}
        fires = IntegerNeuron(v_decay=4096, threshold=np.zeros((), np.int32))
        nodes += [
            SumPoolNode(name="p", shape=shape, operands=(Operand("a"),), input_shape=nodes[-1].shape, **pool),
            IntegerLIF(name="o", shape=shape, operands=(Operand("p"),), neuron=fires, bias=None),
        ]
    nodes.append(IntegerOutput(name="out", shape=shape, operands=(Operand(nodes[-1].name),), unit=1.0))
    x = (rng.random((8, 2, *image)) < 0.3) * rng.integers(1, high, (8, 2, *image), endpoint=True)
    return IntegerGraph(tuple(nodes), accumulator), x.astype(np.int32)


def differing(graph: IntegerGraph, x: NDArray[np.int32], compiler: str, options: tuple[str, ...]) -> int:
    """Return how many outputs differ from the integer model's, nothing recorded, as it ships."""
    plan = make_plan(graph)
    before = os.environ.get("CC")
    os.environ["CC"] = compiler
    try:
        made = Program(render_plan(plan, About()), plan).run(x, options=(*options, "-Wno-psabi"))
    finally:
        os.environ.pop("CC") if before is None else os.environ.update(CC=before)
    return int((made.y != simulate(graph, x).y).sum())


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", type=int, default=216, help="how many are drawn; default: 4 of each kind")
    parser.add_argument("-o", "--output", type=Path, help="folder of c-compilers.md")
    arguments = parser.parse_args()
    kinds = [(channels, reset) for channels in range(1, 10) for reset in RESETS]
    wrong: Counter[tuple[str, str]] = Counter()
    rows = [(compiler, level) for compiler in compilers() for level in flags()]
    for seed in range(arguments.nets):
        graph, x = draw(seed, *kinds[seed * 23 % len(kinds)])
        for compiler, level in rows:
            for form in FORMS:
                wrong[compiler, level] += differing(graph, x, compiler, (*level.split(), *form)) > 0
        print(f"{seed + 1} of {arguments.nets}: wrong {sum(wrong.values())}", file=sys.stderr, flush=True)
    lines = [
        "# The C target by compiler and flags",
        "",
        f"Wrong of {len(FORMS) * arguments.nets} nets, by `make compilers` ([how](../c.md#how-it-is-checked)).",
        "",
        f"| compiler | {' | '.join(f'`{level}`' for level in flags())} |",
        "|---|" + "---|" * len(flags()),
    ]
    for compiler in compilers():
        lines.append(f"| {compiler} | {' | '.join(str(wrong[compiler, level]) for level in flags())} |")
    text = "\n".join(lines) + "\n"
    if arguments.output is not None:
        write_text(arguments.output / "c-compilers.md", text)
    print(text)
    return int(sum(wrong.values()) > 0)


if __name__ == "__main__":
    sys.exit(main())
