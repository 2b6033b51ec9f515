"""Targets: the registry, and a folder each that checks, writes, reads back or runs an artifact."""
