"""One sentence for exceptions that are not ours: a wrong call, and what the machine refuses."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from stl_deploy.cli.guesses import guess

_WRAPPINGS = (
    (r"Value error, ", ""),
    (r"^No such option '(-[\w-]+)'", r"No such option: \1"),
    (r"Input should be (.*?)(, unable to parse .*)?$", r"expected \1"),
    (r"extra arguments? \(", r"extra argument(s) ("),
    (r"( Did you mean [^?]*\?)\1$", r"\1"),
    (r"Did you mean one of: ", "Did you mean "),
    (r"'(--[\w-]+)'(?=[,?])", r"\1"),
    (r"\.? \(?(?:Possible options:|Did you mean) (.*?)\??\)?$", r" (did you mean \1?)"),
    (r"\.$", ""),
)
"""What pydantic puts around the reason that a value is refused, and how other releases of typer word it."""

_POSSIBILITIES = r" \(did you mean .*"


def usage_sentence(error: BaseException, arguments: Sequence[str] = ()) -> str | None:
    """What typer found wrong with the call, and where to read on; None if ``error`` is no such finding.

    arguments: of the call, to answer a guess with.

    Known by what it can do: typer's exceptions live in another module from release to release.
    """
    tell = getattr(error, "format_message", None)
    if tell is None:
        return None
    text = " ".join(str(tell()).split())
    for wrapping, kept in _WRAPPINGS:
        text = re.sub(wrapping, kept, text)
    text = text[:1].lower() + text[1:]
    context = getattr(error, "ctx", None)
    verb = context.command_path if context is not None else "stl-deploy"
    options = [name for p in context.command.params for name in p.opts] if context is not None else []
    meant = guess(text, options, arguments)
    if meant is not None:
        return f"{re.sub(_POSSIBILITIES, '', text)}; {meant}"
    return f"{text}; see {verb} --help"


def is_help(error: BaseException) -> bool:
    """Whether ``error`` is the help itself, asked for by a call without arguments."""
    return type(error).__name__ == "NoArgsIsHelpError"


_ALLOCATIONS = re.compile(
    "can't allocate memory|not enough memory|cannot allocate memory|bad_?alloc|failed to map segment|out of memory",
    re.I,
)


def machines_refusal(error: BaseException) -> str | None:
    """The sentence for what the machine refuses (a file, memory, a thread); None for any other error."""
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | ImportError | OSError) and _ALLOCATIONS.search(str(error))
    ):
        return "not enough memory for this; give it more, or fewer samples or steps"
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return "this machine lets no further thread start; raise the limit (ulimit -u)"
    if isinstance(error, OSError):
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return f"{where}{error.strerror or error}"
    return None
