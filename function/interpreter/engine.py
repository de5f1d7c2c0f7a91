"""`Interpreter.run`: one request in, one `Completed` out, whatever the code does. Runs on the host's side.

The code itself never runs in this process: it runs in a child forked by a template process, which is watched against
the limits and cleaned up after.
"""

from __future__ import annotations

import ast
import contextlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from interpreter import confinement, kernel
from interpreter.confinement import Limits
from interpreter.files import FileError, collect, decode, left, write
from interpreter.outcome import Completed, complete, refused
from interpreter.packages import INSTALL_LIMIT_S, Overlay, PackageError, PackageInstaller, PackagePolicy
from interpreter.sessions import NEW, Session, SessionError, Sessions
from interpreter.template import MATPLOTLIB, ROOT, Template, TemplateLost, readable_directories, shipped_font_lists
from interpreter.watch import Bounds, Child, Held, Watched, resume, watch

PACKAGES = ".packages"  # where runtime installs lie, below the scratch directory
HEAVY = ("numpy", "numpy.random", "pandas", "matplotlib", "matplotlib.pyplot")
ON_HEAVY = {"scipy", "seaborn", "sklearn"}  # not preloaded, but they import what is


@dataclass(frozen=True, slots=True)
class _Call:
    """One call, as far as it is decided: what to run, with what, and how long it may take."""

    code: str
    overlay: Overlay
    given: Mapping[str, bytes]
    return_files: tuple[str, ...]
    timeout_s: float
    install_ms: float
    on_stdout: Callable[[str], None] | None


class Interpreter:
    """The templates of one environment, and `run`.

    `limits` bound each run; `preload` names the modules of the heavy template; `packages` is what calls may install;
    `sessions` is how many may be kept at once; `scratch` is where runs have their directories; without `hook` or
    `kernel_layer` the other layers stand alone, to be measured.
    Thread-safe: each run has a child and pipes of its own.

    When a call has ended and all it left is gone, the child of the next one is forked, so that it finds it confined
    and waiting. No code ever runs beside such a child: whatever comes next uses it or ends it first.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        preload: Sequence[str] = HEAVY,
        network: bool = False,
        packages: PackagePolicy | None = None,
        hook: bool = True,
        kernel_layer: bool = True,
        sessions: int = 0,
        scratch: Path | None = None,
    ) -> None:
        self.limits = limits
        self.network = network
        self.hook = hook
        self.scratch = scratch or Path(tempfile.gettempdir())
        self.alone = confinement.alone()
        self._ancestors = confinement.ancestors()
        self.kernel = kernel.probe() if kernel_layer else kernel.NONE
        self._preload = tuple(preload)
        self._lock = threading.Lock()
        self._templates: dict[str, Template] = {}
        self.sessions = Sessions(sessions, self._end_session)
        self.packages = PackageInstaller(self.scratch / PACKAGES, packages)
        if self.alone:
            confinement.wipe(str(self.scratch))
        matplotlib = self.scratch / MATPLOTLIB
        matplotlib.mkdir(exist_ok=True)
        for fonts in shipped_font_lists():  # matplotlib wants a directory it can write to, and its list in it
            shutil.copy(fonts, matplotlib)
        self._readable = readable_directories(matplotlib)
        self._next: Child | None = None
        self._running = 0
        for kind in ("bare", "heavy"):
            self._template(kind)
        self._prepare("bare")

    def close(self) -> None:
        """End the templates. The runs under way end with them."""
        self.sessions.end_all()
        if self._next is not None:
            self._end_child(self._next)
        for template in self._templates.values():
            template.close()
        self._templates.clear()
        self.packages.close()

    def run(
        self,
        code: str,
        requirements: Sequence[str] = (),
        *,
        files: Mapping[str, Any] | None = None,
        return_files: Sequence[str] = (),
        session_id: str | None = None,
        deadline_s: float | None = None,
        on_stdout: Callable[[str], None] | None = None,
    ) -> Completed:
        """Run `code` after installing `requirements`, with `files` laid beside it; never raises for what the code does.

        `files`: name -> text or {"base64": ...}; `return_files`: names of files whose contents come back.
        `session_id`: `new` for a session that keeps its names, then the id that came back; see `sessions`.
        `deadline_s`: seconds until an answer is due (what Lambda has left, less a margin); the configured limit
        holds where it is smaller. `on_stdout` gets text as it is printed, from this thread.
        """
        begun = time.monotonic()
        budget = self.limits.timeout_s if deadline_s is None else min(self.limits.timeout_s, deadline_s)
        install_ms = 0.0
        try:
            if session_id not in (None, NEW) and (requirements or files):
                raise SessionError("requirements and files are given with the call that starts a session")
            given = decode(files or {})
            overlay = Overlay()
            if requirements:
                overlay = self.packages.install(requirements, timeout_s=min(INSTALL_LIMIT_S, max(budget, 0.1)))
                install_ms = (time.monotonic() - begun) * 1000
            if deadline_s is not None:
                budget = min(budget, deadline_s - install_ms / 1000)
            call = _Call(code, overlay, given, tuple(return_files), max(budget, 0.1), install_ms, on_stdout)
            if session_id in (None, NEW):
                return self._run_afresh(call, self.sessions.check_new() if session_id else None)
            return self._run_on(call, self.sessions.take(session_id or ""))
        except (PackageError, FileError, SessionError) as error:
            return refused(error, (time.monotonic() - begun) * 1000 if requirements else 0.0)

    def _run_afresh(self, call: _Call, session_id: str | None) -> Completed:
        kind = "heavy" if session_id or self._wants_libraries(call.code, call.overlay) else "bare"
        held: Held | None = None
        child: Child | None = None
        try:
            child = self._take(kind, call.overlay)
            write(child.run_dir, call.given)
            try:
                watched = self._watch(child, call, session=session_id is not None)
            except TemplateLost:  # once: a second one is no accident
                child = self._replace(child, call)
                watched = self._watch(child, call, session=session_id is not None)
            held = watched.held
            if held is not None and session_id is not None:
                self.sessions.keep(session_id, held, child.run_dir, kind)
            return self._completed(call, watched, child.run_dir, session_id if held else None)
        except BaseException:
            self.kill_strays()
            raise
        finally:
            if child is not None:
                child.forget()
            self._clean(child.run_dir if child is not None and held is None else None, kind)

    def _run_on(self, call: _Call, session: Session) -> Completed:
        """A further call of a session. Where it does not end in order, that was its last."""
        held: Held | None = None
        waiting = self._begin()
        try:
            if waiting is not None:
                self._end_child(waiting)
            request = self._request(call, session=True)
            watched = resume(session.held, self._template(session.kind), request, self._bounds(call))
            held = watched.held
            if held is not None:
                self.sessions.keep(session.id, held, session.run_dir, session.kind)
            return self._completed(call, watched, session.run_dir, session.id if held else None)
        except BaseException:
            self.kill_strays()
            raise
        finally:
            self._clean(session.run_dir if held is None else None, session.kind)

    def _completed(self, call: _Call, watched: Watched, run_dir: str, session_id: str | None) -> Completed:
        self.kill_strays()  # before its files are looked at
        listed, more = left(run_dir, call.given)
        returned, problems = collect(run_dir, call.return_files)
        completed = complete(watched, call.timeout_s, call.install_ms, listed, returned)
        completed.execution.session_id = session_id
        if more:
            completed.execution.truncated.append("files")
        completed.execution.warnings += "".join(f"return_files: {problem}\n" for problem in problems)
        return completed

    def _wants_libraries(self, code: str, overlay: Overlay) -> bool:
        """Whether the heavy template pays: the code imports one of its libraries, in the version it has loaded."""
        preloaded = {name.partition(".")[0] for name in self._preload}
        if overlay.modules & preloaded:
            return False
        wanted = set(imported_modules(code))
        return bool(wanted & (preloaded | ON_HEAVY))

    def _template(self, kind: str) -> Template:
        with self._lock:
            template = self._templates.get(kind)
            if template is None or template.process.poll() is not None:
                if template is not None:
                    template.close()
                template = Template(self._preload if kind == "heavy" else (), self.scratch, execute_only=self.alone)
                self._templates[kind] = template
            return template

    def _begin(self) -> Child | None:
        """From here on code may run, so the child that waits is the caller's, to be used or ended now."""
        with self._lock:
            self._running += 1
            child, self._next = self._next, None
        return child

    def _take(self, kind: str, overlay: Overlay) -> Child:
        """The child for a call: the one that waits, where it is of this kind and sees no packages, or a new one."""
        child = self._begin()
        if child is not None:
            if child.kind == kind and not overlay.paths and not child.is_lost():
                child.waited = True
                return child
            self._end_child(child)
        try:
            return self._launch(kind, overlay)
        except TemplateLost:
            return self._launch(kind, overlay)

    def _watch(self, child: Child, call: _Call, *, session: bool) -> Watched:
        return watch(child, lambda: self._request(call, session=session), self._bounds(call))

    def _launch(self, kind: str, overlay: Overlay) -> Child:
        run_dir = tempfile.mkdtemp(prefix="run-", dir=self.scratch)
        setting = {
            "run_dir": run_dir,
            "paths": overlay.paths,
            "limits": asdict(self.limits),
            "kernel": asdict(self.kernel),
            "hook": self.hook,
            "policy": {"readable": self._readable, "hidden": [str(ROOT)], "network": self.network},
        }
        template = self._template(kind)
        try:
            return Child(template, kind, setting)
        except BaseException as error:
            confinement.remove(run_dir)
            if isinstance(error, TemplateLost):
                template.close()  # waits for its end, so that the next look finds it gone
            raise

    def _replace(self, lost: Child, call: _Call) -> Child:
        """Another child for one that was lost before it took its request."""
        if lost.pid is None:
            lost.template.close()
        confinement.remove(lost.run_dir)
        child = self._launch(lost.kind, call.overlay)
        write(child.run_dir, call.given)
        return child

    def _prepare(self, kind: str) -> None:
        """Have the child of the next call forked, unless a call is under way."""
        with contextlib.suppress(TemplateLost):  # the next call will see to it
            child: Child | None = self._launch(kind, Overlay())
            with self._lock:
                if not self._running and self._next is None:
                    self._next, child = child, None
            if child is not None:
                self._end_child(child)

    def _end_child(self, child: Child) -> None:
        child.forget()
        confinement.remove(child.run_dir)

    def _bounds(self, call: _Call) -> Bounds:
        disk = str(self.scratch) if self.alone else None
        return Bounds(self.limits, call.timeout_s, disk, self.kill_strays, call.on_stdout)

    def _request(self, call: _Call, *, session: bool) -> dict[str, Any]:
        """What the child is told when its call has come, as JSON can carry it."""
        tasks_now = sum(task.threads for task in confinement.own_tasks()) if self.alone else None
        return {"code": call.code, "session": session, "timeout_s": call.timeout_s, "tasks_now": tasks_now}

    def _clean(self, run_dir: str | None, kind: str) -> None:
        """Remove what a call, whose strays are dead, leaves: its directory, or all of /tmp where that is ours alone."""
        try:
            if run_dir is not None:
                confinement.remove(run_dir)
            if self.alone:
                kept = {os.path.basename(directory) for directory in self.sessions.directories}
                confinement.wipe(str(self.scratch), keep=(MATPLOTLIB, PACKAGES, *kept))
        finally:
            with self._lock:
                self._running -= 1
        if not self._running:
            self._prepare(kind)

    def kill_strays(self) -> None:
        """Where the environment is ours alone, end all that is not us. Elsewhere the templates end their orphans."""
        if self.alone:
            templates = [template.process.pid for template in self._templates.values()]
            confinement.sweep({*self._ancestors, *templates, *self.sessions.pids})

    def _end_session(self, session: Session) -> None:
        session.held.end()
        confinement.remove(session.run_dir)

    def layers(self) -> list[tuple[str, bool, str]]:
        """Each confinement layer: name, whether it is active here, and what it does or why it is not."""
        return confinement.layers(self.alone, self.kernel, network=self.network, hook=self.hook)


def imported_modules(code: str) -> Iterator[str]:
    """Top-level names of the modules `code` imports; nothing for code that does not parse. A hint, never a check."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
