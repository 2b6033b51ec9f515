"""What all tests share: a configuration that trains in no time, which tests are slow, and which a push leaves out."""

import random
import signal
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

from stl_deploy._util import working
from stl_deploy.config.schema import RunConfig

# How long an example takes is the machine's affair. A push is judged by the same examples everywhere; other ones are
# drawn by `make explore`.
settings.register_profile("same", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.register_profile("explore", settings.get_profile("same"), derandomize=False, print_blob=True)
settings.load_profile("same")

# A parent that ignores them (a background job of a script, nohup) hands that down to the processes that tests start.
for _name, _handler in (
    ("SIGINT", signal.default_int_handler),
    ("SIGTERM", signal.SIG_DFL),
    ("SIGHUP", signal.SIG_DFL),
):
    _number = getattr(signal, _name, None)
    if _number is not None and signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

working.FIRST = 1e6  # seconds: no line about long work stands among what tests expect, however busy the machine is

QUICK_ROOMS = (
    "_util",
    "config",
    "data",
    "energy",
    "integers",
    "exporters/netx",
    "exporters/nir",
    "exporters/onnx",
    "fold",
    "graph",
)
"""Rooms whose tests are quick, but for those that `SLOW_FILES` and `SLOW_FIXTURES` name."""
QUICK_FILES = (
    "nn/test_learn_thresholds.py",
    "nn/test_network.py",
    "nn/test_neuron.py",
    "nn/test_population.py",
    "pipeline/test_parity.py",
    "pipeline/test_spiking_graph.py",
    "test_architecture.py",
    "test_face.py",
    "test_packaging.py",
    "tracing/test_capture.py",
    "tracing/test_first_step.py",
    "tracing/test_golden.py",
)
SLOW_FILES = (
    "_util/test_install.py",
    "_util/test_isolated.py",
    "_util/test_system.py",
    "_util/test_system_threads.py",
    "data/test_events.py",
    "energy/test_chromium.py",
    "energy/test_report.py",
    "energy/test_sanafe.py",
    "energy/test_traffic.py",
    "energy/test_verbs.py",
    "exporters/netx/test_golden.py",
    "exporters/nir/test_conformance_kit.py",
    "exporters/nir/test_golden.py",
    "exporters/onnx/test_exact.py",
    "exporters/onnx/test_parity.py",
    "exporters/onnx/test_telemetry.py",
)
STUDIES = ("benchmarks", "examples")
"""Rooms that hold studies: on a push run only those of their tests that are marked ``push``."""
SLOW_FIXTURES = {"ann", "digits_run", "run_dir", "small_run", "study", "tiny"}
"""They train."""

TINY: dict[str, Any] = {
    "dataset": {"name": "digits", "T": 3, "validation_fraction": 0.1, "test_fraction": 0.7},
    "network": [
        {"kind": "conv", "channels": 4, "padding": 1},
        {"kind": "norm"},
        {"kind": "lif"},
        {"kind": "pool"},
        {"kind": "dropout", "p": 0.2},
        {"kind": "flatten"},
        {"kind": "linear", "features": 20},
        {"kind": "lif"},
        {"kind": "vote", "population": 2},
    ],
    "train": {"epochs": 3, "batch_size": 32, "lr": 0.01, "device": "cpu", "matmul": "highest"},
}


@pytest.fixture
def tiny() -> RunConfig:
    """A configuration that trains in well under a second."""
    return RunConfig.model_validate(TINY)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Every test, and every fixture that it is the first to use, draws the same numbers, in whatever order they run."""
    random.seed(0)
    torch.manual_seed(0)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`make quick` does not even import the files that it leaves out whole."""
    is_test = collection_path.match("test_*.py")
    quick_alone = config.option.markexpr.startswith("not slow")
    return True if is_test and quick_alone and not _is_quick(collection_path) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make quick` leaves out, and what `make test` does: all but some cases of a test marked ``push``."""
    cases = defaultdict(list)
    for item in items:
        if not _is_quick(item.path) or SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("push"):
            cases[item.nodeid.partition("[")[0]].append(item)
        elif item.path.parent.name in STUDIES:
            item.add_marker(pytest.mark.nightly)
    for of_a_test in cases.values():
        most = of_a_test[0].get_closest_marker("push").args[0]
        kept = {(2 * k + 1) * len(of_a_test) // (2 * most) for k in range(most)}
        for number, item in enumerate(of_a_test):
            if number not in kept:
                item.add_marker(pytest.mark.nightly)


def _is_quick(path: Path) -> bool:
    where = path.relative_to(Path(__file__).parent)
    in_quick_room = where.parent.as_posix() in QUICK_ROOMS and where.as_posix() not in SLOW_FILES
    return where.as_posix() in QUICK_FILES or in_quick_room
