"""The pytest side of the suite: options, fixtures, severity, and one record per check written as it ends.

It must not print findings (report/ does) and must not judge an endpoint (the checks do).
"""

import json
import re
from collections import defaultdict
from collections.abc import Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import pytest

from conformance import baseline, exits
from conformance.catalogue import Level, load, strongest
from conformance.client import Agreement, Client, Discovery, agree, discover
from conformance.finding import SERVED_BY, VERDICT, NonConformance
from conformance.messages import OLDER, Era, Malformed
from conformance.preflight import NotJudged, looks_cold, preflight
from conformance.records import (
    VERDICTS,
    Baseline,
    CheckRecord,
    Misfit,
    RunRecord,
    Status,
    count,
    exit_code,
    read_checks,
)
from conformance.report import formats, terminal
from conformance.target import Target, UsageFault, read_target, read_target_file
from conformance.wire import WireError

PROPERTY = "conformance"
SEEN_PROPERTY = "conformance-schema"
CLIENT = pytest.StashKey[Client]()
RUN = pytest.StashKey["Run"]()
TARGET = pytest.StashKey[Target]()
# What a worker's discovery met, told with the first check that ends after it.
PENDING = pytest.StashKey[Client | None]()
# The one check that is no function: every result that any check receives is held against its schema.
SCHEMA_CHECK = "conformance.protocol.schema.results_fit_their_schema"
SCHEMA_IDS = {
    "2024-11-05": "Z24-01",
    "2025-03-26": "Z03-01",
    "2025-06-18": "Z06-01",
    "2025-11-25": "Z25-01",
    "2026-07-28": "Z26-01",
}
for _id in SCHEMA_IDS.values():
    SERVED_BY.setdefault(_id, []).append(SCHEMA_CHECK)
# Transport, authorization, and envelopes that are no JSON-RPC request: what a bridge from HTTP to stdio cannot show.
HTTP_ALONE = re.compile(r"[TOA]\d\d-|B26-0[6789]|B25-0[24]|B0[36]-0[45]|V26-02|L26-13|X25-01")
PARTS = ("protocol", "tools", "security")


@dataclass(slots=True)
class Run:
    """The controller's side of one run: what it is, and where its files go."""

    out: Path
    started: datetime
    selection: str
    strict: bool
    eras: dict[str, str]
    stream: TextIO
    retries: int = 0
    accepted: dict[str, str] | None = None
    interrupted: bool = False


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance", "judge an MCP endpoint")
    group.addoption("--endpoint", metavar="URL", help="the endpoint; also MCP_ENDPOINT_URL or .env")
    group.addoption(
        "--profile", default="lambda", metavar="NAME", help="what the deployment claims: lambda, kernel, open"
    )
    group.addoption("--header", action="append", default=[], metavar="NAME=@FILE|env:VAR", help="a header; repeatable")
    group.addoption("--refused-header", action="append", default=[], metavar="NAME=@FILE|env:VAR", help="must not do")
    group.addoption("--fail-warnings", action="store_true", help="SHOULD and derived requirements fail the run too")
    group.addoption("--full", action="store_true", help="also run what can make an endpoint slow or ill")
    group.addoption("--smoke", action="store_true", help="only the three checks of the deployment test")
    group.addoption("--only", action="append", choices=PARTS, default=[], help="a part of the suite; repeatable")
    group.addoption("--request-timeout", type=float, default=20.0, metavar="S", help="seconds for one answer")
    group.addoption("--target", metavar="FILE", help="a target.yaml: how Python is run on a foreign interpreter")
    group.addoption("--baseline", metavar="FILE", help="failures known and accepted; a new one is 1, a stale entry 5")
    group.addoption("--baseline-update", action="store_true", help="write the baseline from this run")
    group.addoption("--results", metavar="DIR", help="where records and reports go")


def pytest_configure(config: pytest.Config) -> None:
    declare_markers(config)


def declare_markers(config: pytest.Config) -> None:
    """Tells pytest the suite's markers; whoever imports check modules under --strict-markers needs them."""
    config.addinivalue_line("markers", "requirement(*ids): the catalogue ids a check serves")
    config.addinivalue_line("markers", "any_interpreter: asked of a foreign interpreter too")
    config.addinivalue_line("markers", "smoke: one of the three checks of the deployment test")


def target_of(config: pytest.Config) -> Target:
    """The target the options name, read once per process.

    Raises:
        UsageFault
    """
    if TARGET not in config.stash:
        config.stash[TARGET] = read_target(
            config.getoption("--endpoint"),
            profile=config.getoption("--profile"),
            headers=config.getoption("--header"),
            refused_headers=config.getoption("--refused-header"),
            timeout_s=config.getoption("--request-timeout"),
            file=read_target_file(Path(config.getoption("--target"))) if config.getoption("--target") else None,
        )
    return config.stash[TARGET]


def pytest_sessionstart(session: pytest.Session) -> None:
    config = session.config
    if hasattr(config, "workerinput") or config.option.collectonly:
        return
    try:
        target = target_of(config)
        found = preflight(target)
    except UsageFault as fault:
        pytest.exit(str(fault), returncode=exits.USAGE)
    except NotJudged as why:
        pytest.exit(str(why), returncode=exits.UNREACHABLE)
    try:
        accepted = _accepted(config)
    except UsageFault as fault:
        pytest.exit(str(fault), returncode=exits.USAGE)
    started = datetime.now(UTC)
    out = Path(config.getoption("--results") or f"out/conformance-{started:%Y%m%dT%H%M%SZ}")
    out.mkdir(parents=True, exist_ok=True)
    selection = " ".join(filter(None, [*config.getoption("--only"), config.option.keyword]))
    eras = {str(era): "spoken" for era in found.eras} | {str(era): why for era, why in found.missing.items()}
    run = config.stash[RUN] = Run(
        out=out,
        started=started,
        selection="smoke" if config.getoption("--smoke") else selection or "all",
        strict=config.getoption("--fail-warnings"),
        eras=eras,
        stream=(out / "checks.jsonl").open("w", encoding="utf-8"),
        retries=found.retries,
        accepted=accepted,
    )
    config.pluginmanager.register(Recorder(run), "conformance-recorder")


def _accepted(config: pytest.Config) -> dict[str, str] | None:
    """The entries of the baseline, None without one; one that is to be written may not exist yet."""
    named = config.getoption("--baseline")
    if named is None:
        if config.getoption("--baseline-update"):
            raise UsageFault("--baseline-update needs --baseline FILE, the file to write.")
        return None
    path = Path(named)
    return {} if config.getoption("--baseline-update") and not path.exists() else baseline.read(path)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    only, smoke = config.getoption("--only"), config.getoption("--smoke")
    over_stdio = target_of(config).over_stdio
    keep = [
        item
        for item in items
        if (not only or _part(item) in only)
        and (not smoke or item.get_closest_marker("smoke") is not None)
        and not (over_stdio and _about_http(item))
    ]
    if len(keep) != len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in keep])
        items[:] = keep


def _about_http(item: pytest.Item) -> bool:
    """Whether a check is about HTTP or about bytes that a bridge would not pass on: not to be asked of stdio."""
    ids = [str(one) for mark in item.iter_markers("requirement") for one in mark.args]
    return _part(item) == "protocol" and any(HTTP_ALONE.match(one) for one in ids)


@pytest.fixture(scope="session")
def target(pytestconfig: pytest.Config) -> Target:
    """The endpoint with its credentials and profile."""
    return target_of(pytestconfig)


@pytest.fixture(scope="session")
def discovery(target: Target, pytestconfig: pytest.Config) -> Discovery:
    """What the endpoint says it is, asked once per worker; a worker of its own may meet a cold environment."""
    client = Client(target)
    found = discover(client)
    if not found.eras and looks_cold(client):
        client.retries += 1
        found = discover(client)
    pytestconfig.stash[PENDING] = client
    return found


@pytest.fixture
def client(request: pytest.FixtureRequest, target: Target, discovery: Discovery) -> Client:
    """This check's way to the endpoint; what it exchanges is shown when the check fails."""
    made = Client(target, discovery.session_id)
    request.node.stash[CLIENT] = made
    return made


def _speaks(discovery: Discovery, era: Era) -> None:
    if era not in discovery.eras:
        pytest.skip(f"the endpoint does not speak {era}: {discovery.missing.get(era, 'unknown')}")


@pytest.fixture
def modern(client: Client, discovery: Discovery) -> Client:
    """The client, when the endpoint speaks 2026-07-28."""
    _speaks(discovery, Era.MODERN)
    return client


@pytest.fixture
def handshake(client: Client, discovery: Discovery) -> Client:
    """The client, when the endpoint speaks 2025-11-25."""
    _speaks(discovery, Era.HANDSHAKE)
    return client


@pytest.fixture(params=[Era.HANDSHAKE, Era.MODERN], ids=str)
def era(request: pytest.FixtureRequest, discovery: Discovery) -> Era:
    """Each era the endpoint speaks, for checks that hold in both."""
    chosen: Era = request.param
    _speaks(discovery, chosen)
    return chosen


@pytest.fixture(scope="session")
def agreements(target: Target) -> dict[Era, Agreement | str]:
    """What `initialize` with each older revision came to, filled as it is asked for."""
    return {}


@pytest.fixture(params=OLDER, ids=str)
def older(
    request: pytest.FixtureRequest, client: Client, discovery: Discovery, agreements: dict[Era, Agreement | str]
) -> Era:
    """Each revision before the newest of the handshake era that the endpoint agrees to, the client in its session."""
    revision: Era = request.param
    _speaks(discovery, Era.HANDSHAKE)
    if revision not in agreements:
        agreements[revision] = agree(client, revision)
    agreement = agreements[revision]
    if isinstance(agreement, str):
        pytest.skip(f"the endpoint does not speak {revision}: {agreement}")
    client.session_id = agreement.session_id
    return revision


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, "pytest.TestReport", None]:
    outcome = yield
    report: pytest.TestReport = outcome.get_result()
    if report.when != "call" and not (report.when == "setup" and call.excinfo):
        return
    record = _record(item, call, report.duration * 1000)
    report.user_properties.append((PROPERTY, record.model_dump(mode="json")))
    report.user_properties.append((SEEN_PROPERTY, _seen(item)))
    if record.status == "warning" and not item.config.getoption("--fail-warnings"):
        # Native pytest shows a warning as an expected failure: visible, and no cause for a red run.
        report.outcome = "skipped"
        report.wasxfail = f"{record.level} {' '.join(record.requirements)}: {record.message}"


def _seen(item: pytest.Item) -> list[list[object]]:
    """(revision, method, misfit or None) for every result this check received, and those of a discovery before it."""
    clients = [item.stash.get(CLIENT, None), item.config.stash.get(PENDING, None)]
    item.config.stash[PENDING] = None
    found: list[list[object]] = []
    for client in filter(None, clients):
        for (revision, method), misfit in client.seen.items():
            found.append([revision, method, misfit.model_dump(mode="json") if misfit else None])
    return found


def _part(item: pytest.Item) -> str:
    return next((part for part in PARTS if part in item.path.parts), "other")


def _ids(item: pytest.Item) -> tuple[str, ...]:
    named = [one for mark in item.iter_markers("requirement") for one in mark.args]
    if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
        era = next((value for value in item.callspec.params.values() if isinstance(value, Era)), None)
        if era is not None:
            catalogue = load()
            here = [one for one in named if catalogue[one].catalogue in (str(era), "contract")]
            named = here or named
    return tuple(named)


def _record(item: pytest.Item, call: pytest.CallInfo[None], duration_ms: float) -> CheckRecord:
    ids = _ids(item)
    level = strongest(ids) if ids else Level.MUST
    status, message, expected, got = _judged(call, level)
    client, pending = item.stash.get(CLIENT, None), item.config.stash.get(PENDING, None)
    catalogue = load()
    keep = client.exchanges[-8:] if client and status in ("failed", "warning", "error") else []
    redact = client.target.redact if client else str
    return CheckRecord(
        id=f"{_part(item)}.{item.path.stem.removeprefix('test_')}.{item.name.removeprefix('test_')}",
        part=_part(item),
        requirements=ids,
        level=level,
        sources=tuple(catalogue[one].source for one in ids),
        status=status,
        message=redact(message),
        expected=redact(expected),
        got=redact(got),
        duration_ms=round(duration_ms, 1),
        exchanges=tuple(keep),
        retries=(client.retries if client else 0) + (pending.retries if pending else 0),
        security=item.stash.get(VERDICT, None),
    )


def _judged(call: pytest.CallInfo[None], level: Level) -> tuple[Status, str, str, str]:
    if call.excinfo is None:
        return "passed", "", "", ""
    fault = call.excinfo.value
    failing: Status = "failed" if level is Level.MUST else "warning"
    if isinstance(fault, pytest.skip.Exception):
        return "skipped", str(fault.msg), "", ""
    if isinstance(fault, NonConformance | Malformed):
        return failing, fault.message, _show(fault.expected), _show(fault.got)
    if isinstance(fault, WireError):
        return failing, str(fault), "an answer", "none"
    return "error", f"The check itself broke: {type(fault).__name__}: {fault}"[:1000], "", ""


def _show(value: object) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 1500 else f"{text[:1500]}..."


class Recorder:
    """Writes each record the moment its check ends, in the controller only, wherever the check ran."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.seen: dict[tuple[str, str], set[Misfit]] = defaultdict(set)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == PROPERTY:
                self.write(value)
            elif name == SEEN_PROPERTY and isinstance(value, list):
                for revision, method, misfit in value:
                    self.seen[revision, method] |= {Misfit.model_validate(misfit)} if misfit else set()

    def write(self, record: object) -> None:
        """Adds one line to checks.jsonl."""
        self.run.stream.write(json.dumps(record, ensure_ascii=False) + "\n")
        self.run.stream.flush()

    def write_schema_records(self, *, passes: bool) -> None:
        """One record per method and revision: what misses its schema is told here, once, and nowhere else."""
        for (revision, method), misfits in sorted(self.seen.items()):
            if misfits or passes:
                record = _schema_record(revision, method, sorted(misfits, key=lambda one: one.message))
                self.write(record.model_dump(mode="json"))

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        self.run.interrupted = isinstance(excinfo.value, KeyboardInterrupt)


def _schema_record(revision: str, method: str, misfits: list[Misfit]) -> CheckRecord:
    requirement = load()[SCHEMA_IDS[revision]]
    others = f" ({len(misfits) - 1} more ways were seen)" if len(misfits) > 1 else ""
    return CheckRecord(
        id=f"{SCHEMA_CHECK.removeprefix('conformance.')}[{revision}-{method}]",
        part="protocol",
        requirements=(requirement.id,),
        level=requirement.level,
        sources=(requirement.source,),
        status="failed" if misfits else "passed",
        message=misfits[0].message + others if misfits else "",
        expected=f"what {method} of {revision} prescribes" if misfits else "",
        got=misfits[0].got if misfits else "",
        exchanges=tuple(one.exchange for one in misfits[:3]),
    )


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    config = session.config
    run = config.stash.get(RUN, None)
    if run is None:
        return
    whole = not (config.getoption("--smoke") or config.option.keyword)
    recorder = config.pluginmanager.getplugin("conformance-recorder")
    assert isinstance(recorder, Recorder)
    only = config.getoption("--only")
    recorder.write_schema_records(passes=whole and (not only or "protocol" in only))
    run.stream.close()
    checks = list(read_checks(run.out / "checks.jsonl"))
    compared = None
    if run.accepted is not None and not run.interrupted:
        compared = _compared(config, run, checks, whole=whole and not only)
    code = _code(run, exitstatus, compared, count(checks))
    target = target_of(config)
    record = RunRecord(
        endpoint=target.endpoint.url,
        profile=target.profile.name,
        started=run.started.isoformat(timespec="seconds"),
        duration_s=round((datetime.now(UTC) - run.started).total_seconds(), 2),
        exit_code=code,
        verdict=VERDICTS[code],
        strict=run.strict,
        selection=run.selection,
        eras=run.eras,
        retries=run.retries + sum(check.retries for check in checks),
        baseline=compared,
    )
    (run.out / "run.json").write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
    formats.write_all(run.out)
    session.exitstatus = code


def _compared(config: pytest.Config, run: Run, checks: list[CheckRecord], *, whole: bool) -> Baseline:
    """How the run stands to its baseline, which is written anew first when that was asked for."""
    assert run.accepted is not None
    path = Path(config.getoption("--baseline"))
    found = baseline.compare(path, run.accepted, checks, strict=run.strict, whole=whole)
    if config.getoption("--baseline-update"):
        run.accepted = baseline.updated(run.accepted, checks, strict=run.strict, stale=found.stale)
        baseline.write(path, run.accepted)
        found = baseline.compare(path, run.accepted, checks, strict=run.strict, whole=whole)
    return found


def _code(run: Run, exitstatus: int, compared: Baseline | None, counts: dict[str, int]) -> int:
    if run.interrupted:
        return exits.INTERRUPTED
    if exitstatus == pytest.ExitCode.INTERNAL_ERROR:
        return exits.INCONCLUSIVE
    if exitstatus in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.INTERRUPTED):
        return exits.USAGE
    return baseline.gate(compared, counts) if compared else exit_code(counts, strict=run.strict)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    run = config.stash.get(RUN, None)
    if run is not None:
        terminalreporter.write_line("")
        terminalreporter.write_line(terminal.render(run.out, colour=False))
