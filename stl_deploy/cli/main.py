"""Entry point: turn expected errors into one sentence and an exit code."""

from __future__ import annotations

import gc
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

from stl_deploy._util import install, processes
from stl_deploy._util.remedies import command_line
from stl_deploy._util.untrusted import continued
from stl_deploy.cli import output
from stl_deploy.cli.error_sentences import is_help, machines_refusal, usage_sentence
from stl_deploy.cli.streams_and_signals import (
    Endings,
    end_at_once,
    ended_like_interrupted,
    flush_streams,
    open_closed_streams,
    prepare_libraries,
    say,
)
from stl_deploy.errors import InputError, StlDeployError
from stl_deploy.training import distributed

_INTERRUPTED = 130
_INTERNAL = 70
_WRONG_CALL = 2
_ALLOCATIONS = 50_000
"""Containers between garbage collections: imports make hundreds of thousands, and collecting them frees none."""
_INTERNAL_SENTENCE = "internal error: {type}: {error} (this is a bug; --debug shows where)"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 a check failed, 2 wrong call or input."""
    open_closed_streams()
    prepare_libraries()
    if argv is None:
        gc.set_threshold(_ALLOCATIONS, 20, 20)
    arguments = list(sys.argv[1:] if argv is None else argv)
    output.settings.debug = _take(arguments, "--debug")
    output.settings.quiet = _take(arguments, "-q", "--quiet")
    output.settings.verbose = _take(arguments, "-v", "--verbose")
    output.settings.kept = None
    output.settings.emitted = False
    output.settings.arguments = arguments
    with (
        output.warnings_as_lines(),
        output.prints_beside_data(),
        command_line(),
        ended_like_interrupted(last=argv is None) as endings,
    ):
        code = _run(arguments, endings)
    unwritten = flush_streams()
    if unwritten is not None:
        say(f"stl-deploy: error: cannot write to standard output: {unwritten}")
        code = code or _WRONG_CALL
    if argv is None or processes.world_size() > 1:
        end_at_once(code)
    sys.exit(code)


def _take(arguments: list[str], *flags: str) -> bool:
    """Remove a flag from anywhere on the line; return whether it was there."""
    is_given = any(flag in arguments for flag in flags)
    arguments[:] = [argument for argument in arguments if argument not in flags]
    return is_given


def _run(arguments: list[str], endings: Endings) -> int:
    try:
        code = _done(arguments)
        endings.settle(code)
        return code
    except BaseException as error:
        endings.settle(_INTERRUPTED)
        interrupted = endings.came or isinstance(error, KeyboardInterrupt)
        return _interrupted() if interrupted else _failed(error, arguments)


def _done(arguments: list[str]) -> int:
    from stl_deploy.cli.app import app

    code = app(args=arguments, prog_name="stl-deploy", standalone_mode=False)
    if code == _INTERRUPTED:  # typer's word for Ctrl-C
        raise KeyboardInterrupt
    return int(code or 0)


def _failed(error: BaseException, arguments: list[str]) -> int:
    """Print the error; return the exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, StlDeployError):
        return _refused(error)
    if isinstance(error, BrokenPipeError):
        return 1
    if isinstance(error, ModuleNotFoundError):
        return _not_installed(error)
    if is_help(error):
        say(str(error))
        return _WRONG_CALL
    if (wrong_call := usage_sentence(error, arguments)) is not None:
        return _refused(InputError(wrong_call, slug="wrong-call"))
    if (refusal := machines_refusal(error)) is not None:
        return _refused(InputError(refusal, slug="machine"))
    return _internal(error)


def _refused(error: StlDeployError) -> int:
    """Print the error, as JSON too if that was asked for and no result is out yet; return the exit code."""
    _show(f"error: {error}")
    with suppress(InputError):  # of a closed output
        output.emit_json({"error": error.as_dict()}, output.settings.wants_json())
    return error.exit_code


def _internal(error: BaseException) -> int:
    _show(_INTERNAL_SENTENCE.format(type=type(error).__name__, error=error))
    return _INTERNAL


def _not_installed(error: ModuleNotFoundError) -> int:
    package = (error.name or "").partition(".")[0]
    if package not in install.PACKAGES or install.is_there(package):
        return _internal(error)
    return _refused(install.missing(package))


def _interrupted() -> int:
    kept = output.settings.kept
    if processes.rank() == 0:  # the others are interrupted because of what the first one, or torchrun, has said
        _show(f"interrupted; {'nothing half-written is left' if kept is None else kept()}")
    return _INTERRUPTED


def _show(message: str) -> None:
    if output.settings.debug:
        say(traceback.format_exc().rstrip())
    if distributed.speaks():
        say(f"stl-deploy: {continued(message)}")
