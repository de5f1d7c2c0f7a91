"""What the load generator costs, and how true its numbers are: stalls, lag, overhead, percentiles, verdicts, workers.

python -m tests.bench.load [--quick] [--out FILE]
The peers are measured in the same run: wrk2 where one is found (WRK2 or on the path), an open-loop client of our own on
plain asyncio that shares no code with load/, bare FastHttpUser, and Locust's statistics. Loopback only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import yaml

from tests.bench.rows import Row, append, interval, row

ROOT = Path(__file__).resolve().parents[2]
ANSWER = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 2,
        "result": {"structuredContent": {"success": True, "stdout": "计算结果: 5\n"}, "content": [], "isError": False},
    }
).encode()
REPLY = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-lambda-request-id: 8b2e64ac-8a04-4d9d-b14c-6b0efcf0f2\r\n"
    b"x-lambda-environment-id: e\r\nx-lambda-invocation: 2\r\nx-lambda-init-type: on-demand\r\n"
    b"server-timing: install;dur=0, exec;dur=1.5\r\ncontent-length: %d\r\n\r\n" % len(ANSWER)
) + ANSWER
QUANTILES = (0.90, 0.95, 0.99)


# -- the server -------------------------------------------------------------------------------------------------------


class Server(asyncio.Protocol):
    """Answers every request after `delay_s()`; keeps connections; parses no more than it must."""

    def __init__(self, delay_s: Callable[[], float]) -> None:
        self.delay_s = delay_s
        self.buffer = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            length = re.search(rb"content-length: *(\d+)", self.buffer[:end], re.IGNORECASE)
            size = end + 4 + (int(length[1]) if length else 0)
            if len(self.buffer) < size:
                return
            self.buffer = self.buffer[size:]
            wait_s = self.delay_s()
            if wait_s <= 0:
                self.transport.write(REPLY)
            else:
                asyncio.get_running_loop().call_later(wait_s, self.transport.write, REPLY)


def delays(kind: str, *numbers: float) -> Callable[[], float]:
    """`fast`: none. `stall EVERY S`: frozen for S of every EVERY seconds, from the middle on (wrk2
    begins to record about when the second cycle begins). `cycle N`: the same N delays from
    0.3 to 3 s again and again in a shuffled order, so that any N requests meet the same ones."""
    if kind == "stall":
        every_s, stall_s = numbers
        start_s = time.monotonic()
        return lambda: stall_s - (time.monotonic() - start_s - every_s / 2) % every_s
    if kind == "cycle":
        drawn = np.random.default_rng(1).permutation(np.geomspace(0.3, 3, int(numbers[0])))
        turn = iter(range(1 << 40))
        return lambda: float(drawn[next(turn) % len(drawn)])
    return lambda: 0.0


async def serve(*kind: str) -> None:
    delay_s = delays(kind[0], *map(float, kind[1:]))
    server = await asyncio.get_running_loop().create_server(lambda: Server(delay_s), "127.0.0.1", 0, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp", flush=True)
    await asyncio.Event().wait()


@contextlib.contextmanager
def serving(*kind: object) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.bench.load", "--serve", *map(str, kind)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


# -- the peer: an open loop on plain asyncio --------------------------------------------------------------------------


class Client(asyncio.Protocol):
    """One connection that carries one request at a time; `answered` is called with its done time."""

    def __init__(self, free: deque[Client]) -> None:
        self.free = free
        self.buffer = b""
        self.on_done: Callable[[float], None] = lambda _: None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if len(self.buffer) >= len(REPLY):
            self.buffer = b""
            self.on_done(time.monotonic())
            self.free.append(self)


async def open_loop(url: str, rate: float, seconds: float) -> dict[str, list[float]]:
    """Evenly spaced requests that wait for nothing. Latency in ms from the intended time, lag in ms of the sending."""
    host, port = urlsplit(url).hostname or "", urlsplit(url).port or 80
    loop, free = asyncio.get_running_loop(), deque[Client]()
    latencies: list[float] = []
    lags: list[float] = []
    dials: set[asyncio.Task[None]] = set()

    def send(client: Client, at_s: float) -> None:
        client.on_done = lambda done_s: latencies.append((done_s - at_s) * 1000)
        lags.append((time.monotonic() - at_s) * 1000)
        client.transport.write(b"POST /mcp HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")

    async def dial(at_s: float) -> None:
        _, client = await loop.create_connection(lambda: Client(free), host, port)
        send(client, at_s)

    count, start_s = math.ceil(rate * seconds), time.monotonic() + 0.3
    for i in range(count):
        at_s = start_s + i / rate
        if (wait_s := at_s - time.monotonic()) > 0:
            await asyncio.sleep(wait_s)
        if free:
            send(free.popleft(), at_s)
        else:
            task = asyncio.create_task(dial(at_s))
            dials.add(task)
            task.add_done_callback(dials.discard)
    until_s = time.monotonic() + 30
    while len(latencies) < count and time.monotonic() < until_s:
        await asyncio.sleep(0.05)
    return {"latency_ms": latencies, "lag_ms": lags}


@contextlib.contextmanager
def asking(url: str, rate: float, seconds: float) -> Iterator[Callable[[], dict[str, list[float]]]]:
    """The asyncio client in a process of its own; what is yielded waits for its numbers."""
    command = [sys.executable, "-m", "tests.bench.load", "--client", url, str(rate), str(seconds)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        yield lambda: json.loads(process.communicate()[0])


# -- ours, bare Locust, wrk2 ------------------------------------------------------------------------------------------


def ours(url: str, out: Path, rate: float, seconds: float, workers: int = 1) -> dict[str, Any]:
    """`python -m load run` at a constant rate; its summary, the CPU seconds of its senders and its raw rows."""
    plan = {
        "stages": [{"kind": "constant", "rate_per_s": rate, "duration_s": seconds}],
        "scenarios": {"print": 1},
        "eras": {"2025-11-25": 1},
        "thresholds": ["count(errors) == 0"],
        "max_in_flight": 4000,
    }
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "plan.yaml").write_text(yaml.safe_dump(plan))
    command = [
        sys.executable,
        "-m",
        "load",
        "run",
        out / "plan.yaml",
        url,
        "--out",
        out,
        "--workers",
        workers,
        "--json",
    ]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False)
    if not done.stdout:
        raise RuntimeError(f"load run ended with {done.returncode}: {done.stderr}")
    rows = [json.loads(line) for path in out.glob("requests*.jsonl") for line in path.read_text().splitlines()]
    shares = [json.loads(path.read_text())["cpu_share"] for path in out.glob("run*.json")]
    return {
        "summary": json.loads(done.stdout),
        "latency_ms": [one["latency_ms"] for one in rows if one["outcome"] == "ok"],
        "lag_ms": [(one["sent_s"] - one["intended_s"]) * 1000 for one in rows if one["sent_s"] is not None],
        "cpu_s": sum(sum(share) for share in shares),
        "outcomes": json.loads(done.stdout)["outcomes"],
    }


BARE = """
import json, os, time
from locust import FastHttpUser, constant_throughput, events, task

BODY = json.dumps({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "execute_python",
    "arguments": {"code": "result = 2 + 3"}}})
HEADERS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
sent = 0

class Bare(FastHttpUser):
    wait_time = constant_throughput(float(os.environ["EACH"]))

    @task
    def ask(self):
        global sent
        self.client.post("/mcp", data=BODY, headers=HEADERS)
        sent += 1

@events.spawning_complete.add_listener
def start(**_):
    global cpu_s, before
    cpu_s, before = time.process_time(), sent

@events.test_stop.add_listener
def stop(**_):
    print(json.dumps({"cpu_s": time.process_time() - cpu_s, "requests": sent - before}), flush=True)
"""


def bare_us(url: str, scratch: Path, rate: float, seconds: float, users: int = 20) -> float:
    """CPU of a FastHttpUser that posts at the same rate and looks at nothing, us a request."""
    path = scratch / "bare.py"
    path.write_text(BARE)
    command = [
        sys.executable,
        "-m",
        "locust",
        "-f",
        path,
        "--headless",
        "-u",
        users,
        "-r",
        10 * users,
        "-t",
        f"{seconds:.0f}s",
    ]
    command += ["--host", url.removesuffix("/mcp"), "--only-summary", "--loglevel", "ERROR"]
    env = {**os.environ, "EACH": str(rate / users)}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=env, check=False)
    told = next((json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")), None)
    if not told:
        raise RuntimeError(f"locust ended with {done.returncode}: {done.stderr[-300:]}")
    return float(told["cpu_s"] / told["requests"] * 1e6)


def our_us(url: str, out: Path, rate: float, seconds: float) -> float:
    """CPU of `load run`, us a request, answers judged and rows written; over the whole seconds it was sending."""
    found = ours(url, out, rate, seconds)
    record = json.loads((out / "run.json").read_text())
    shares = record["cpu_share"][1:]  # the first second holds the lead before the first arrival
    return float(np.mean(shares) / rate * 1e6) if shares else found["cpu_s"] / (rate * seconds) * 1e6


@contextlib.contextmanager
def wrk2_asking(url: str, rate: float, seconds: float) -> Iterator[Callable[[], list[tuple[float, float]]] | None]:
    """wrk2's percentile spectrum, when there is a wrk2; it leaves out the first ten seconds, in which it calibrates."""
    executable = os.environ.get("WRK2") or shutil.which("wrk2")
    if executable is None:
        yield None
        return
    # Ten connections: it sends on all at nearly the same moment, and 250 of them would make bunches 2.5 s apart.
    command = [executable, "-t1", "-c10", f"-R{rate:g}", f"-d{seconds:g}s", "--latency", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield lambda: spectrum_of_wrk2(process.communicate()[0])


def spectrum_of_wrk2(text: str) -> list[tuple[float, float]]:
    """Its detailed percentile spectrum: rising pairs of percentile (0 to 1) and latency in ms."""
    found = re.findall(r"^ +([0-9.]+) +([01]\.[0-9]+) +[0-9]+ ", text, re.MULTILINE)
    return [(float(q), float(value)) for value, q in found]


# -- the figures ------------------------------------------------------------------------------------------------------


def quantile(values: Sequence[float], q: float) -> float:
    """The value of rank ceil(qn): spelled out here, so that it can judge the one of load."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(q * len(ordered) - 1e-9) - 1)]


def close(name: str, mine: float, peer: float, peer_name: str, within: float, n: int, unit: str = "ms") -> Row:
    """A row that passes when the two differ by no more than the share `within`, either way."""
    ratio = mine / peer
    off = max(ratio, 1 / ratio)
    return Row(
        name=name,
        ours=round(mine, 3),
        peer=round(peer, 3),
        peer_name=peer_name,
        ratio=round(ratio, 4),
        interval=None,
        goal=1 + within,
        judged="ratio, either way",
        n=n,
        verdict="pass" if off <= 1 + within else "short",
        unit=unit,
    )


def at_most(
    name: str, mine: float, goal: float | None, n: int, unit: str, spread: tuple[float, float] | None, **peer: Any
) -> Row:
    return Row(
        name=name,
        ours=round(mine, 4),
        peer=peer.get("peer"),
        peer_name=peer.get("peer_name", ""),
        ratio=None if not peer.get("peer") else round(mine / peer["peer"], 4),
        interval=spread,
        goal=goal,
        judged="ours",
        n=n,
        verdict="told" if goal is None else "pass" if mine <= goal else "short",
        unit=unit,
    )


def bench_stall(scratch: Path, quick: bool) -> Iterator[Row]:
    """The clients at once on the same server, so that all meet the same freezes."""
    every_s, stall_s, seconds = (2.0, 0.4, 6.0) if quick else (10.0, 2.0, 30.0)
    with (
        serving("stall", every_s, stall_s) as url,
        asking(url, 100, seconds) as client,
        wrk2_asking(url, 100, seconds) as wrk2,
    ):
        mine = ours(url, scratch / "stall", 100, seconds)["latency_ms"]
        theirs = client()["latency_ms"]
        told = wrk2() if wrk2 is not None and not quick else None
    for q in QUANTILES:
        name = f"stall test, p{q * 100:g}"
        yield close(name, quantile(mine, q), quantile(theirs, q), "asyncio, open loop", 0.05, len(mine))
        if told is not None:
            reached = next(value for share, value in told if share >= q)
            yield close(name, quantile(mine, q), reached, "wrk2", 0.05, len(mine))


def bench_lag(scratch: Path, quick: bool) -> Iterator[Row]:
    seconds = 3.0 if quick else 6.0
    with serving("fast") as url:
        with asking(url, 1000, seconds) as client:
            peer = client()
        mine = ours(url, scratch / "lag", 1000, seconds)
        lags = np.asarray(mine["lag_ms"])
        blocks = [quantile(list(block), 0.99) for block in np.array_split(lags, 10)]
        peer_lag = round(quantile(peer["lag_ms"], 0.99), 3)
        # Where a client of a quarter of the cost is late too, the machine is busy and says nothing of ours.
        goal, note = (5.0, "") if peer_lag <= 5.0 else (None, ", on a machine too busy to judge it")
        yield at_most(
            f"send lag p99 at 1,000/s{note}", quantile(list(lags), 0.99), goal, len(lags), "ms",
            (min(blocks), max(blocks)), peer=peer_lag, peer_name="asyncio, open loop",
        )  # fmt: skip
        yield from percentile_rows(mine, scratch)
        # What it can hold, not what a shared machine lets it: the first of three attempts that was fit.
        attempt, fast = 1, ours(url, scratch / "fast", 1500, seconds)
        while attempt < 3 and not all(check["fit"] for check in fast["summary"]["fitness"]):
            attempt, fast = attempt + 1, ours(url, scratch / "fast", 1500, seconds)
        good, lag = fast["outcomes"].get("ok", 0) / seconds, quantile(fast["lag_ms"], 0.99)
        unfit = [check["check"] for check in fast["summary"]["fitness"] if not check["fit"]]
        verdict = "pass" if not unfit and good >= 1500 else "told" if note else "short"
        yield Row(
            name=f"1,500/s sustained, attempt {attempt} of 3"
            + (f", unfit by {', '.join(unfit)}" if unfit else "")
            + note,
            ours=round(good, 1),
            peer=round(lag, 2),
            peer_name="ms of send lag, p99",
            ratio=None,
            interval=None,
            goal=1500,
            judged="ours at least, and the run fit",
            n=int(good * seconds),
            verdict=verdict,
            unit="/s",
        )


def percentile_rows(mine: dict[str, Any], scratch: Path) -> Iterator[Row]:
    """Reported percentiles against the raw rows; Locust's own buckets on the same values beside them."""
    latencies = mine["latency_ms"]
    told = next(one for one in mine["summary"]["groups"] if (one["scenario"], one["temperature"]) == ("all", "all"))
    points = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}
    off = max(abs(told["latency_ms"][name] / quantile(latencies, q) - 1) for name, q in points.items())
    code = (
        "import json, sys; from locust.stats import RequestStats\n"
        "stats = RequestStats(); entry = stats.get('x', 'POST')\n"
        "values, points = json.load(sys.stdin)\n"
        "for value in values: entry.log(value, 0)\n"
        "print(json.dumps([entry.get_response_time_percentile(q) for q in points]))"
    )
    asked = json.dumps([latencies, list(points.values())])
    done = subprocess.run([sys.executable, "-c", code], input=asked, capture_output=True, text=True, check=True)
    locust = json.loads(done.stdout)
    locust_off = max(abs(value / quantile(latencies, q) - 1) for value, q in zip(locust, points.values(), strict=True))
    yield at_most(
        "largest error of a percentile against raw rows", off * 100, 1.0, len(latencies), "%", None,
        peer=round(locust_off * 100, 3), peer_name="Locust's buckets",
    )  # fmt: skip


def bench_overhead(scratch: Path, quick: bool) -> Iterator[Row]:
    """In turns, so that what else the machine does falls on both."""
    turns, seconds = (2, 3.0) if quick else (4, 5.0)
    mine: list[float] = []
    bare: list[float] = []
    with serving("fast") as url:
        for _ in range(turns):
            bare.append(bare_us(url, scratch, 1000, seconds))
            mine.append(our_us(url, scratch / "overhead", 1000, seconds))
    yield row("CPU a request at 1,000/s", mine, bare, "bare FastHttpUser", goal=1.25, unit="us")


def bench_verdicts(scratch: Path, quick: bool) -> Iterator[Row]:
    """Simulated runs of 1,000 calls: lognormal around 50 ms, 1 % cold starts around 900 ms; seeds are in the name."""
    from load.compare import compare
    from load.rows import Row as LoadRow

    trials, seed = (40 if quick else 300), 20261124
    rng = np.random.default_rng(seed)

    def drawn(factor: float, n: int = 1000) -> tuple[list[Any], list[float]]:
        warm, cold = rng.lognormal(np.log(50 * factor), 0.35, n), rng.lognormal(np.log(900), 0.2, n)
        is_cold = rng.random(n) < 0.01
        values = np.where(is_cold, cold, warm)
        rows = [
            LoadRow(i, "s", "print", "2025-11-25", 0, 0, 0, 0, float(ms), float(ms), 200, "ok", cold=bool(heat))
            for i, (ms, heat) in enumerate(zip(values, is_cold, strict=True))
        ]
        return rows, list(values)

    cells = (
        ("A/A called slower or faster", 1.0, 0.0, ("slower", "faster"), 0.05, True),
        # What a run cannot tell from a slower endpoint; `load ab` takes turns so that it falls on both.
        ("A/A with 3 % drift between runs called slower", 1.0, 0.03, ("slower",), None, True),
        ("+10 % not called slower", 1.1, 0.0, ("slower",), 0.20, False),
    )
    for name, factor, drift, verdicts, goal, counts in cells:
        hits: list[float] = []
        naive: list[float] = []
        for _ in range(trials if goal is not None else min(trials, 100)):
            base, base_ms = drawn(1.0)
            other, other_ms = drawn(factor * float(np.exp(rng.normal(0, drift))))
            called = compare(base, other, seed=1).verdict in verdicts
            bare = quantile(other_ms, 0.99) > 1.1 * quantile(base_ms, 0.99)
            hits.append(float(called == counts))
            naive.append(float(bare == counts))
        yield verdict_row(f"{name}, n = 1,000, seed {seed}", hits, naive, goal, '"p99 up by 10 %"')
    for name, factor, drift, verdicts, goal, counts in (
        (
            "A/A in 8 turns, speed walking 6 % a run, called slower or faster",
            1.0,
            0.06,
            ("slower", "faster"),
            0.05,
            True,
        ),
        ("+10 % in 8 turns, speed walking 3 % a run, not called slower", 1.1, 0.03, ("slower",), 0.20, False),
    ):
        hits, naive = [], []
        for _ in range(trials):
            speed, rounds = 0.0, []
            for number in range(8):
                order = (0, 1) if number % 4 in (0, 3) else (1, 0)
                pair: list[list[Any]] = [[], []]
                for side in order:
                    speed += float(rng.normal(0, drift))
                    pair[side] = drawn(float(np.exp(speed)) * (factor if side else 1.0), 125)[0]
                rounds.append((pair[0], pair[1]))
            base, other = ([one for pair in rounds for one in pair[side]] for side in (0, 1))
            hits.append(float((compare(base, other, rounds=rounds).verdict in verdicts) == counts))
            naive.append(float((compare(base, other).verdict in verdicts) == counts))
        yield verdict_row(f"{name}, n = 1,000, seed {seed}", hits, naive, goal, "calls resampled, rounds ignored")
    if not quick:
        yield from real_verdicts(scratch)


def verdict_row(name: str, hits: list[float], naive: list[float], goal: float | None, peer_name: str) -> Row:
    spread = interval(lambda source: sum(source.choices(hits, k=len(hits))) / len(hits))
    return at_most(
        name, float(np.mean(hits)), goal, len(hits), "of trials", spread,
        peer=round(float(np.mean(naive)), 4), peer_name=peer_name,
    )  # fmt: skip


async def delay(target: str, share: float) -> None:
    """A proxy that holds each answer back by `share` of the time it took: a candidate that is so much slower.

    Both sides of a comparison go through one, so that what the proxy itself costs is on both.
    """
    where = urlsplit(target)

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(where.hostname, where.port)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                size = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
                body = await reader.readexactly(int(size[1]) if size else 0)
                began_s = time.monotonic()
                upstream_writer.write(head + body)
                head = await upstream_reader.readuntil(b"\r\n\r\n")
                size = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
                answer = head + await upstream_reader.readexactly(int(size[1]) if size else 0)
                await asyncio.sleep((time.monotonic() - began_s) * share)
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            upstream_writer.close()

    server = await asyncio.start_server(serve_one, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print(where._replace(netloc=f"127.0.0.1:{port}").geturl(), flush=True)
    await asyncio.Event().wait()


@contextlib.contextmanager
def delayed(target: str, share: float) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.bench.load", "--delay", target, str(share)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def real_verdicts(scratch: Path) -> Iterator[Row]:
    """The local stack against itself and against itself slowed down, in turns; about a thousand calls a side."""
    command = [sys.executable, "-m", "sam.local", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as stack:
        assert stack.stdout is not None
        try:
            url = json.loads(stack.stdout.readline())["endpoint"]
            with delayed(url, 0.0) as base:
                # A/A is one endpoint twice. Two proxies that do the same may differ by 5 % of 13 ms all the time: so it
                # was in 8 rounds of 8, and rightly called faster.
                yield real_verdict(scratch / "ab0.0", base, base, 0.0, ("same", "inconclusive"))
                with delayed(url, 0.1) as candidate:
                    yield real_verdict(scratch / "ab0.1", base, candidate, 0.1, ("slower",))
        finally:
            stack.terminate()
            stack.wait(timeout=30)


def real_verdict(out: Path, base: str, candidate: str, share: float, wanted: tuple[str, ...]) -> Row:
    plan = {
        "stages": [
            {"kind": "burst", "name": "warmup", "size": 1, "every_s": 8},
            {"kind": "constant", "name": "steady", "rate_per_s": 20, "duration_s": 48},
        ],
        "scenarios": {"print": 1},
        "eras": {"2025-11-25": 1},
        "limits": {"send_lag_p99_ms": 50},
        "thresholds": ["count(requests) > 0"],
    }
    path = out.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(plan))
    ask = [sys.executable, "-m", "load", "ab", path, base, candidate, "--out", out, "--json"]
    done = subprocess.run(list(map(str, ask)), cwd=ROOT, capture_output=True, text=True, check=False)
    if not done.stdout:
        raise RuntimeError(f"load ab ended with {done.returncode}: {done.stderr}")
    report = json.loads(done.stdout)
    warm = next(one for one in report["overall"] if one["temperature"] == "warm")
    what = "A/A" if share == 0 else f"+{share:.0%}"
    return Row(
        name=f"{what} on the local stack, 8 turns: {report['verdict']}",
        ours=warm["ratio"] or 0.0,
        peer=1.0 + share,
        peer_name="what was done to it",
        ratio=warm["ratio"],
        interval=None if warm["low"] is None else (warm["low"], warm["high"]),
        goal=None,
        judged=f"called {' or '.join(wanted)}",
        n=warm["candidate_n"],
        verdict="pass" if report["verdict"] in wanted else "short",
        unit="x",
    )


def bench_workers(scratch: Path, quick: bool) -> Iterator[Row]:
    """The same delays for both, in whatever order: the merged percentiles must be those of one process."""
    rate, seconds = (200, 4.0) if quick else (200, 12.0)
    found = []
    for workers in (1, 4):
        with serving("cycle", rate * seconds) as url:
            found.append(ours(url, scratch / f"workers{workers}", rate, seconds, workers))
    for name in ("p50", "p90", "p99"):
        one, four = (
            next(group for group in run["summary"]["groups"] if group["temperature"] == "all")["latency_ms"][name]
            for run in found
        )
        yield close(f"four workers merged, {name}", four, one, "one process", 0.01, int(rate * seconds))


def run(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.load", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="shorter runs and fewer trials; for a look, not for a claim"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="append each row here as a JSON line")
    parser.add_argument("--serve", nargs="+", metavar="KIND", help=argparse.SUPPRESS)
    parser.add_argument("--delay", nargs=2, metavar="N", help=argparse.SUPPRESS)
    parser.add_argument("--client", nargs=3, metavar="N", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.serve:
        asyncio.run(serve(*arguments.serve))
    elif arguments.delay:
        asyncio.run(delay(arguments.delay[0], float(arguments.delay[1])))
    elif arguments.client:
        url, rate, seconds = arguments.client
        print(json.dumps(asyncio.run(open_loop(url, float(rate), float(seconds)))))
    else:
        with contextlib.ExitStack() as stack:
            # The runs' own records stay where the figures go; without such a place they are of no use.
            kept = arguments.out and arguments.out.parent / "load"
            scratch = Path(kept or stack.enter_context(tempfile.TemporaryDirectory()))
            scratch.mkdir(exist_ok=True)
            for bench in (bench_stall, bench_lag, bench_overhead, bench_workers, bench_verdicts):
                for made in bench(scratch, arguments.quick):
                    append(arguments.out, made)
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
