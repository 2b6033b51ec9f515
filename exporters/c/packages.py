"""Packages of an export for build systems and registries: sources, metadata, and a self-test of recorded sequences.

A package is a folder inside the C folder. Its example runs recorded sequences and prints PASS, as does ``make check``
in the C folder itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stl_deploy.exporters.c.names import in_comment
from stl_deploy.exporters.c.plan import Plan
from stl_deploy.exporters.c.render import literals, templates
from stl_deploy.integers.graph import IntegerInput
from stl_deploy.integers.simulate import simulate
from stl_deploy.integers.store import About

Package = Literal["cmake", "arduino", "platformio", "zephyr", "esp-idf", "cmsis-pack"]
VERSION, URL = "1.0.0", "https://github.com/stl-deploy/stl-deploy"
EXAMPLE = "examples/selftest"
MOST_SAMPLES, MOST_BYTES = 4, 8192
"""Of the recorded sequences; of one that is longer the first steps are taken."""


@dataclass(frozen=True)
class Layout:
    """Folders of headers and of the self-test within a package, and its other files by their templates.

    ``P`` in a name stands for the prefix.
    """

    headers: str
    selftest: str
    files: Mapping[str, str]


LAYOUTS: Mapping[Package, Layout] = {
    "cmake": Layout("include", EXAMPLE, {"CMakeLists.txt": "cmake.txt", f"{EXAMPLE}/main.c": "main.c"}),
    "arduino": Layout(
        "src", EXAMPLE, {"library.properties": "library.properties", f"{EXAMPLE}/selftest.ino": "main.cpp"}
    ),
    "platformio": Layout(
        "include",
        f"{EXAMPLE}/src",
        {
            "library.json": "library.json",
            f"{EXAMPLE}/platformio.ini": "platformio.ini",
            f"{EXAMPLE}/src/main.cpp": "main.cpp",
        },
    ),
    "zephyr": Layout(
        "include",
        f"{EXAMPLE}/src",
        {
            "zephyr/module.yml": "module.yml",
            "CMakeLists.txt": "zephyr.txt",
            f"{EXAMPLE}/CMakeLists.txt": "zephyr_sample.txt",
            f"{EXAMPLE}/prj.conf": "prj.conf",
            f"{EXAMPLE}/sample.yaml": "sample.yaml",
            f"{EXAMPLE}/src/main.c": "main.c",
        },
    ),
    "esp-idf": Layout(
        "include",
        f"{EXAMPLE}/main",
        {
            "idf_component.yml": "idf_component.yml",
            "CMakeLists.txt": "idf.txt",
            f"{EXAMPLE}/CMakeLists.txt": "idf_project.txt",
            f"{EXAMPLE}/main/CMakeLists.txt": "idf_main.txt",
            f"{EXAMPLE}/main/main.c": "esp_main.c",
        },
    ),
    "cmsis-pack": Layout("include", EXAMPLE, {"stl-deploy.P.pdsc": "pack.pdsc", f"{EXAMPLE}/main.c": "main.c"}),
}


def package_files(
    kind: Package, plan: Plan, about: About, sources: Mapping[str, str], x: NDArray[Any]
) -> dict[str, str]:
    """Return the files of a package by their paths within it.

    Args:
        kind: Build system or registry.
        plan: The network's layout.
        about: As stored in the C folder.
        sources: Files of the C folder by name.
        x: Integers ``[T, B, *shape]``; the first samples become the recorded sequences.
    """
    layout, prefix = LAYOUTS[kind], about.prefix
    own = {name: text for name, text in sources.items() if name.startswith((f"{prefix}.", f"{prefix}_"))}
    placed = {f"{layout.headers if name.endswith('.h') else 'src'}/{name}": text for name, text in own.items()}
    facts = {
        "package_version": VERSION,
        "url": URL,
        "sources": sorted(path for path in placed if path.endswith(".c")),
        "headers": sorted(path for path in placed if path.endswith(".h")),
        "flash": plan.flash,
        "ram": plan.ram,
    }
    files = {
        path.replace("P.", f"{prefix}.") if path.endswith(".pdsc") else path: t for path, t in layout.files.items()
    }
    return placed | with_selftest(layout.selftest, files, plan, about, x, facts)


def with_selftest(
    folder: str, files: Mapping[str, str], plan: Plan, about: About, x: NDArray[Any], facts: Mapping[str, Any]
) -> dict[str, str]:
    """Render the self-test into ``folder``, and other files by their templates. facts: what these need besides."""
    prefix = about.prefix
    context = {
        "P": prefix,
        "U": prefix.upper(),
        "version": in_comment(about.made_by),
        "title": in_comment(about.title),
        "numbers": literals,
        **recorded(plan, x),
        **facts,
    }
    selftest = {f"{folder}/{prefix}_selftest.{end}": f"selftest.{end}" for end in "hc"}
    return {
        path: templates().get_template(f"packages/{name}.j2").render(context)
        for path, name in (selftest | dict(files)).items()
    }


def recorded(plan: Plan, x: NDArray[Any]) -> dict[str, Any]:
    """Return sequences in the narrowest form that a step takes, and a hash of the integer model's output for each."""
    node = plan.graph.input
    ctype, suffix = _form(node)
    flat = x.swapaxes(0, 1).reshape(x.shape[1], x.shape[0], -1)
    if ctype == "uint8_t":
        flat = np.packbits(flat.astype(np.uint8), axis=2, bitorder="little")
    width = {"uint8_t": 1, "int8_t": 1, "int32_t": 4}[ctype] * flat.shape[2]
    steps = max(1, min(x.shape[0], MOST_BYTES // width))
    samples = max(1, min(x.shape[1], MOST_SAMPLES, MOST_BYTES // (steps * width)))
    y = simulate(plan.graph, x[:steps, :samples]).y.swapaxes(0, 1)
    return {
        "ctype": ctype,
        "suffix": suffix,
        "samples": samples,
        "steps": steps,
        "step_values": flat.shape[2],
        "values": flat[:samples, :steps].reshape(-1),
        "expected": np.array([_hash(sample.astype("<i4").tobytes()) for sample in y], np.int64),
    }


def _form(node: IntegerInput) -> tuple[str, str]:
    if node.low >= 0 and node.high <= 1:
        return "uint8_t", "_bits"
    return ("int8_t", "_int8") if node.low >= -128 and node.high <= 127 else ("int32_t", "")


def _hash(data: bytes) -> int:
    """FNV-1a of 32 bits."""
    value = 2166136261
    for byte in data:
        value = (value ^ byte) * 16777619 % 2**32
    return value
