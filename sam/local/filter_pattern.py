"""CloudWatch Logs filter patterns: a pattern becomes a function that tells whether a log message matches.

Pure; it knows neither events nor streams. Syntax:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Matches = Callable[[str], bool]
MOST_REGEXES = 2  # in a delimited or JSON pattern


class PatternError(ValueError):
    """The pattern is none; AWS answers InvalidParameterException."""

    def __init__(self, why: str) -> None:
        super().__init__(f"Invalid filter pattern: {why}")


def compile_pattern(pattern: str) -> Matches:
    """The function of a filter pattern; an empty one matches every message. Raises PatternError."""
    text = pattern.strip()
    if not text:
        return lambda message: True
    if text[0] not in "[{":
        return _terms(text)
    if len(re.findall(r"%[^%]*%", text)) > MOST_REGEXES:
        raise PatternError(f"it holds more than {MOST_REGEXES} regular expressions")
    return _delimited(text) if text[0] == "[" else _json(text)


def value_of(pattern: str, reference: str, message: str) -> float | None:
    """The number that a metric filter's value stands for in a message that matches: `1`, `$.path`, or `$field`.

    None when the message has no such number. Raises PatternError for a reference that is none.
    """
    if not reference.startswith("$"):
        return _number(reference)
    if reference.startswith("$."):
        try:
            found = _path(reference).find(json.loads(message))
        except ValueError:
            return None
        return _number(_as_text(found[0])) if found and _is_scalar(found[0]) else None
    names = [re.split(r"[\s=!<>]", part.strip(), maxsplit=1)[0] for part in _split(pattern.strip()[1:-1], ",")]
    if reference[1:] not in names:
        raise PatternError(f"{reference} is none of the pattern's fields")
    words, index = split_words(message), names.index(reference[1:])
    if "..." in names[:index]:
        index -= len(names)  # counted from the end
    return _number(words[index]) if -len(words) <= index < len(words) else None


# -- terms ------------------------------------------------------------------------------------------------------------


def _terms(text: str) -> Matches:
    """ERROR "a phrase" -exclude ?one ?another %regex%: all plain ones, none of the excluded, any of the optional.

    With plain terms beside them the optional ones add nothing, as on AWS. A bare term is a whole word, a quoted one any
    part of the message; case counts.
    """
    wanted: list[Matches] = []
    unwanted: list[Matches] = []
    optional: list[Matches] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        into = wanted
        if text[at] in "-?" and at + 1 < len(text) and not text[at + 1].isspace():
            into = unwanted if text[at] == "-" else optional
            at += 1
        matches, at = _term(text, at)
        into.append(matches)

    def matches_all(message: str) -> bool:
        if any(matches(message) for matches in unwanted):
            return False
        if wanted:
            return all(matches(message) for matches in wanted)
        return not optional or any(matches(message) for matches in optional)

    return matches_all


def _term(text: str, at: int) -> tuple[Matches, int]:
    if text[at] == '"':
        phrase, at = _quoted(text, at)
        return (lambda message: phrase in message), at
    if text[at] == "%":
        regex, at = _regex(text, at)
        return (lambda message: regex.search(message) is not None), at
    match = re.compile(r'[^\s"]+').match(text, at)
    assert match is not None
    term = match[0]
    if not re.fullmatch(r"[\w.-]+", term):
        raise PatternError(f"the term {term!r} holds a character that wants quotes")
    word = re.compile(rf"(?<!\w){re.escape(term)}(?!\w)")
    return (lambda message: word.search(message) is not None), match.end()


def _quoted(text: str, at: int) -> tuple[str, int]:
    """The text between the quotes that open at `at`; a backslash keeps a quote or itself."""
    said: list[str] = []
    at += 1
    while at < len(text):
        if text[at] == "\\" and at + 1 < len(text) and text[at + 1] in '"\\':
            said.append(text[at + 1])
            at += 2
        elif text[at] == '"':
            return "".join(said), at + 1
        else:
            said.append(text[at])
            at += 1
    raise PatternError("a quote is not closed")


def _regex(text: str, at: int) -> tuple[re.Pattern[str], int]:
    end = text.find("%", at + 1)
    if end < 0:
        raise PatternError("a regular expression is not closed by %")
    source = text[at + 1 : end]
    # What AWS's engine has not, a pattern that passes here must not use: no groups, few symbols, nothing but ASCII.
    plain = re.sub(r"\\[^0-9]", "", source)
    if (
        not source
        or not re.fullmatch(r"[A-Za-z0-9:_#=@/;, ^$?\[\]{}|*+.-]*", plain)
        or re.search(r"[*+?}][*+?]", plain)
    ):
        raise PatternError(f"the regular expression {source!r} uses what CloudWatch Logs does not support")
    try:
        return re.compile(source), end + 1
    except re.error as error:
        raise PatternError(f"the regular expression {source!r} cannot be read: {error}") from error


# -- space-delimited --------------------------------------------------------------------------------------------------


def _delimited(text: str) -> Matches:
    """[ip, user, ..., status = 4*, bytes > 1000]: fields by position; `...` stands for any number of them."""
    if not text.endswith("]"):
        raise PatternError("a bracket is not closed")
    fields = [part.strip() for part in _split(text[1:-1], ",")]
    if fields.count("...") > 1:
        raise PatternError("... may stand once")
    tests: list[Matches | None] = [None if field == "..." else _field_test(field) for field in fields]
    gap = tests.index(None) if None in tests else None

    def matches(message: str) -> bool:
        words = split_words(message)
        if gap is None:
            return len(words) == len(tests) and _hold(tests, words)
        after = len(tests) - gap - 1
        if len(words) < gap + after:
            return False
        return _hold(tests[:gap], words[:gap]) and (not after or _hold(tests[gap + 1 :], words[-after:]))

    return matches


def _hold(tests: list[Matches | None], words: list[str]) -> bool:
    return all(test is None or test(word) for test, word in zip(tests, words, strict=True))


def split_words(message: str) -> list[str]:
    """Words between spaces; [...] and "..." hold one word together."""
    return [a or b or c for a, b, c in re.findall(r'\[([^\]]*)\]|"([^"]*)"|(\S+)', message)]


def _split(text: str, separator: str) -> list[str]:
    """Split outside quotes, brackets and regular expressions."""
    return list(re.findall(rf'(?:"(?:\\.|[^"])*"|%[^%]*%|[^{separator}])+', text)) or [""]


_FIELD = re.compile(r"([\w$.\-]*)\s*(!=|>=|<=|=|>|<)\s*(\S.*)", re.DOTALL)


def _field_test(field: str) -> Matches:
    """`name`, or comparisons of it joined by && and ||."""
    if re.fullmatch(r"[\w$.\-]*", field):
        return lambda word: True
    alternatives = [[_comparison(part.strip()) for part in _joined(whole, "&&")] for whole in _joined(field, "||")]
    return lambda word: any(all(test(word) for test in tests) for tests in alternatives)


def _joined(text: str, by: str) -> list[str]:
    return [part for part in re.split(rf'{re.escape(by)}(?=(?:[^"]*"[^"]*")*[^"]*$)', text) if part.strip()]


def _comparison(text: str) -> Matches:
    match = _FIELD.fullmatch(text)
    if match is None:
        raise PatternError(f"the field {text!r} cannot be read")
    compare = _compare(match[2], match[3].strip())
    return lambda word: compare(word)


# -- JSON -------------------------------------------------------------------------------------------------------------


def _json(text: str) -> Matches:
    """{ $.level = "ERROR" && ($.ms > 100 || $.code NOT EXISTS) }."""
    if not text.endswith("}"):
        raise PatternError("a brace is not closed")
    parser = _Parser(text[1:-1])
    expression = parser.alternatives()
    parser.end()

    def matches(message: str) -> bool:
        if "{" not in message:
            return False
        try:
            document = json.loads(message)
        except ValueError:
            return False
        return isinstance(document, dict) and expression(document)

    return matches


Expression = Callable[[Any], bool]
_TOKEN = re.compile(
    r"""\s*(?:(?P<path>\$(?:\.[\w@-]+|\.\*|\[\d+\]|\["(?:[^"\\]|\\.)*"\]|\['[^']*'\]|\[\*\])*)
    |(?P<operator>!=|>=|<=|=|>|<|&&|\|\||\(|\))|(?P<quoted>"(?:\\.|[^"\\])*")|(?P<regex>%[^%]*%)
    |(?P<word>[^\s()=<>!&|"%]+))""",
    re.VERBOSE,
)


class _Parser:
    """Recursive descent over || , && and comparisons, in that order of binding."""

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        at = 0
        text = text.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None or match.lastgroup is None:
                raise PatternError(f"{text[at:]!r} cannot be read")
            self._tokens.append((match.lastgroup, match[match.lastgroup]))
            at = match.end()
        self._at = 0

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "the end")

    def _take(self) -> tuple[str, str]:
        token = self._peek()
        self._at += 1
        return token

    def end(self) -> None:
        if self._peek()[0] != "end":
            raise PatternError(f"{self._peek()[1]!r} is unexpected")

    def alternatives(self) -> Expression:
        options = [self._all()]
        while self._peek() == ("operator", "||"):
            self._take()
            options.append(self._all())
        return options[0] if len(options) == 1 else lambda document: any(option(document) for option in options)

    def _all(self) -> Expression:
        parts = [self._one()]
        while self._peek() == ("operator", "&&"):
            self._take()
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else lambda document: all(part(document) for part in parts)

    def _one(self) -> Expression:
        kind, text = self._take()
        if (kind, text) == ("operator", "("):
            inside = self.alternatives()
            if self._take() != ("operator", ")"):
                raise PatternError("a parenthesis is not closed")
            return inside
        if kind != "path":
            raise PatternError(f"a property like $.name was expected, not {text!r}")
        return self._test(_path(text))

    def _test(self, path: "Path") -> Expression:
        kind, text = self._take()
        if kind == "word":
            return self._named_test(path, text.upper())
        if kind != "operator" or text in ("(", ")", "&&", "||"):
            raise PatternError(f"a comparison was expected, not {text!r}")
        kind, value = self._take()
        if kind not in ("word", "quoted", "regex"):
            raise PatternError(f"a value was expected, not {value!r}")
        compare = _compare(text, value)
        return lambda document: any(compare(_as_text(found)) for found in path.find(document) if _is_scalar(found))

    def _named_test(self, path: "Path", name: str) -> Expression:
        if name == "IS":
            _, wanted = self._take()
            values = {"TRUE": True, "FALSE": False, "NULL": None}
            if wanted.upper() not in values:
                raise PatternError(f"IS wants TRUE, FALSE or NULL, not {wanted!r}")
            value = values[wanted.upper()]
            return lambda document: any(found is value for found in path.find(document))
        if name == "EXISTS":
            return lambda document: bool(path.find(document))
        if name == "NOT" and self._take()[1].upper() == "EXISTS":
            return lambda document: not path.find(document)
        raise PatternError(f"{name!r} is no comparison")


@dataclass(frozen=True, slots=True)
class Path:
    """The way to a property; `*` takes every element or member."""

    steps: tuple[str | int, ...]

    def find(self, document: Any) -> list[Any]:
        found = [document]
        for step in self.steps:
            found = [inner for outer in found for inner in _inside(outer, step)]
        return found


def _inside(outer: Any, step: str | int) -> list[Any]:
    if step == "*":
        return list(outer.values()) if isinstance(outer, dict) else list(outer) if isinstance(outer, list) else []
    if isinstance(step, int):
        return [outer[step]] if isinstance(outer, list) and step < len(outer) else []
    return [outer[step]] if isinstance(outer, dict) and step in outer else []


def _path(text: str) -> Path:
    steps: list[str | int] = []
    for name, index, quoted, single in re.findall(
        r"""\.([\w@*-]+)|\[(\d+|\*)\]|\["((?:[^"\\]|\\.)*)"\]|\['([^']*)'\]""", text
    ):
        if index:
            steps.append(int(index) if index != "*" else "*")
        else:
            steps.append(name or quoted.replace('\\"', '"') or single)
    if not steps:
        raise PatternError("$ stands for no property; write $.name")
    return Path(tuple(steps))


def _is_scalar(value: Any) -> bool:
    return not isinstance(value, dict | list)


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value)


# -- comparisons of both ----------------------------------------------------------------------------------------------


def _compare(operator: str, value: str) -> Matches:
    """`operator value` as a test of a word: numbers by size, text with * for anything, %regex% by search."""
    if value.startswith("%"):
        if operator not in ("=", "!="):
            raise PatternError(f"a regular expression is compared by = or !=, not by {operator}")
        regex, _ = _regex(value, 0)
        return lambda word: (regex.search(word) is not None) == (operator == "=")
    quoted = value.startswith('"')
    text = _quoted(value, 0)[0] if quoted else value
    number = None if quoted else _number(text)
    if operator in ("=", "!="):
        wanted = operator == "="
        if number is not None:
            return lambda word: (_number(word) == number) == wanted
        glob = re.compile(".*".join(re.escape(piece) for piece in text.split("*")), re.DOTALL)
        return lambda word: (glob.fullmatch(word) is not None) == wanted
    if number is None:
        raise PatternError(f"{operator} compares numbers, and {value!r} is none")
    limit = number

    def by_size(word: str) -> bool:
        seen = _number(word)
        if seen is None:
            return False
        return {">": seen > limit, "<": seen < limit, ">=": seen >= limit, "<=": seen <= limit}[operator]

    return by_size


def _number(text: str) -> float | None:
    """A number as AWS reads it: digits with sign, point and exponent; no nan, no infinity, no underscore."""
    if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text):
        return float(text)
    return None
