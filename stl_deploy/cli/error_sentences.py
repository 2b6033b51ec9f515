"""Phrase foreign exceptions as one sentence: wrong calls, and refusals of the machine."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence

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
"""Frames that pydantic puts around the reason for a refusal, and the wording of other releases of typer."""

_POSSIBILITIES = r" \(did you mean .*"


def usage_sentence(error: BaseException, arguments: Sequence[str] = ()) -> str | None:
    """Return typer's finding on a wrong call, and where to read on; None if ``error`` is no such finding.

    arguments: of the call, to answer a guess with.

    Recognised by its attributes: typer's exceptions move between modules from release to release.
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
    missing = re.match(r"missing option '(--?[\w-]+)'", text)
    value = getattr(getattr(error, "param", None), "metavar", None)
    if missing is not None and value is not None:
        return f"{text}; give {missing[1]} {value}"
    return f"{text}; see {verb} --help"


def is_help(error: BaseException) -> bool:
    """Return whether ``error`` is the help itself, requested by a call without arguments."""
    return type(error).__name__ == "NoArgsIsHelpError"


_ALLOCATIONS = re.compile(
    "can't allocate memory|not enough memory|cannot allocate memory|bad_?alloc|failed to map segment|out of memory",
    re.I,
)


def machines_refusal(error: BaseException) -> str | None:
    """Return the sentence for a refusal by the machine (a file, memory, a thread); None for any other error."""
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


def guess(message: str, options: Sequence[str], arguments: Sequence[str]) -> str | None:
    """Return the call's probable meaning, as an ending to the sentence ``message``; None if unknown.

    options: the verb's; arguments: the call's.
    """
    match = re.match(r"no such option:? '?(--?[\w-]+)", message, re.I)
    if match is not None and "--set" in options:
        key = _key(match[1].lstrip("-").replace("-", "_"))
        return None if key is None else f"say --set {key}={_value(match[1], arguments)}"
    match = re.match(r"missing option '--(backend|to|against)'", message, re.I)
    if match is not None:
        from stl_deploy.exporters.targets import registry

        named = "an exported file or folder, or a backend: " if match[1] == "against" else "one: "
        return f"give {named}{', '.join(registry().formats if match[1] == 'to' else registry().runners)}"
    return None


def _key(name: str) -> str | None:
    """Return the configuration's key of that name, with its section."""
    from stl_deploy.config.schema import RunConfig

    for section, field in RunConfig.model_fields.items():
        if name in getattr(field.annotation, "model_fields", {}):
            return f"{section}.{name}"
    return None


def _value(given: str, arguments: Sequence[str]) -> str:
    """Return an option's value, quoted for the shell; VALUE if there was none."""
    for place, argument in enumerate(arguments):
        if argument.startswith(f"{given}="):
            return shlex.quote(argument.partition("=")[2])
        if argument == given and place + 1 < len(arguments) and not arguments[place + 1].startswith("--"):
            return shlex.quote(arguments[place + 1])
    return "VALUE"
