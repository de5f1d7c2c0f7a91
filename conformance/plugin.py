"""The pytest side of the suite: options, selection, fixtures, and what a check that ends comes to.

It must not print findings (report/ does), write records (`recorder` does) or judge an endpoint (the checks do).
"""

import json
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conformance import baseline, exits
from conformance.catalogue import Level, load, strongest
from conformance.client import Agreement, Client, Discovery, agree, discover
from conformance.finding import VERDICT, NonConformance
from conformance.messages import OLDER, Era, Malformed
from conformance.preflight import NotJudged, looks_cold, preflight
from conformance.recorder import PROPERTY, SEEN_PROPERTY, Recorder, Run
from conformance.records import CheckRecord, Status
from conformance.report import terminal
from conformance.target import Target, UsageFault, read_target, read_target_file
from conformance.wire import WireError

CLIENT = pytest.StashKey[Client]()
RECORDER = pytest.StashKey[Recorder]()
TARGET = pytest.StashKey[Target]()
# What a worker's discovery met, told with the first check that ends after it.
PENDING = pytest.StashKey[Client | None]()
PARTS = ("protocol", "tools", "security")


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
        accepted = _accepted(config)
    except UsageFault as fault:
        pytest.exit(str(fault), returncode=exits.USAGE)
    except NotJudged as why:
        pytest.exit(str(why), returncode=exits.UNREACHABLE)
    started = datetime.now(UTC)
    out = Path(config.getoption("--results") or f"out/conformance-{started:%Y%m%dT%H%M%SZ}")
    out.mkdir(parents=True, exist_ok=True)
    parts, smoke, keyword = config.getoption("--only"), config.getoption("--smoke"), config.option.keyword
    named = config.getoption("--baseline")
    run = Run(
        out=out,
        started=started,
        target=target,
        selection="smoke" if smoke else " ".join(filter(None, [*parts, keyword])) or "all",
        parts=tuple(parts),
        every_check=not (smoke or keyword),
        strict=config.getoption("--fail-warnings"),
        eras={str(era): "spoken" for era in found.eras} | {str(era): why for era, why in found.missing.items()},
        retries=found.retries,
        baseline=None if named is None else Path(named),
        accepted=accepted,
        update_baseline=config.getoption("--baseline-update"),
    )
    recorder = config.stash[RECORDER] = Recorder(run)
    config.pluginmanager.register(recorder, "conformance-recorder")


def _accepted(config: pytest.Config) -> dict[str, str]:
    """The entries of the baseline; one that is to be written may not exist yet."""
    named = config.getoption("--baseline")
    if named is None:
        if config.getoption("--baseline-update"):
            raise UsageFault("--baseline-update needs --baseline FILE, the file to write.")
        return {}
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
    ids = [str(one) for mark in item.iter_markers("requirement") for one in mark.args]
    return _part(item) == "protocol" and any(load()[one].http_alone for one in ids)


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
def agreements() -> dict[Era, Agreement | str]:
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


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    recorder = session.config.stash.get(RECORDER, None)
    if recorder is not None:
        session.exitstatus = recorder.finish(exitstatus)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    recorder = config.stash.get(RECORDER, None)
    if recorder is not None:
        terminalreporter.write_line("")
        terminalreporter.write_line(terminal.render(recorder.run.out, colour=False))
