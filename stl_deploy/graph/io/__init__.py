"""Validated reads of untrusted HDF5 and NIR files; atomic writes."""
