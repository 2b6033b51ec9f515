"""Helpers without knowledge of networks: console, files, processes, suggestions."""
