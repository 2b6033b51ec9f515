"""Picks values out of records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]
Records = Mapping[str, Sequence[Record]]
Value = Callable[[Record], float]
_NAMES = {"digits": "digits", "mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10"}


def accuracy(record: Record) -> float:
    """Test accuracy of the epoch that validation picked, in percent."""
    return 100 * float(record["test"]["accuracy"])


def where(records: Sequence[Record], dataset: str, **labels: Any) -> dict[int, Record]:
    """The records of a dataset with these labels, by seed."""
    return {
        record["seed"]: record
        for record in records
        if record["dataset"] == dataset and all(record["labels"].get(key) == value for key, value in labels.items())
    }


def values(found: Mapping[int, Record], value: Value = accuracy) -> list[float]:
    """A value of each record, in the order of seeds."""
    return [value(found[seed]) for seed in sorted(found)]


def pairs(
    first: Mapping[int, Record], second: Mapping[int, Record], value: Value = accuracy
) -> tuple[list[float], list[float]]:
    """A value of both for each seed that both have."""
    common = sorted(set(first) & set(second))
    return [value(first[seed]) for seed in common], [value(second[seed]) for seed in common]


def datasets(records: Sequence[Record]) -> list[str]:
    """In the order they come."""
    return list(dict.fromkeys(record["dataset"] for record in records))


def labels_of(records: Sequence[Record], key: str) -> list[Any]:
    """The values of a label, in the order they come."""
    return list(dict.fromkeys(record["labels"][key] for record in records))


def name(dataset: str) -> str:
    """A dataset's name for people."""
    return _NAMES[dataset]
