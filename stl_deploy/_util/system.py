"""Settings of the process and the operating system: limits, file locks, process groups, memory, idle threads.

Linux and macOS have all limits, locks and groups. Windows locks files in another way and has none of the rest; Python
in a browser (Emscripten, WASI) starts no processes either. If a safeguard is missing, the work goes on without it.
"""

from __future__ import annotations

import os
import signal
import sys
from subprocess import Popen

from stl_deploy.errors import InputError

_BEYOND = 2**30
"""Where Windows locks a byte: one that is locked can be read by nobody else."""


def starts_processes() -> bool:
    """Return whether this platform can start another process at all."""
    return sys.platform not in ("emscripten", "wasi")


def limit_memory(most: int) -> bool:
    """Limit this process's address space to ``most`` bytes; return False if that is impossible."""
    try:
        import resource
    except ImportError:
        return False
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    except (OSError, ValueError):  # macOS knows the limit and refuses most values
        return False
    return True


TORCH_BYTES = 2**31
"""Address space of torch, numba and ONNX Runtime, of their threads' stacks and heaps, and of small batches."""


def require_address_space() -> None:
    """Raise InputError if this process may not map what training and evaluation take.

    In native code the shortage ends the process, or is tried again without end (torch, OpenBLAS), with no error that
    Python could catch.
    """
    try:
        import resource
    except ImportError:
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < TORCH_BYTES:
        raise InputError(
            f"expected an address space of at least {TORCH_BYTES / 2**30:.0f} GiB for torch and its threads; found "
            f"a limit of {limit / 2**30:.2g} GiB; raise it (ulimit -v {TORCH_BYTES // 2**10})"
        )


def memory_in_use() -> int:
    """Return the bytes of this process's address space; 0 if unknown."""
    try:
        with open("/proc/self/statm") as stream:
            return int(stream.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def end_after(seconds: float) -> bool:
    """End this process after ``seconds`` more of processor time (0: never); return False if that is impossible."""
    if not hasattr(signal, "setitimer"):
        return False
    signal.setitimer(signal.ITIMER_PROF, seconds)
    return True


def ran_out_of_time(exit_status: int | None) -> bool:
    """Return whether a process with this exit status was ended by its own `end_after`."""
    alarm = getattr(signal, "SIGPROF", None)
    return alarm is not None and exit_status == -alarm


def lock(descriptor: int) -> None:
    """Lock an open file for this process, until it closes it or ends; raise OSError if another one holds the lock."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, _BEYOND, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        return
    try:
        import fcntl
    except ImportError:
        return
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def signal_group(leader: Popen[bytes], number: int) -> None:
    """Send a signal to a process and all of its group; raise ProcessLookupError when none of them is left.

    Without groups, to the process alone.
    """
    if hasattr(os, "killpg"):
        os.killpg(leader.pid, number)
    elif leader.poll() is not None:
        raise ProcessLookupError
    elif number:
        leader.terminate()


_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_THRESHOLD = 2**30
_VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")


def keep_large_buffers() -> bool:
    """Raise malloc's mmap and trim thresholds to 1 GiB for this process; True if that was done.

    glibc would else give large buffers back after every training step, and each step spend up to 60 % of its time on
    faulting their pages in anew. Nothing is done where the C library is not glibc, or where the user chose an allocator
    or its settings.
    """
    if any(name in os.environ for name in _VARIABLES):
        return False
    try:
        import ctypes

        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 (looks the symbol up)
        mallopt = libc.mallopt
    except (ImportError, AttributeError, OSError, TypeError):
        return False
    return all(mallopt(option, _THRESHOLD) == 1 for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD))


def sleep_when_idle() -> bool:
    """Ask OpenMP for passive waiting; return True if that was done.

    torch's threads wait for each other after every operation. Spinning costs a training step several times its length
    when anything else wants the processor: a thread that is not running keeps all others turning.

    Call it before torch is imported, since OpenMP reads its settings once; the user's own setting is kept.
    """
    if "torch" in sys.modules or any(name in os.environ for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")):
        return False
    os.environ["OMP_WAIT_POLICY"] = "passive"
    return True
