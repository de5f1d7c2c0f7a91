"""The Locust side: one dispatcher user per process sends the plan's arrivals, each in a greenlet of its own.

    locust -f load/locustfile.py --headless --profile smoke --host http://127.0.0.1:8000/dev/lambda/mcp/

`python -m load run` starts the same with defaults and makes the reports. On several machines, whose clocks agree:

    locust -f load/locustfile.py --headless --profile spike --host URL --master --expect-workers 2      here
    locust -f load/locustfile.py --worker --master-host HERE                                            on two others

Then copy their requests-w*.jsonl and run-w*.json into the run's directory here; `python -m load report DIR` judges all.

Latency is measured from the intended time and every arrival leaves a row, whatever became of it. Locust's own
statistics are fed for its web UI and tables only: their buckets lose up to 5 % and they forget what is in flight at the
end.
"""

import argparse
import gc
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import gevent  # type: ignore[import-untyped]
import gevent.ssl  # type: ignore[import-untyped]
from gevent.event import Event  # type: ignore[import-untyped]
from geventhttpclient.client import HTTPClient
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError
from geventhttpclient.url import URL
from locust import FastHttpUser, events, task
from locust.env import Environment
from locust.exception import StopUser
from locust.runners import MasterRunner, WorkerRunner

# Locust puts the current directory first, where a user may have a `load` of their own.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from load.abort import Tally, tallies, why_stop
from load.arrivals import Arrival
from load.budget import check_budget
from load.exchange import post, request_bytes
from load.gate import ThresholdError, check_lines
from load.pacing import pace
from load.plan import Plan, PlanError, load_plan, parse_plan
from load.progress import Progress, progress_line, show
from load.rows import Outcome, Row, RowWriter, RunRecord, write_run
from load.scenarios import SCENARIOS, Verdict, build_request, judge_answer, parse_server_timing
from load.settings import SettingsError, api_key, check_endpoint, without_secrets
from load.users import User, users_of
from load.workers import ABORT, PROGRESS, Following, tell_master

REFUSED = (PlanError, SettingsError, ThresholdError)

LEAD_S = 0.3
"""From the dispatcher's start to the first intended time: room to warm up imports, so that no arrival starts late."""

TOGETHER_S = 2.0
"""The same for a run of several workers, whose zero the master sets. One that is late, or whose clock is off by more
than this, has its arrivals behind it when it begins: they leave at once and show as send lag."""

log = logging.getLogger("load")


class Aborted(Exception):
    """Raised out of the dispatch loop when the plan says that enough has failed."""


class FailedAnswer(Exception):
    """Carries an outcome into Locust's own statistics."""


@dataclass(frozen=True, slots=True)
class Job:
    """One arrival with what it asks."""

    arrival: Arrival
    scenario: str
    era: str

    @property
    def at_s(self) -> float:
        return self.arrival.at_s


@dataclass(slots=True)
class Pending:
    """A job under way; `sent_s` is None until its greenlet has run."""

    job: Job
    sent_s: float | None = None
    greenlet: gevent.Greenlet | None = None


@dataclass(slots=True, repr=False)
class Drive:
    """One process's share of a run: what is open, what was counted, and the files it writes to.

    It has no repr of its own: gevent prints one when a greenlet fails, and this holds the key.
    """

    environment: Environment
    plan: Plan
    endpoint: str
    out: Path
    record: RunRecord
    record_path: Path
    writer: RowWriter
    anchor_unix_s: float
    scheduled: int
    api_key: str | None
    feeds_locust: bool
    http: HTTPClient | None = None
    requests: dict[tuple[str, str], bytes] = field(default_factory=dict)
    anchor_s: float = 0.0
    pending: dict[int, Pending] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    tallies: list[Tally] = field(default_factory=list)
    aborted: Event = field(default_factory=Event)
    finished: bool = False

    def now(self) -> float:
        """Seconds since the anchor of the run."""
        return time.monotonic() - self.anchor_s

    def jobs(self) -> Iterator[Job]:
        """This process's arrivals: every n-th of the common schedule."""
        share, of = self.record.worker_index, self.record.workers_expected
        for arrival, scenario, era in self.plan.arrivals():
            if arrival.index % of == share:
                yield Job(arrival, scenario, era)

    def run(self, user: FastHttpUser) -> None:
        """Sends everything, drains, and closes the books. Returns early, books closed, when the user is killed."""
        # The pool's client, not FastHttpUser's session: it gives the first byte's time, adds no retry or redirect, and
        # costs less per request.
        http = user.client.client.clientpool.get_client(URL(self.endpoint))
        self.http = http
        self.requests = {
            (name, era): self._wire(http, name, era) for name in self.plan.scenarios for era in self.plan.eras
        }
        watcher = gevent.spawn(self._watch)
        ended: Literal["complete", "stopped", "aborted"] = "stopped"
        gc.collect()
        gc.freeze()
        try:
            self.record.anchor_unix_s = self.anchor_unix_s or time.time() + LEAD_S
            self.anchor_s = time.monotonic() + self.record.anchor_unix_s - time.time()
            write_run(self.record_path, self.record)
            try:
                users = [gevent.spawn(self._be_user, user) for user in self.users()]
                pace(self.jobs(), now=self.now, sleep=self._sleep, launch=self._launch)
                self._wait_until(self.plan.duration_s)
            except Aborted:
                pass
            waiting = set(self._greenlets())
            gevent.killall([user for user in users if user not in waiting], block=False)
            gevent.joinall(self._greenlets(), timeout=self.plan.drain_s)
            ended = "aborted" if self.aborted.is_set() else "complete"
        finally:
            watcher.kill(block=False)
            self.finish(ended)

    def users(self) -> list[User]:
        """This process's closed-loop users: every n-th of the plan's."""
        return users_of(self.plan.stages)[self.record.worker_index :: self.record.workers_expected]

    def _be_user(self, user: User) -> None:
        """Asks, waits, thinks, until the user's stage is over or the run was stopped."""
        questions = user.questions(self.plan.seed, self.plan.scenarios, self.plan.eras)
        gevent.sleep(max(0.0, user.start_s - self.now()))
        while not self.aborted.is_set() and not self.finished and (at_s := self.now()) < user.end_s:
            scenario, era = next(questions)
            job = Job(Arrival(self._index_for_user(), at_s, user.stage), scenario, era)
            self.record.dispatched += 1
            pending = self.pending[job.arrival.index] = Pending(job, greenlet=gevent.getcurrent())
            pause_s = user.pause_s(refused=self._exchange(pending) == "connect_error")
            if self.now() + pause_s >= user.end_s:
                return
            gevent.sleep(pause_s)

    def _index_for_user(self) -> int:
        """After the whole schedule's indices, each worker every n-th: no two rows of a run share one."""
        index = self.scheduled + self.record.worker_index + self.record.by_users * self.record.workers_expected
        self.record.by_users += 1
        return index

    def _wire(self, http: HTTPClient, scenario: str, era: str) -> bytes:
        request = build_request(SCENARIOS[scenario], era, self.api_key)
        parts = urlsplit(self.endpoint)
        uri = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return request_bytes(http, uri, request.headers, request.body)

    def _greenlets(self) -> list[gevent.Greenlet]:
        return [pending.greenlet for pending in self.pending.values() if pending.greenlet is not None]

    def _wait_until(self, at_s: float) -> None:
        """A plan whose last arrival leaves early still lasts as long as it says, so that rates mean what they say."""
        left_s = at_s - self.now()
        if left_s > 0:
            self._sleep(left_s)

    def _sleep(self, seconds: float) -> None:
        """Raises Aborted when the run was; a long wait is ended by it."""
        if seconds < 1:
            gevent.sleep(seconds)
        else:
            self.aborted.wait(seconds)
        if self.aborted.is_set():
            raise Aborted

    def finish(self, ended: Literal["complete", "stopped", "aborted", "interrupted"]) -> None:
        """Writes a row for everything still open and the final run record. Safe to call twice."""
        if self.finished:
            return
        self.finished = True
        greenlets = self._greenlets()
        for pending in list(self.pending.values()):
            self._record_open(pending)
        gevent.killall(greenlets, block=False)
        self.record.ended = ended
        self.record.ended_s = round(self.now(), 3)
        self.writer.close()
        write_run(self.record_path, self.record)

    def _launch(self, job: Job) -> None:
        if self.finished:
            raise Aborted  # Locust's end has closed the books before this greenlet was killed
        self.record.dispatched += 1
        if len(self.pending) >= self.plan.max_in_flight:
            verdict = Verdict("dropped", f"{self.plan.max_in_flight} requests were open already (max_in_flight)")
            self._write(_row(job, None, None, None, None, verdict), None)
            return
        pending = self.pending[job.arrival.index] = Pending(job)
        pending.greenlet = gevent.spawn(self._exchange, pending)

    def _exchange(self, pending: Pending) -> Outcome:
        """Sends one request, judges its answer, writes its row."""
        job = pending.job
        assert self.http is not None  # `run` has set it before anything is launched
        request = self.requests[job.scenario, job.era]
        first_s: float | None = None
        response: Any = None
        body = b""
        sent_s = pending.sent_s = self.now()
        try:
            response = post(self.http, request)
            first_s = self.now()
            body = response.read()
            done_s = self.now()
            verdict = None
        except TimeoutError:
            done_s = self.now()
            verdict = Verdict("timeout", f"no answer within {self.plan.request_timeout_s:g} s")
        except (OSError, HTTPConnectionClosed, HTTPParseError) as error:
            done_s = self.now()
            verdict = Verdict("connect_error", f"{type(error).__name__}: {error}"[:300])
        if verdict is None:
            if done_s - sent_s > self.plan.request_timeout_s:
                verdict = Verdict("timeout", f"answered only after {done_s - sent_s:.1f} s")
            else:
                kind = response.get("content-type") or ""
                verdict = judge_answer(SCENARIOS[job.scenario], response.get_code(), str(kind), body)
        if self.pending.pop(job.arrival.index, None) is None:
            return "in_flight"  # the run ended while the answer was being read; its row says so
        self._write(_row(job, sent_s, first_s, done_s, response, verdict, len(body)), verdict)
        return verdict.outcome

    def _record_open(self, pending: Pending) -> None:
        self.pending.pop(pending.job.arrival.index, None)
        now_s = self.now()
        verdict = Verdict(
            "in_flight", f"unanswered when the run ended, {now_s - pending.job.at_s:.1f} s after its time"
        )
        row = _row(pending.job, pending.sent_s, None, now_s, None, verdict)
        self._write(row, verdict)

    def _write(self, row: Row, verdict: Verdict | None) -> None:
        self.writer.write(row)
        for tally in self.tallies:
            tally.see(row)
        self.counts[row.outcome] = self.counts.get(row.outcome, 0) + 1
        if row.cold:
            self.counts["cold"] = self.counts.get("cold", 0) + 1
        if not self.feeds_locust:
            return
        fire: Any = self.environment.events.request.fire
        fire(
            request_type=row.era,
            name=row.scenario,
            response_time=row.latency_ms or 0.0,
            response_length=row.bytes or 0,
            exception=None if row.outcome == "ok" else FailedAnswer(f"{row.outcome}: {row.error}"),
            context={},
        )

    def progress(self) -> Progress:
        """What this process has done so far."""
        ok, cold = self.counts.get("ok", 0), self.counts.get("cold", 0)
        return Progress(
            dispatched=self.record.dispatched,
            by_users=self.record.by_users,
            open=len(self.pending),
            ok=ok,
            not_ok=sum(self.counts.values()) - ok - cold,
            cold=cold,
            tallies=tuple((tally.n, tally.past) for tally in self.tallies),
        )

    def _watch(self) -> None:
        """Once a second: this process's CPU share, what was written put on disk, and a word to whoever waits for it:
        the person, or the master of several workers, who also judges their abort."""
        cpu, clock = time.process_time(), time.monotonic()
        while True:
            gevent.sleep(1.0)
            if self.finished:
                return  # the books were closed by Locust's own end, not by `run`
            next_cpu, next_clock = time.process_time(), time.monotonic()
            self.record.cpu_share.append(round((next_cpu - cpu) / (next_clock - clock), 3))
            cpu, clock = next_cpu, next_clock
            self.writer.flush()
            if self.record.role == "worker":
                tell_master(self.environment, self.progress(), self.now())
                continue
            self._stop_if_hopeless()
            if self.plan.duration_s > 2:
                line = progress_line(self.progress(), self.now(), self.plan.duration_s, self.record.planned)
                show(line, len(self.record.cpu_share))

    def _stop_if_hopeless(self) -> None:
        abort = self.plan.abort
        if abort is None or self.aborted.is_set() or self.now() < abort.after_s:
            return
        if why := why_stop(self.tallies):
            self.abort(why)

    def abort(self, why: str) -> None:
        """Sends nothing more; what is open has its drain."""
        self.record.aborted_by = why
        self.aborted.set()


def _row(
    job: Job,
    sent_s: float | None,
    first_s: float | None,
    done_s: float | None,
    response: Any,
    verdict: Verdict,
    size: int | None = None,
) -> Row:
    header = (lambda name: None) if response is None else response.get
    invocation = _whole(header("x-lambda-invocation"))
    timing = header("server-timing")
    intended_s = job.arrival.at_s
    return Row(
        index=job.arrival.index,
        stage=job.arrival.stage,
        scenario=job.scenario,
        era=job.era,
        intended_s=round(intended_s, 6),
        sent_s=_rounded(sent_s),
        first_byte_s=_rounded(first_s),
        done_s=None if verdict.outcome == "in_flight" else _rounded(done_s),
        latency_ms=None if done_s is None else round((done_s - intended_s) * 1000, 3),
        service_ms=None if done_s is None or sent_s is None else round((done_s - sent_s) * 1000, 3),
        status=None if response is None else response.get_code(),
        outcome=verdict.outcome,
        error=verdict.error or None,
        lambda_request_id=header("x-lambda-request-id"),
        environment_id=header("x-lambda-environment-id"),
        invocation=invocation,
        init_type=header("x-lambda-init-type"),
        cold=None if invocation is None else invocation == 1,
        server_timing=parse_server_timing(timing) if timing else None,
        bytes=size,
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


def _whole(text: Any) -> int | None:
    try:
        return int(text)
    except (TypeError, ValueError):
        return None


_drive: Drive | None = None
_following: Following | None = None
_directories: list[Path] = []
"""Of the runs that this process started; more than one from the web UI."""


class Dispatcher(FastHttpUser):
    """The one user of a process. It sends the whole schedule of this process from one greenlet."""

    insecure = False
    ssl_context_factory = staticmethod(gevent.ssl.create_default_context)

    def __init__(self, environment: Environment) -> None:
        if _drive is not None:
            self.concurrency = _drive.plan.max_in_flight
            self.network_timeout = self.connection_timeout = _drive.plan.request_timeout_s
        super().__init__(environment)

    @task
    def dispatch(self) -> None:
        drive = _drive
        if drive is None or drive.http is not None:
            raise StopUser  # a second user in this process has nothing to send: rates come from the plan, not from -u
        try:
            drive.run(self)
        except Exception:
            log.exception("the dispatcher broke off; the run ends here")
            _announce_end(self.environment)
            raise StopUser from None
        _announce_end(self.environment)
        raise StopUser


def _add_arguments(parser: Any) -> None:
    parser.add_argument(
        "--rate", type=float, default=0.0, help="Highest arrival rate per second, instead of the profile's"
    )
    parser.add_argument("--duration", type=float, default=0.0, help="Seconds the plan lasts, instead of the profile's")
    parser.add_argument(
        "--out",
        default="",
        help="Directory for the raw records (default out/load-<UTC time>); each worker writes to the one of this name "
        "on its own machine",
    )
    parser.add_argument("--plan-json", default="", include_in_web_ui=False, help="A whole plan as JSON, or @FILE")
    parser.add_argument("--anchor-unix-s", type=float, default=0.0, include_in_web_ui=False, help=argparse.SUPPRESS)
    parser.add_argument(
        "--yes",
        action="store_true",
        default=False,
        include_in_web_ui=False,
        help="Do not ask when the plan is over its budget of requests",
    )
    parser.add_argument(
        "--raw-only",
        action="store_true",
        default=False,
        include_in_web_ui=False,
        help="Leave reports, verdict and budget to the caller",
    )


def _prepare(environment: Environment, **_: Any) -> None:
    """Looks at the plan before anything starts, so that a mistake in it ends Locust with one sentence and code 2."""
    options = environment.parsed_options
    if isinstance(environment.runner, WorkerRunner):
        environment.runner.register_message(ABORT, _heard_abort)
        return
    if isinstance(environment.runner, MasterRunner):
        environment.runner.register_message(PROGRESS, _heard_progress)
    if options is None:
        return
    try:
        if options.plan_json.startswith("@"):
            options.plan_json = Path(options.plan_json[1:]).read_text(encoding="utf-8")
        _settle(environment, ask=environment.web_ui is None)
    except REFUSED as error:
        print(f"load: {error}", file=sys.stderr)
        os._exit(2)  # Locust swallows SystemExit raised in a listener and would go on with exit code 0
    if not options.out:
        options.out = f"out/load-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    if isinstance(environment.runner, MasterRunner) and options.num_users is None:
        options.num_users = options.expect_workers  # one dispatcher for each worker
        options.spawn_rate = options.num_users  # Locust's own one a second would start the last worker as much later


def _settle(environment: Environment, ask: bool = False) -> Plan:
    """The plan by the options as they are now: the web UI changes them from run to run. Raises what REFUSED lists."""
    options = environment.parsed_options
    assert options is not None
    endpoint = check_endpoint(environment.host)
    api_key()
    if options.plan_json:
        plan = parse_plan(json.loads(options.plan_json), "--plan-json")
    else:
        plan = load_plan(options.profile or "smoke").scaled(options.rate or None, options.duration or None)
    check_lines(plan)
    tallies(plan.abort)
    check_budget(plan, endpoint, options.yes or options.raw_only, ask)
    return plan


def _plan_of_the_form(environment: Environment) -> str:
    """The settled plan as JSON. Of one that cannot be run, which the web UI may ask for, nothing: its page stays."""
    try:
        return _settle(environment).model_dump_json()
    except REFUSED as error:
        print(f"load: {error}", file=sys.stderr)
    assert environment.runner is not None
    gevent.spawn_later(1.0, environment.runner.stop)  # Locust stops no run that it has not started yet
    return ""


def _begin(environment: Environment, **_: Any) -> None:
    global _drive, _following
    options, runner = environment.parsed_options, environment.runner
    assert options is not None
    if not isinstance(runner, WorkerRunner):
        # Workers are sent the master's options, but not Locust's own --profile: the plan travels as JSON instead.
        options.settled_plan = _plan_of_the_form(environment)
    if not options.settled_plan:
        return
    plan = parse_plan(json.loads(options.settled_plan), "the plan")
    endpoint = check_endpoint(environment.host)
    worker = isinstance(runner, WorkerRunner)
    if not worker:
        options.out = str(_unused(Path(options.out)))
        _directories.append(Path(options.out))
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    distributed = worker or isinstance(runner, MasterRunner)
    index = runner.worker_index if isinstance(runner, WorkerRunner) else 0
    workers = max(1, options.expect_workers) if distributed else 1
    total = plan.planned()
    record = RunRecord(
        role="worker" if worker else "master" if distributed else "local",
        worker_index=index,
        workers_expected=workers,
        profile=plan.profile,
        endpoint=without_secrets(endpoint),
        plan=plan.model_dump(mode="json"),
        versions={"python": platform.python_version(), "locust": version("locust"), "gevent": version("gevent")},
        anchor_unix_s=time.time(),
        planned=len(range(index, total, workers)) if worker else total,
    )
    if isinstance(runner, MasterRunner):
        # The options travel to the workers after this event: one zero for all of them.
        options.anchor_unix_s = record.anchor_unix_s = time.time() + TOGETHER_S
    record_path = out / (f"run-w{index}.json" if worker else "run.json")
    write_run(record_path, record)
    if isinstance(runner, MasterRunner):
        record.workers_seen = 0
        _following = Following(runner, plan, record, record_path, tallies(plan.abort))
        gevent.spawn_later(TOGETHER_S, _follow, environment, _following)
        return
    _drive = Drive(
        environment=environment,
        plan=plan,
        endpoint=endpoint,
        out=out,
        record=record,
        record_path=record_path,
        writer=RowWriter(out / (f"requests-w{index}.jsonl" if worker else "requests.jsonl")),
        anchor_unix_s=options.anchor_unix_s if worker else 0.0,
        scheduled=total,
        api_key=api_key(),
        feeds_locust=not options.raw_only,
        tallies=tallies(plan.abort),
    )


def _unused(out: Path) -> Path:
    """The directory, or one beside it when the web UI starts another run: the rows of two are no run."""
    out = _directories[0] if _directories else out
    beside = (out.with_name(f"{out.name}-{number}") for number in count(2))
    return next(one for one in chain((out,), beside) if not any(one.glob("requests*.jsonl")))


def _heard_progress(environment: Environment, msg: Any, **_: Any) -> None:
    if _following is not None:
        _following.hear(msg.node_id, msg.data)


def _heard_abort(environment: Environment, msg: Any, **_: Any) -> None:
    if _drive is not None:
        _drive.abort(msg.data["why"])


def _follow(environment: Environment, following: Following) -> None:
    following.follow()
    if following is _following:
        _end_test(environment)


def _announce_end(environment: Environment) -> None:
    """The plan is done."""
    if not isinstance(environment.runner, WorkerRunner):
        _end_test(environment)
    elif _drive is not None:
        tell_master(environment, _drive.progress(), _drive.now(), closed=True)


def _end_test(environment: Environment) -> None:
    """Ends a headless run; with the web UI only stops it, so that its page stays."""
    runner = environment.runner
    assert runner is not None
    gevent.spawn(runner.quit if environment.web_ui is None else runner.stop)


def _stop(**_: Any) -> None:
    if _drive is not None:
        _drive.finish("stopped")
    if _following is not None:
        _following.close("stopped")


def _end(environment: Environment, **_: Any) -> None:
    """Closes the books of a run cut short, and makes the verdict Locust's exit code: its own 0 means nothing."""
    global _drive
    options = environment.parsed_options
    if _drive is not None:
        # A run that ends by itself, or by -t, has closed its books in test_stop already: this one was asked to end.
        _drive.finish("interrupted")
    if _following is not None:
        _following.close("interrupted")
    if options is None or isinstance(environment.runner, WorkerRunner):
        return
    if options.raw_only:
        logging.getLogger("locust.stats_logger").setLevel(logging.WARNING)  # its tables; ours come from the rows
        environment.process_exit_code = 0
        return
    from load.report import write_reports  # numpy and matplotlib are not wanted in the process while it sends

    environment.process_exit_code = 0
    if not _directories:
        print("load: nothing was run", file=sys.stderr)
        environment.process_exit_code = 4
    for directory in _directories:
        try:
            summary = write_reports(directory)
        except ValueError as error:
            print(f"load: {error}", file=sys.stderr)
            environment.process_exit_code = 4
            continue
        print(f"load: {summary.verdict}; raw rows and reports in {directory}", file=sys.stderr)
        environment.process_exit_code = environment.process_exit_code or summary.exit_code


_hooks: Any = events  # Locust's hooks carry no types
_hooks.init_command_line_parser.add_listener(_add_arguments)
_hooks.init.add_listener(_prepare)
_hooks.test_start.add_listener(_begin)
_hooks.test_stop.add_listener(_stop)
_hooks.quitting.add_listener(_end)
