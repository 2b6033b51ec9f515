"""The command line: each verb of `stl_deploy.verbs` as a command, its errors as exit codes."""

import signal
import threading

# Ctrl-C while the modules load ends the process without a traceback.
_ours = (
    threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
)
if _ours:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from stl_deploy.cli.main import main  # noqa: E402

if _ours:
    signal.signal(signal.SIGINT, signal.default_int_handler)

__all__ = ["main"]
