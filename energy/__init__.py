"""Counts, joules and the report."""
