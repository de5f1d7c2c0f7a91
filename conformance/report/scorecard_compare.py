"""`python -m conformance compare A B [C...]`: the scorecards of several runs side by side, and what differs."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from conformance import COMMAND, exits
from conformance.report.scorecard import ClassScore, Scorecard, as_dict, percent, score

# More programs than a person reads are told by class.
LISTED = 20
EXAMPLES = """\
examples:
  python -m conformance compare out/conformance-A out/conformance-B
  python -m conformance compare ours=out/conformance-A naive=out/conformance-B --markdown > comparison.md

Each run is the directory a run left (its run.json and checks.jsonl are read), with a name before it if one is wanted.
"""


def build_parser() -> argparse.ArgumentParser:
    """The options of the comparison."""
    parser = argparse.ArgumentParser(
        prog=f"{COMMAND} compare",
        description="Put the security scorecards of several runs side by side.",
        epilog=EXAMPLES.replace("python -m conformance", COMMAND),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", metavar="[NAME=]DIR", help="directories of runs, two or more")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="for machines")
    form.add_argument("--markdown", action="store_true", help="as Markdown tables")
    return parser


def run(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit code: 0 when the comparison was made, whatever it shows."""
    try:
        options = build_parser().parse_args(argv)
    except SystemExit as stop:
        return exits.USAGE if stop.code else exits.PASS
    try:
        cards = read(options.runs)
    except ValueError as fault:
        print(fault, file=sys.stderr)
        return exits.USAGE
    if options.json:
        print(json.dumps({name: as_dict(card) for name, card in cards.items()}, ensure_ascii=False))
    else:
        print(render(cards, markdown=options.markdown))
    return exits.PASS


def read(runs: Sequence[str]) -> dict[str, Scorecard]:
    """Name -> scorecard, in the order given.

    Raises:
        ValueError: fewer than two runs, a name twice, or a directory without a run; with one sentence for a person.
    """
    if len(runs) < 2:
        raise ValueError(f"compare needs two runs or more, got {len(runs)}; give the directories they left.")
    cards: dict[str, Scorecard] = {}
    for one in runs:
        name, equals, where = one.partition("=")
        path = Path(where if equals else one)
        name = name if equals else path.resolve().name
        if name in cards:
            raise ValueError(f"Two runs are called {name}; name them apart, as in a={path} b=DIR.")
        try:
            cards[name] = score(path)
        except (OSError, ValidationError) as error:
            told = error.strerror if isinstance(error, OSError) else "run.json cannot be read"
            raise ValueError(f"{path} holds no run: {told}; give the directory named in a run's last lines.") from None
    return cards


def render(cards: dict[str, Scorecard], *, markdown: bool) -> str:
    """The comparison as text: the summary, each class as leaked of tried, then the programs that tell runs apart."""
    rows = [("", list(cards)), *_summary(cards), *_classes(cards)]
    lines = _table(rows, markdown=markdown)
    apart = _apart(cards)
    if apart:
        lines += ["", "## Got through in some runs only" if markdown else "got through in some runs only:", ""]
        lines += [f"{'- ' if markdown else '  '}{names}: {told}" for names, told in apart.items()]
    return "\n".join(lines)


def _summary(cards: dict[str, Scorecard]) -> list[tuple[str, list[str]]]:
    def row(name: str, *values: str) -> tuple[str, list[str]]:
        return name, list(values)

    each = list(cards.values())
    return [
        row("profile", *(card.profile for card in each)),
        row("attacks held", *(percent(card.attacks.held) for card in each)),
        row("attacks leaked", *(f"{card.attacks.leaked} of {card.attacks.tried}" for card in each)),
        row("crashed", *(str(card.attacks.crashed + card.persistence.crashed) for card in each)),
        row("survived a call", *(f"{card.persistence.leaked} of {card.persistence.tried}" for card in each)),
        row(
            "ordinary code refused",
            *(f"{len(card.benign.refused)} of {card.benign.programs - card.benign.unsupported}" for card in each),
        ),
        row("runaways in time", *(f"{card.resources.answered} of {card.resources.programs}" for card in each)),
        row(
            "refusals explained",
            *(f"{card.explained.operation_and_line} of {card.explained.refusals}" for card in each),
        ),
        row("environments lost", *(str(card.environments_lost) for card in each)),
    ]


def _classes(cards: dict[str, Scorecard]) -> list[tuple[str, list[str]]]:
    names = sorted({one.name for card in cards.values() for one in card.classes})

    def told(card: Scorecard, name: str) -> str:
        found = next((one for one in card.classes if one.name == name), ClassScore(name=name))
        return f"{found.leaked} of {found.tried}" if found.tried else "-"

    return [(f"leaked: {name}", [told(card, name) for card in cards.values()]) for name in names]


def _apart(cards: dict[str, Scorecard]) -> dict[str, str]:
    """Names of runs -> the programs that got through in these and in no other; by class where they are many."""
    through = {name: {one.program: one.group for one in card.through} for name, card in cards.items()}
    found: dict[str, dict[str, str]] = {}
    for program, group in sorted({pair for one in through.values() for pair in one.items()}):
        names = [name for name in cards if program in through[name]]
        if len(names) < len(cards):
            found.setdefault(", ".join(names), {})[program] = group
    return {names: _told(programs) for names, programs in found.items()}


def _told(programs: dict[str, str]) -> str:
    if len(programs) <= LISTED:
        return ", ".join(programs)
    return f"{len(programs)}: " + ", ".join(f"{group} {n}" for group, n in Counter(programs.values()).items())


def _table(rows: list[tuple[str, list[str]]], *, markdown: bool) -> list[str]:
    if markdown:
        head, *rest = [f"| {name} | {' | '.join(values)} |" for name, values in rows]
        return [head, "|---|" + "---:|" * len(rows[0][1]), *rest]
    widths = [max(len(values[column]) for _, values in rows) for column in range(len(rows[0][1]))]
    first = max(len(name) for name, _ in rows)
    return [
        f"{name:<{first}}  " + "  ".join(f"{value:>{width}}" for value, width in zip(values, widths, strict=True))
        for name, values in rows
    ]
