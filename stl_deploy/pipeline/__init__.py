"""Verbs in memory, one module each: from a network, input and options to a result; run folders are in `runs`."""
