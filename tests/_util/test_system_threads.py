import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
if {torch_first}:
    import torch
from stl_deploy._util.system import sleep_when_idle
print(sleep_when_idle(), os.environ.get("OMP_WAIT_POLICY"))
"""


@pytest.mark.parametrize(
    ("torch_first", "setting", "expected"),
    [(False, None, "True passive"), (False, "active", "False active"), (True, None, "False None")],
)
def test_waiting_is_passive_unless_the_user_chose_or_it_is_too_late(torch_first, setting, expected):
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    if setting:
        environment["OMP_WAIT_POLICY"] = setting
    command = [sys.executable, "-c", PROGRAM.format(torch_first=torch_first)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=True)
    assert done.stdout.strip() == expected
