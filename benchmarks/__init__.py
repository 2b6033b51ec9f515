"""Measurements that the documentation quotes, each a command of its own.

OpenMP's idle threads sleep, as under our command line (`stl_deploy._util.system`), unless a measurement of what others
meet asks for the C library's defaults.
"""

import os

AS_IT_COMES = "STL_BENCH_AS_IT_COMES"
"""Environment variable; with it nothing is set."""

if AS_IT_COMES not in os.environ:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
