import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import mmap, resource
from stl_deploy._util.system import keep_large_buffers
assert keep_large_buffers() is {expected}
if {expected}:
    import ctypes
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    size = 64 * 2**20
    def touch():
        block = libc.malloc(size)
        ctypes.memset(block, 1, size)
        libc.free(block)
    touch()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        touch()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults < size // mmap.PAGESIZE // 2, faults
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are those of glibc's malloc alone")
@pytest.mark.parametrize("own", [False, True])
def test_freed_buffers_are_kept_unless_the_user_chose(own):
    environment = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "GLIBC_TUNABLES")}
    environment = {k: v for k, v in environment.items() if not k.startswith("MALLOC_")}
    if own:
        environment["MALLOC_TRIM_THRESHOLD_"] = "100000"
    command = [sys.executable, "-c", PROGRAM.format(expected=not own)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
