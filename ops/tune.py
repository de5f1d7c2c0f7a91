"""`ops tune memory|timeout`: advice on the two settings a function has, from measurements and from real logs.

It must not change a live function: memory is measured on a copy, and `--apply` writes the file that the next deployment
is made from.
"""

import argparse
import json
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import numpy as np

from ops import concurrency_advice, likeness, memory_model, tables, timeout_advice
from ops.aws import Account, aws_sentences, lambda_client, s3_client, split_name
from ops.bench import MOST, Bench, Payload, Sampling, Shot, copied, in_place, measure, proxy_event, read_payloads
from ops.command import (
    Surroundings,
    account_of,
    add_account_flags,
    add_group_flags,
    add_range_flags,
    run_folder,
    selection_of,
)
from ops.failures import EXIT_PASS, Inconclusive, UsageError
from ops.invocations import Invocations, Ledger, fold
from ops.logs import read_events
from ops.memory_model import DEFAULT_SIZES, Estimate, Pricing, StrategyName
from ops.pricing import Architecture, Gateway
from ops.probes import call
from ops.report import EVENTS, pull_to, read_request
from ops.settings_file import write_setting

HELP = "advise memory and timeout from measurements and logs"
EXAMPLES = """examples:
  python -m ops tune memory --function code-interpreter                     cheapest, on a temporary copy
  python -m ops tune memory --strategy cost --p95-below 800 --code-file scenario.py --apply
  python -m ops tune memory --sizes 512,1024,1769,3008 --payloads events.json   weighted, as power-tuning reads them
  python -m ops tune memory --like out/logs-20261124T061500Z                the mix of real calls, from `ops logs pull`
  python -m ops tune timeout --since 7d                                     from the tail of real invocations
  python -m ops tune concurrency --since 7d --p99-below 1500                cheapest way to keep a p99
"""
_TEMPLATE_LEAST_S = 15  # PFnTimeout's MinValue
_DEFAULT_CODE = "import pandas as pd\ndf = pd.DataFrame({'a': range(20000)})\nresult = int((df.a % 7).sum())"


@dataclass(frozen=True, slots=True)
class Goal:
    """What the size is chosen for, and what a dollar depends on."""

    strategy: StrategyName = "cost"
    weight: float = 0.5
    p95_below_ms: float | None = None
    architecture: Architecture = "x86_64"
    gateway: Gateway = "none"
    cold_share: float = 0.01

    def choose(self, options: Sequence[Estimate]) -> Estimate:
        """The option this goal prefers. Raises Inconclusive when none keeps its constraint."""
        return memory_model.choose(options, self.strategy, self.weight, self.p95_below_ms)

    def decide(self, measured: Sequence[Estimate]) -> Estimate:
        """The same among measured sizes; where they do not differ by more than chance, the smallest: it costs least."""
        chosen = self.choose(measured)
        if memory_model.memory_matters(measured):
            return chosen
        limit = float("inf") if self.p95_below_ms is None else self.p95_below_ms
        return min((o for o in measured if o.p95_ms < limit), key=lambda o: o.memory_mb)


@dataclass(frozen=True, slots=True)
class MemoryAdvice:
    """The chosen size, always a measured one, and everything it was chosen from; times in ms, by size in MB."""

    chosen_mb: int
    proposed_mb: int
    goal: Goal
    memory_matters: bool
    too_small_mb: list[int]
    invocations: int
    options: list[Estimate]
    cpu_ms: dict[int, float]
    init_ms: dict[int, float]
    link: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """What `ops tune memory --from --json` prints, schema ops-tune-prediction/1; nothing of it is confirmed."""

    options: list[Estimate]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `ops tune` and its commands."""
    commands = parser.add_subparsers(dest="tune_command", required=True, metavar="COMMAND")
    for name, help_text, arguments, command in (
        ("memory", "measure a few sizes, predict the others, confirm the choice", _memory_flags, _memory),
        ("timeout", "from the tail of real durations, or refuse", _timeout_flags, _timeout),
        ("concurrency", "on demand, provisioned or SnapStart, by replay", _concurrency_flags, _concurrency),
    ):
        sub = commands.add_parser(
            name, help=help_text, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        arguments(sub)
        sub.add_argument("--json", action="store_true", help="print the advice as JSON")
        sub.add_argument("--out", metavar="DIR", help="folder for the files (default out/tune-<UTC time>)")
        if name != "concurrency":  # which no setting of the deployment holds yet
            sub.add_argument("--apply", action="store_true", help="write the advice into the settings file")
            sub.add_argument("--settings", default="etc/environment.sh", metavar="FILE", help="(etc/environment.sh)")
        add_account_flags(sub)
        sub.set_defaults(tune_run=command)


def run(args: argparse.Namespace, around: Surroundings) -> int:
    """Runs the chosen command."""
    return int(args.tune_run(args, around))


def _memory_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--function", metavar="NAME", help="function to tune, with or without :ALIAS (else P_FN_NAME)")
    sizes = ",".join(map(str, DEFAULT_SIZES))
    parser.add_argument("--sizes", default=sizes, metavar="MB,...", help=f"candidate sizes (default {sizes})")
    parser.add_argument("--measure", metavar="MB,...", help="sizes to measure (default two smallest, largest)")
    parser.add_argument("--strategy", choices=("cost", "speed", "balanced"), default="cost", help="default cost")
    parser.add_argument("--weight", type=float, default=0.5, help="balanced: 0 for speed to 1 for cost (default 0.5)")
    parser.add_argument("--p95-below", type=float, metavar="MS", help="only sizes whose p95 is below this")
    parser.add_argument("--code-file", metavar="FILE", help="Python code to run (default: a pandas sum)")
    parser.add_argument("--payloads", metavar="FILE", help="an event, or [{payload, weight}]; or s3://...")
    parser.add_argument(
        "--like", metavar="DIR", help="payloads that take what real calls took, by the records in an earlier run's logs"
    )
    parser.add_argument("--allow-error", action="append", default=[], metavar="NAME", help="a failure that is expected")
    parser.add_argument("--most", type=int, default=MOST, metavar="N", help=f"warm invocations a size (default {MOST})")
    parser.add_argument("--before", metavar="FUNCTION", help="gets each payload first, and may answer with another")
    parser.add_argument("--after", metavar="FUNCTION", help="gets each answer; neither of the two is measured")
    parser.add_argument("--keep-output", action="store_true", help="keep the answers in samples.jsonl too")
    parser.add_argument("--pause", type=float, default=0.0, metavar="S", help="between invocations (default 0)")
    parser.add_argument("--only-cold", action="store_true", help="a new environment each time: tune the cold start")
    parser.add_argument("--cold-share", type=float, default=0.01, help="cold starts among invocations (default 0.01)")
    parser.add_argument("--arch", choices=("x86_64", "arm64"), default="x86_64")
    parser.add_argument("--gateway", choices=("rest", "http", "none"), default="none", help="add its price")
    parser.add_argument(
        "--from", dest="from_run", metavar="DIR", help="only predict, from an earlier run's call records"
    )
    parser.add_argument("--in-place", action="store_true", help="measure the function itself and restore it after")
    parser.add_argument("--dry-run", action="store_true", help="one invocation, to try the payload")


def _history_flags(parser: argparse.ArgumentParser) -> None:
    add_group_flags(parser)
    add_range_flags(parser, "7d")
    parser.add_argument("--from", dest="from_run", metavar="DIR", help="events of an earlier run instead of AWS")


def _concurrency_flags(parser: argparse.ArgumentParser) -> None:
    _history_flags(parser)
    parser.add_argument("--p99-below", type=float, metavar="MS", help="only choices whose p99 is below this")
    parser.add_argument(
        "--restore-ms", type=float, metavar="MS", help="a SnapStart restore (else as logged, else INIT)"
    )
    parser.add_argument(
        "--idle-minutes",
        type=float,
        default=concurrency_advice.IDLE_MINUTES,
        metavar="MIN",
        help="how long AWS keeps an idle environment (default 10)",
    )
    parser.add_argument("--arch", choices=("x86_64", "arm64"), default="x86_64")


def _timeout_flags(parser: argparse.ArgumentParser) -> None:
    _history_flags(parser)
    parser.add_argument(
        "--gateway-limit",
        type=float,
        default=timeout_advice.GATEWAY_LIMIT_S,
        metavar="S",
        help="0 for none (default 29)",
    )
    parser.add_argument(
        "--soft-limit", type=float, metavar="S", help="the interpreter's own (else asked from MCP_ENDPOINT_URL)"
    )
    parser.add_argument("--margin", type=float, default=0.2, help="share to add (default 0.2)")


def _memory(args: argparse.Namespace, around: Surroundings) -> int:
    if args.from_run:
        return _predict(args, around)
    name = args.function or os.environ.get("P_FN_NAME")
    if not name:
        raise UsageError("No function is named; give --function NAME or set P_FN_NAME.")
    candidates = _sizes(args.sizes)
    first = _sizes(args.measure) if args.measure else memory_model.sizes_to_measure(candidates)
    how = Sampling(args.most, args.pause, tuple(args.allow_error), args.only_cold)
    cold_share = 0.0 if args.only_cold else args.cold_share  # there, INIT is in every duration already
    goal = Goal(args.strategy, args.weight, args.p95_below, args.arch, args.gateway, cold_share)
    account = account_of(args, around)
    payloads = _payloads(args, account, around)
    folder = run_folder(args.out, "tune", around.now())
    with aws_sentences(account), (folder / "samples.jsonl").open("w", encoding="utf-8") as file:

        def shots(bench: Bench, size: int) -> list[Shot]:
            around.say(f"measuring {bench.name} at {size} MB ...")
            made = []
            for shot in measure(bench, size, payloads, how):
                file.write(shot.as_json())
                file.flush()
                made.append(shot)
            return made

        with _bench_of(account, name, args, around) as bench:
            bench.before, bench.after, bench.keeps_output = args.before, args.after, args.keep_output
            if args.dry_run:
                bench.set_memory(first[0])
                around.out.write(bench.shoot(payloads[0]).as_json())
                return EXIT_PASS
            advice = tune_memory(lambda size: shots(bench, size), first, candidates, goal)
    _write_memory(advice, folder, args, around)
    return EXIT_PASS


def _predict(args: argparse.Namespace, around: Surroundings) -> int:
    """A table from one size's logs alone: a hint where to measure, never a choice."""
    if args.apply:
        raise UsageError("A prediction from logs is not confirmed, so --apply does not go with --from.")
    source = Path(args.from_run)
    read_request(source)
    ledger = fold(read_events(source / EVENTS))
    options = predict_from_logs(ledger, _sizes(args.sizes), Pricing(args.arch, args.gateway))
    if args.json:
        told = {"schema": "ops-tune-prediction/1"} | asdict(Prediction(options))
        around.out.write(json.dumps(told, indent=2) + "\n")
    else:
        around.out.write(tables.estimates_text(options, chosen_mb=None))
    around.say("Predicted from CPU time at one size and not confirmed: measure before you choose.")
    return EXIT_PASS


def predict_from_logs(ledger: Ledger, candidates: Sequence[int], pricing: Pricing) -> list[Estimate]:
    """Every candidate by T(m) = wait + cpu / share(m), from warm invocations at the last size and their CPU time.

    Raises Inconclusive without call records that tell CPU time. The interval of a prediction is not known here: low and
    high are the prediction itself.
    """
    inv = ledger.invocations
    if not len(inv) or not len(ledger.calls.cpu_ms):
        raise Inconclusive("The run holds no call records with CPU time; measure instead, without --from.")
    size = float(inv.memory_size_mb[-1])
    warm = inv.duration_ms[~inv.is_cold & (inv.memory_size_mb == size)]
    if not len(warm):
        raise Inconclusive(f"The run holds no warm invocation at {size:g} MB; measure instead, without --from.")
    mean, p95 = float(warm.mean()), float(np.quantile(warm, 0.95))
    model = memory_model.fit_from_cpu(mean, sum(ledger.calls.cpu_ms) / len(inv), size)
    times = {memory: model.duration_ms(memory) for memory in sorted({*candidates, int(size)})}
    times[int(size)] = mean
    return [
        Estimate(m, len(warm) if m == size else 0, t, t, t, t * p95 / mean, pricing.dollars(t, m))
        for m, t in times.items()
    ]


def tune_memory(
    shots: Callable[[int], list[Shot]], first: Sequence[int], candidates: Sequence[int], goal: Goal
) -> MemoryAdvice:
    """Measures `first`, predicts `candidates`, confirms the choice by measuring it, and chooses among the measured.

    Sizes at which the function lacks memory or time are struck out, and the next larger candidate is measured instead.
    `shots` measures one size. Raises Inconclusive if no size works or none keeps the goal's constraint.
    """
    taken: dict[int, list[Shot]] = {}
    struck: list[int] = []

    def take(size: int) -> None:
        made = shots(size)
        if any(shot.failure in {"oom", "timeout"} for shot in made):
            struck.append(size)
        else:
            taken[size] = made

    for size in first:
        take(size)
    for size in sorted(candidates):
        if len(taken) < min(3, len(first)) and size not in taken and size > max(struck, default=0):
            take(size)
    if not taken:
        raise Inconclusive(f"The function lacks memory or time at every size tried: {', '.join(map(str, struck))} MB.")
    possible = [size for size in candidates if size > max(struck, default=0)]
    proposal = goal.choose(estimates_of(taken, possible, goal))
    if proposal.memory_mb not in taken:
        take(proposal.memory_mb)
    options = estimates_of(taken, [size for size in possible if size not in struck], goal)
    return MemoryAdvice(
        chosen_mb=goal.decide([option for option in options if option.measured]).memory_mb,
        proposed_mb=proposal.memory_mb,
        goal=goal,
        memory_matters=memory_model.memory_matters(options),
        too_small_mb=sorted(struck),
        invocations=sum(len(made) for made in taken.values()),
        options=options,
        cpu_ms=_means(taken, lambda shot: shot.cpu_ms),
        init_ms=_means(taken, lambda shot: shot.init_ms),
        link=memory_model.visualization_link(options),
    )


def estimates_of(taken: Mapping[int, Sequence[Shot]], candidates: Sequence[int], goal: Goal) -> list[Estimate]:
    """Every candidate and measured size, from warm invocations; cold ones enter by the goal's share of them."""
    inits = _means(taken, lambda shot: shot.init_ms)
    pricing = Pricing(goal.architecture, goal.gateway, cold_share=goal.cold_share, init_ms=inits)
    counted = {size: _counted(made) for size, made in taken.items()}
    samples = {size: np.array([s.duration_ms + (s.init_ms or 0.0) for s in shots]) for size, shots in counted.items()}
    names = {size: [shot.payload for shot in shots] for size, shots in counted.items()}
    return memory_model.estimates(samples, candidates, pricing, names)


def _counted(made: Sequence[Shot]) -> Sequence[Shot]:
    """The warm shots; if every one was cold, all of them."""
    return [shot for shot in made if shot.init_ms is None] or made


def _means(taken: Mapping[int, Sequence[Shot]], figure: Callable[[Shot], float | None]) -> dict[int, float]:
    known = {size: [v for shot in made if (v := figure(shot)) is not None] for size, made in taken.items()}
    return {size: float(np.mean(values)) for size, values in known.items() if values}


def _bench_of(
    account: Account, name: str, args: argparse.Namespace, around: Surroundings
) -> AbstractContextManager[Bench]:
    client = lambda_client(account)
    if args.in_place:
        around.say(f"Measuring {name} itself; its memory is restored at the end.")
        return in_place(client, split_name(name)[0])
    copy_name = f"{split_name(name)[0][:48]}-tune-{secrets.token_hex(4)}"
    around.say(f"Measuring a temporary copy, {copy_name}; it is deleted at the end.")
    return copied(client, name, copy_name, _download)


def _download(url: str) -> bytes:
    response = httpx.get(url, timeout=120, follow_redirects=True)
    response.raise_for_status()
    return response.content


def _payloads(args: argparse.Namespace, account: Account, around: Surroundings) -> list[Payload]:
    if args.like:
        return _like(Path(args.like), around)
    try:
        if args.payloads and args.payloads.startswith("s3://"):
            return read_payloads(_from_s3(args.payloads, account), args.payloads)
        if args.payloads:
            return read_payloads(Path(args.payloads).read_text(encoding="utf-8"), args.payloads)
        code = Path(args.code_file).read_text(encoding="utf-8") if args.code_file else _DEFAULT_CODE
    except OSError as problem:
        raise UsageError(f"Cannot read {problem.filename} ({problem.strerror}).") from None
    return [Payload(args.code_file or "pandas", proxy_event(code))]


def _like(source: Path, around: Surroundings) -> list[Payload]:
    read_request(source)
    mix = likeness.mix_of(read_events(source / EVENTS))
    payloads = likeness.payloads_like(mix)
    total = sum(payload.weight for payload in payloads)
    for payload in payloads:
        around.say(f"{payload.weight / total:.0%} of calls: {payload.name}")
    for why, count in mix.left_out.items():
        around.say(f"left out: {count} calls that {why}")
    return payloads


def _from_s3(url: str, account: Account) -> str:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    with aws_sentences(account):
        return str(s3_client(account).get_object(Bucket=bucket, Key=key)["Body"].read().decode())


def _sizes(text: str) -> list[int]:
    try:
        sizes = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise UsageError(f"Cannot read the sizes {text!r}; write them like 512,1024,1769.") from None
    if not sizes or sizes[0] < 128 or sizes[-1] > 10240:
        raise UsageError(f"A function has 128 to 10240 MB; {text!r} goes beyond.")
    return sizes


def _write_memory(advice: MemoryAdvice, folder: Path, args: argparse.Namespace, around: Surroundings) -> None:
    from ops import plot  # here, because matplotlib takes a second that the other commands need not wait

    as_json = json.dumps({"schema": "ops-tune-memory/1"} | asdict(advice), indent=2) + "\n"
    (folder / "tune.json").write_text(as_json, encoding="utf-8")
    plot.draw_sizes(advice.options, advice.chosen_mb, folder / "tune.png")
    around.out.write(as_json if args.json else advice_text(advice))
    if args.apply:
        around.say(f"{args.settings}: " + write_setting(Path(args.settings), "P_FN_MEMORY", str(advice.chosen_mb)))
    around.say(f"Files in {folder}: samples.jsonl, tune.json, tune.png")


def advice_text(advice: MemoryAdvice) -> str:
    """The advice for a terminal."""
    lines = [f"{advice.invocations} invocations were measured; strategy {advice.goal.strategy}."]
    if advice.too_small_mb:
        lines.append(f"Too small: {', '.join(map(str, advice.too_small_mb))} MB.")
    if not advice.memory_matters:
        lines.append("Memory has no effect that these measurements show, so the smallest size is chosen for its price.")
    return tables.estimates_text(advice.options, advice.chosen_mb) + "\n".join([*lines, advice.link]) + "\n"


def _timeout(args: argparse.Namespace, around: Surroundings) -> int:
    invocations, folder = _history(args, around)
    soft = args.soft_limit if args.soft_limit is not None else _soft_limit(around)
    limits = timeout_advice.Limits(args.gateway_limit or None, soft, args.margin)
    advice = timeout_advice.advise(invocations, limits)
    as_json = advice.model_dump_json(by_alias=True, indent=2) + "\n"
    (folder / "timeout.json").write_text(as_json, encoding="utf-8")
    if args.json:
        around.out.write(as_json)
    else:
        around.out.write(f"Timeout: {advice.timeout_s} s\n" + "".join(f"  {reason}\n" for reason in advice.reasons))
    if args.apply:
        if advice.timeout_s < _TEMPLATE_LEAST_S:
            around.say(f"sam/template.yaml takes no less than {_TEMPLATE_LEAST_S} s, so that is written.")
        seconds = max(_TEMPLATE_LEAST_S, advice.timeout_s)
        around.say(f"{args.settings}: " + write_setting(Path(args.settings), "P_FN_TIMEOUT", str(seconds)))
    return EXIT_PASS


def _concurrency(args: argparse.Namespace, around: Surroundings) -> int:
    invocations, folder = _history(args, around)
    history = concurrency_advice.history_of(invocations, args.restore_ms)
    advice = concurrency_advice.advise(
        history, architecture=args.arch, idle_minutes=args.idle_minutes, p99_below_ms=args.p99_below
    )
    as_json = advice.model_dump_json(by_alias=True, indent=2) + "\n"
    (folder / "concurrency.json").write_text(as_json, encoding="utf-8")
    around.out.write(as_json if args.json else tables.concurrency_text(advice))
    return EXIT_PASS


def _history(args: argparse.Namespace, around: Surroundings) -> tuple[Invocations, Path]:
    """The invocations of an earlier run's files or of a range pulled now, and the folder to write to."""
    if args.from_run:
        source = Path(args.from_run)
        read_request(source)
        folder = run_folder(args.out, "tune", around.now())
    else:
        selection = selection_of(args, around)
        source = folder = run_folder(args.out, "tune", around.now())
        pull_to(folder, selection, around)
    return fold(read_events(source / EVENTS)).invocations, folder


def _soft_limit(around: Surroundings) -> float | None:
    """The interpreter's own time limit in s, as the endpoint tells it; None, and said so, when there is none to ask."""
    url = os.environ.get("MCP_ENDPOINT_URL")
    if url:
        with httpx.Client() as client:
            answer = call(client, url, "get_environment_info", {}, os.environ.get("MCP_API_KEY") or None)
        limit = ((answer.result or {}).get("limits") or {}).get("timeout_s")
        if isinstance(limit, int | float):
            return float(limit)
    around.say("The interpreter's own limit is not known (no --soft-limit, no MCP_ENDPOINT_URL), so it is not held to.")
    return None
