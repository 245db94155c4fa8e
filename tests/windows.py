"""Linux with what Windows lacks taken away: modules, signals, calls, sockets, UTF-8 by default.

Run in a process before relay is imported.  What relay is built on is imported first, because the
standard library chooses its own parts for the system by the same names.
"""

import asyncio
import functools
import importlib
import os
import shutil
import signal
import socket
import sys
import types
from pathlib import Path
from typing import Any, NoReturn

HERE = Path(__file__).parent
BEFORE = f"import sys; sys.path.insert(0, {str(HERE)!r}); import windows; windows.hide()"
# Files are read and written in the encoding of the region where none is named; here that is ASCII.
ENVIRONMENT = {
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "PATHEXT": f".CMD{os.pathsep}.EXE",
}

MODULES = "fcntl termios tty pty resource pwd grp readline syslog curses uvloop".split()
SIGNALS = "SIGHUP SIGQUIT SIGUSR1 SIGCHLD SIGPIPE SIGTSTP SIGCONT SIGKILL SIGWINCH".split()
SIGNAL_CALLS = "pthread_sigmask SIG_BLOCK SIG_UNBLOCK SIG_SETMASK pause setitimer alarm".split()
OS_CALLS = (
    "fork forkpty getuid geteuid getgid setuid getpgrp getpgid tcgetpgrp setsid pread pwrite writev"
    " uname mkfifo fchown chown O_NOFOLLOW O_NONBLOCK O_CLOEXEC O_NOCTTY O_DIRECTORY"
    " posix_fallocate sendfile sched_getaffinity"
).split()
SOCKETS = "AF_UNIX SO_REUSEPORT send_fds recv_fds TCP_USER_TIMEOUT".split()


def hide() -> None:
    """From now on this process has no more than it would have there."""
    used = (
        "aiohttp aiohttp.web sqlite3 ssl subprocess tempfile logging zoneinfo uuid multiprocessing"
    )
    for name in [*used.split(), "concurrent.futures.thread", "asyncio.unix_events"]:
        importlib.import_module(name)
    lock = importlib.import_module("fcntl").flock
    msvcrt: Any = types.ModuleType("msvcrt")
    msvcrt.LK_LOCK, msvcrt.locking = 1, lambda descriptor, mode, length: lock(descriptor, 2)
    sys.modules |= {"msvcrt": msvcrt} | dict.fromkeys(MODULES)  # type: ignore[arg-type]
    signal.SIGBREAK = signal.SIGUSR2  # type: ignore[attr-defined]  # sent as that
    pair: Any = functools.partial(socket.socketpair, socket.AF_UNIX)  # which asyncio is woken by
    socket.socketpair = pair
    for module, names in (
        (signal, SIGNALS + SIGNAL_CALLS),
        (os, OS_CALLS),
        (socket, SOCKETS),
    ):
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    if hasattr(os, "process_cpu_count"):  # Python 3.13, written for the system it runs on
        os.process_cpu_count = os.cpu_count
    shutil.__dict__["_use_fd_functions"] = False  # as it has found out for the system it runs on
    loop: Any = asyncio.SelectorEventLoop
    loop.add_signal_handler = loop.remove_signal_handler = _not_there
    Path.symlink_to = os.symlink = _no_privilege  # type: ignore[method-assign,assignment]
    winapi = types.SimpleNamespace(NeedCurrentDirectoryForExePath=lambda name: False)
    shutil.__dict__["_winapi"] = winapi
    sys.platform = "win32"


def _not_there(*_: object) -> NoReturn:
    raise NotImplementedError


def _no_privilege(*_: object) -> NoReturn:
    raise OSError(1314, "A required privilege is not held by the client")
