"""Read untrusted HDF5 files with validation, and write them atomically, for NIR, netx and event recordings."""
