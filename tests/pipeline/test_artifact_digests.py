"""The artifacts of one trained network do not change but on purpose."""

import json
from pathlib import Path

from tests.pipeline.artifact_digests import RECORDED, digests


def test_the_artifacts_are_those_that_were_recorded(tmp_path: Path) -> None:
    found, recorded = digests(tmp_path), json.loads(RECORDED.read_text())
    assert found.pop("counts") == recorded.pop("counts")
    assert found.keys() == recorded.keys()
    assert {name for name, digest in found.items() if digest not in recorded[name]} == set()
