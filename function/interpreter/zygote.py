"""A template process: imports libraries once, then forks one child per run. Holds no secret and no thread.

Run as `python -I zygote.py CONTROL_FD CONFIG_JSON`, exec'd with a clean environment (a process forked from the
handler would keep the handler's memory and /proc/self/environ). Between two preloads it serves what has come in, so a
run that needs no library is not held up by the warming.
"""

from __future__ import annotations

import array
import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import types
from typing import Any

# What every child would import anyway, imported once. cffi's backend is there so that the audit layer can close its way
# into C, which raises no event.
BARE = ("ctypes", "mmap", "socket", "sqlite3", "subprocess", "tempfile", "threading", "traceback", "_cffi_backend")
DESCRIPTORS = 6  # channel, stdout, stderr, report, trace: the child's; status: ours


def main(control_fd: int, config: dict[str, Any]) -> None:
    sys.path[:] = config["sys_path"]
    sys.executable = config["executable"]  # this process may run from a copy that is gone
    sys.path.insert(0, config["root"])
    from interpreter import audit, child, confinement, judges, kernel, outputs

    sys.path.remove(config["root"])
    for module in (audit, child, confinement, judges, kernel, outputs):
        _without_source(module)
    confinement.become_subreaper()
    control = socket.socket(fileno=control_fd)
    zygote = Zygote(control, child.main, confinement.sweep_orphans)
    # Built-in modules too: the audit layer cannot let any be made later without letting all be made anew.
    for name in set(sys.builtin_module_names) - judges.REFUSED_MODULES:
        importlib.import_module(name)
    for name in (*BARE, *config["preload"]):
        zygote.serve_pending()
        try:
            importlib.import_module(name)
        except ImportError as error:
            print(f"interpreter: {name} is not preloaded: {error}", file=sys.stderr)
    gc.collect()
    gc.freeze()  # shared pages stay shared: the collector does not touch what was there before the fork
    zygote.serve()


def _without_source(module: Any) -> None:
    """Give our functions a file name that no traceback tries to read: the code may not, and would be told so."""
    name = f"<{module.__name__}>"
    for value in list(vars(module).values()):
        methods = vars(value).values() if isinstance(value, type) else (value,)
        for function in methods:
            if isinstance(function, types.FunctionType) and function.__module__ == module.__name__:
                function.__code__ = _renamed(function.__code__, name)


def _renamed(code: types.CodeType, name: str) -> types.CodeType:
    constants = tuple(_renamed(one, name) if isinstance(one, types.CodeType) else one for one in code.co_consts)
    return code.replace(co_filename=name, co_consts=constants)


class Zygote:
    """This process as its host knows it: forks a child for each request, and tells of its start and its end."""

    def __init__(self, control: socket.socket, run_child: Any, sweep_orphans: Any) -> None:
        self.control = control
        self.run_child = run_child
        self.sweep_orphans = sweep_orphans
        self.statuses: dict[int, int] = {}  # child pid -> descriptor its end is reported on
        # A signal that comes just before select() sleeps would not end that sleep; the byte it leaves here does.
        self.woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, self.reap)

    def serve(self) -> None:
        """Fork for every request until the host closes the control socket."""
        control = self.control.fileno()
        while True:
            ready, _, _ = select.select([control, self.woken], [], [])
            if self.woken in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self.woken, 4096)  # Python has run the handler by now, or does before the next line
            if control in ready and not self.serve_one():
                os._exit(0)

    def serve_pending(self) -> None:
        while select.select([self.control], [], [], 0)[0]:
            if not self.serve_one():
                os._exit(0)

    def serve_one(self) -> bool:
        fds = array.array("i")
        size = fds.itemsize * DESCRIPTORS
        message, ancillary, _flags, _address = self.control.recvmsg(1, socket.CMSG_SPACE(size))
        if not message:
            return False
        os.sched_yield()  # on a shared core the host's answer to the last call goes before the next one's fork
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        *childs, status = fds
        # SIGCHLD may come before the pid is entered, so it waits until then.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            self.run_child(*childs)
            os._exit(70)
        self.statuses[pid] = status
        _tell(status, {"pid": pid})
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        for fd in childs:
            os.close(fd)
        return True

    def reap(self, *_: Any) -> None:
        """In the signal handler, so that a child's end is told while a library is being imported."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            fd = self.statuses.pop(pid, None)
            if fd is None:  # an orphan that came to us as subreaper
                continue
            self.sweep_orphans(self.statuses)
            cpu_ms = (usage.ru_utime + usage.ru_stime) * 1000
            _tell(fd, {"status": status, "cpu_ms": cpu_ms, "max_rss_kb": usage.ru_maxrss})
            os.close(fd)


def _tell(fd: int, message: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # the host has given the run up
        os.write(fd, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]))
