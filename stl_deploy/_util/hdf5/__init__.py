"""Validated reads of untrusted HDF5 files, and atomic writes; NIR, netx and event recordings share it."""
