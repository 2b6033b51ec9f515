"""Read untrusted files: never block on pipes or devices; parser errors become InputError."""

from __future__ import annotations

import re
import stat
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stl_deploy.errors import InputError, StlDeployError

_DEFECTS = (AssertionError, AttributeError, LookupError, NameError, NotImplementedError, TypeError, ZeroDivisionError)


@contextmanager
def parse_errors_as_input_errors(path: Path | str, what: str, *, ours: bool = False) -> Iterator[None]:
    """Turn a parser's exceptions inside into an InputError that says ``path`` is no ``what``.

    For calls of foreign parsers, whose errors have no common base. Exceptions that only a mistake in our own lines
    raises (a missing key or attribute, a wrong type) pass through as defects. ours: our lines take unchecked contents
    apart, so such an exception is the file's fault, too.
    """
    try:
        yield
    except StlDeployError:
        raise
    except MemoryError:
        raise InputError(f"{path}: not enough memory to read it") from None
    except Exception as error:
        if not ours and _is_defect(error):
            raise
        if isinstance(error, OSError) and error.strerror and error.filename is not None:
            raise InputError(f"{path}: {error.strerror}") from None
        sentence = f"{path}: damaged, truncated or not {what} ({one_line(error, 160)})"
        raise InputError(sentence) from error  # --debug shows where


def _is_defect(error: Exception) -> bool:
    """Return whether a line of this package raised it, of a kind that damage does not raise."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    raised_in = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__"))
    return isinstance(error, _DEFECTS) and raised_in.split(".")[0] == __name__.split(".")[0]


def error_location(error: BaseException, file: Path) -> str:
    """Describe an error of a user's own code in ``file``, in one line with its location."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file]
    line = f"line {frames[-1].lineno}: " if frames else ""
    return f"{line}{type(error).__name__}: {one_line(error, 300)}"


def one_line(error: BaseException, most: int | None = None) -> str:
    """Return an error's text without line breaks, its type's name if it has none; at most ``most`` characters."""
    return (" ".join(str(error).split()) or type(error).__name__)[:most]


def plain_file(path: Path, what: str, most: int | None = None) -> int:
    """Return the size of a regular file in bytes.

    Raises InputError if ``path`` is none (a pipe or device would block), is unreadable, or is larger than ``most``
    bytes; ``what`` is the expected kind, as in "an .npz".
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise InputError(f"{path}: expected {what}; found no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise InputError(f"{path}: expected {what}; {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or device"
        raise InputError(f"{path}: expected {what}; found {kind}")
    if most is not None and status.st_size > most:
        raise InputError(f"{path}: expected {what} of at most {most} bytes; found {status.st_size}")
    return status.st_size


def read_text(path: Path, what: str, most: int = 2**24) -> str:
    """Read a text file in UTF-8; raise InputError if there is none, or it is larger than ``most`` bytes."""
    plain_file(path, what, most)
    with parse_errors_as_input_errors(path, what):
        return path.read_text(encoding="utf-8")


_OBEYED = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but the line feed, those that turn the direction of text, and halves of characters."""


def printable(text: str) -> str:
    """Return ``text`` with control characters escaped, as in ``\\x1b``."""
    return _OBEYED.sub(lambda match: ascii(match.group())[1:-1], text)


def continued(message: str) -> str:
    """Indent a message's further lines, so that a name with a line break cannot pass for a line of ours."""
    return message.replace("\n", "\n  ")
