"""The tables of `benchmarks.quantisation` in Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

HEADER = (
    "weights",
    "thresholds",
    "accuracy",
    "points lost",
    "spikes unlike the graph's",
    "real Lava: spikes unlike ours",
)


def markdown(data: dict[str, Any]) -> str:
    """Every run's table, and under it what was measured on."""
    lines = [
        "# Float to Loihi's integers",
        "",
        "Made by `make quantisation` (`python -m benchmarks.quantisation`); simulated, nothing ran on a chip.",
        "Accuracies are of our integer model on test images; real Lava is `lava.lib.dl.netx` on the same file, on some",
        "of them. What the forms mean and what holds them: [Loihi](../loihi.md#thresholds).",
        "",
    ]
    for table in data["tables"]:
        lines += _table(table)
    return "\n".join(lines).rstrip() + "\n"


def _table(table: dict[str, Any]) -> Iterator[str]:
    yield f"## {table['dataset']}: {table['run']}"
    yield ""
    yield "| " + " | ".join(HEADER) + " |"
    yield "|" + "---|" * len(HEADER)
    floats = table["rows"][0]["accuracy"]
    for row in table["rows"]:
        yield "| " + " | ".join(_cells(row, floats)) + " |"
    yield ""
    yield (
        f"{table['test_images']:,} test images, T = {table['T']}, mode {table['mode']}; integers chosen on "
        f"{table['calibration_images']} training images, then trained for {table['epochs']} epochs.{_lava(table)}"
    )
    yield ""


def _cells(row: dict[str, Any], floats: float) -> tuple[str, ...]:
    if row["refused"] is not None:
        return (row["stage"], row["form"], "-", "-", "-", f"cannot be held: {row['refused']}")
    differing = "-"
    if row["compared"]:
        differing = f"{row['differing'] / row['compared']:.2%}"
    lava, measured = "-", row.get("lava")
    if measured is not None:
        lava = f"{measured['differing']:,} of {measured['compared']:,} ({measured['samples']} images)"
    return (
        row["stage"],
        row["form"],
        f"{row['accuracy']:.2%}",
        f"{100 * (floats - row['accuracy']):+.2f}",
        differing,
        lava,
    )


def _lava(table: dict[str, Any]) -> str:
    seconds = [row["lava"]["seconds"] for row in table["rows"] if row.get("lava") is not None]
    if not seconds:
        return " Real Lava did not run."
    return f" Lava took {min(seconds):.0f} to {max(seconds):.0f} s a file."
