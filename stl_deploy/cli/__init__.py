"""The command line: a thin layer over `stl_deploy.pipeline`; INTERFACES names its verbs."""

from stl_deploy.cli.main import main

__all__ = ["main"]
