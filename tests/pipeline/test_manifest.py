"""What a manifest says of the process that wrote it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.file import write_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.pipeline.export import manifest
from tests.hostile.nets import small_graph


@pytest.mark.parametrize("threads", [1, 2])
def test_torchs_threads_are_recorded(threads: int) -> None:
    """Trained weights depend on them."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert manifest(lower(small_graph()), [])["threads"] == threads
    finally:
        torch.set_num_threads(before)


def test_the_dialect_is_that_of_the_graph_or_absent() -> None:
    """A Program that NIR cannot hold has none: a default's words would contradict its neurons."""
    read = lower(small_graph(), Dialect(reset="subtract_delayed", dt=1e-3))
    dialect = manifest(read, [])["dialect"]
    assert (dialect["reset"], dialect["dt"]) == ("subtract_delayed", 1e-3)
    assert manifest(replace(read, origin=None, metadata={}), [])["dialect"] is None


def test_without_torch_there_are_none(tmp_path: Path) -> None:
    write_nir(small_graph(), tmp_path / "a.nir")
    code = (
        "import sys; from pathlib import Path; from stl_deploy.exporters.nir.lower import lower\n"
        "from stl_deploy.exporters.nir.file import read_nir\nfrom stl_deploy.pipeline.export import manifest\n"
        "found = manifest(lower(read_nir(Path(sys.argv[1]))), [])\n"
        "print('torch' not in sys.modules, found['threads'])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.nir")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "True None\n"
