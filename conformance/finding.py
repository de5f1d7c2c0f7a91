"""How a check says that an endpoint is wrong: a typed failure with its data, and the few expectations checks share."""

from collections.abc import Callable
from typing import TypeVar

import pytest

from conformance.messages import Reply
from conformance.records import SecurityVerdict
from conformance.wire import Answer

Check = TypeVar("Check", bound=Callable[..., object])

# Requirement id -> names of the checks that serve it; filled as check modules are imported.
SERVED_BY: dict[str, list[str]] = {}
# Where the check of a program of the corpus leaves what it did, for its record.
VERDICT = pytest.StashKey[SecurityVerdict]()


def serves(check: str, *ids: str) -> pytest.MarkDecorator:
    """Notes that the check of that name serves these requirements, and returns the mark that says so to pytest."""
    for one in ids:
        SERVED_BY.setdefault(one, []).append(check)
    return pytest.mark.requirement(*ids)


def requirement(*ids: str) -> Callable[[Check], Check]:
    """Ties a check to catalogue ids. A check that runs in several eras is judged by the ids of the era it ran in."""

    def mark(check: Check) -> Check:
        marked: Check = serves(f"{check.__module__}.{check.__name__}", *ids)(check)
        return marked

    return mark


class NonConformance(AssertionError):
    """The endpoint did something its source forbids, or left out something it demands."""

    def __init__(self, message: str, *, expected: object = None, got: object = None) -> None:
        super().__init__(message)
        self.message = message
        self.expected = expected
        self.got = got


def expect(condition: object, message: str, *, expected: object = None, got: object = None) -> None:
    """Raises NonConformance with `message` unless `condition` holds."""
    if not condition:
        raise NonConformance(message, expected=expected, got=got)


def expect_status(answer: Answer, *statuses: int) -> None:
    """Expects one of these HTTP statuses; a redirect is named as such because it is a common deployment fault."""
    if answer.status in statuses:
        return
    wanted = " or ".join(map(str, statuses))
    location = answer.header("location")
    hint = f" (a redirect to {location})" if 300 <= answer.status < 400 and location else ""
    raise NonConformance(
        f"HTTP status {answer.status}{hint} where {wanted} is due.", expected=wanted, got=answer.status
    )


def expect_error(reply: Reply, *codes: int, status: tuple[int, ...] = ()) -> dict[str, object]:
    """Expects a JSON-RPC error with one of `codes` (any, when none is given), and one of `status` when given.

    Returns the error object.
    """
    if status:
        expect_status(reply.answer, *status)
    error = reply.error
    wanted = " or ".join(map(str, codes)) or "any JSON-RPC error"
    if reply.message is None:
        told = f"HTTP {reply.answer.status} without a JSON-RPC message where a JSON-RPC error is due."
        raise NonConformance(told, expected=wanted, got=reply.answer.body[:300].decode(errors="replace"))
    if error is None:
        raise NonConformance("A result came back where a JSON-RPC error is due.", expected=wanted, got=reply.message)
    if codes and error.get("code") not in codes:
        raise NonConformance(f"Error code {error.get('code')} where {wanted} is due.", expected=wanted, got=error)
    return error


def expect_result(reply: Reply, *, schema: bool = True) -> dict[str, object]:
    """Expects HTTP 200 and a JSON-RPC result; returns it. One that misses its schema is told elsewhere, and judged by
    no other check, because it may lack what the check is about; without `schema` it is judged all the same."""
    expect_status(reply.answer, 200)
    if reply.result is None:
        raise NonConformance("A JSON-RPC error came back where a result is due.", expected="result", got=reply.message)
    if schema and reply.misfit:
        pytest.skip(f"cannot be judged (see results_fit_their_schema): {reply.misfit}")
    return reply.result
