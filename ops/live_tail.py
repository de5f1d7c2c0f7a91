"""Follows log groups by CloudWatch's StartLiveTail: lines within a second of their writing, from now on.

It must not be taken for the whole log: an update holds 500 lines at most and AWS leaves the rest out (`sampled`), and
what comes while a session is renewed is not in it. `logs.follow` loses nothing and is a few seconds later.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import botocore.exceptions

from ops.aws import BROKEN_STREAM, error_code
from ops.failures import UsageError
from ops.logs import LogEvent, Pace

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient

MOST_GROUPS: Final = 10
DOLLARS_PER_MINUTE: Final = 0.01  # us-east-1, as copied from the price list on 2026-09-28
_MOST_LOST: Final = 5
_RENEW: Final = {"SessionTimeoutException", "SessionStreamingException"}
_NOT_HERE: Final = {"UnknownOperationException", "NotImplemented", "NotImplementedException", "InvalidAction", "501"}
_CUT = (*BROKEN_STREAM, botocore.exceptions.HTTPClientError, botocore.exceptions.EventStreamError)


def live(
    client: "CloudWatchLogsClient",
    groups: Sequence[str],
    pace: Pace,
    say: Callable[[str], None],
    *,
    pattern: str | None = None,
) -> Iterator[list[LogEvent]]:
    """Lines as they come, for ever; an empty list each second without any. Sessions that end are renewed.

    `say` is told what may be missing. Raises UsageError for more groups than a session takes and where there is no
    live tail, ClientError as boto3 does, and the network's own error when sessions are lost again and again.
    """
    if len(groups) > MOST_GROUPS:
        raise UsageError(f"Live tail takes {MOST_GROUPS} log groups, not {len(groups)}; name fewer, or follow with -f.")
    request: dict[str, Any] = {"logGroupIdentifiers": [arn_of(client, group, pace) for group in groups]}
    if pattern:
        request["logEventFilterPattern"] = pattern
    lost = 0
    while True:
        try:
            for update in _session(client, request, pace):
                lost = 0
                if update.get("sessionMetadata", {}).get("sampled"):
                    say("AWS left lines out of this second: more came than live tail shows; -f shows all.")
                yield [_event(result) for result in update.get("sessionResults", [])]
            say("The live tail was ended by AWS and is renewed; lines of the gap are not shown.")
        except _CUT as problem:
            if isinstance(problem, botocore.exceptions.ClientError) and error_code(problem) not in _RENEW:
                raise
            lost += 1
            if lost > _MOST_LOST:
                raise
            say(f"The live tail broke off ({_why(problem)}) and is renewed; lines of the gap are not shown.")
        pace.sleep(1.0)


def arn_of(client: "CloudWatchLogsClient", group: str, pace: Pace) -> str:
    """The ARN that live tail wants, without the `:*` that others want. Raises UsageError for an unknown group."""
    pace.wait()
    found = client.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    one = next((each for each in found if each["logGroupName"] == group), None)
    if one is None:
        raise UsageError(f"There is no log group {group}; call the function once, or check --group and the region.")
    return str(one.get("logGroupArn") or one["arn"]).removesuffix(":*")


def _session(client: "CloudWatchLogsClient", request: dict[str, Any], pace: Pace) -> Iterator[Any]:
    """The updates of one session, until AWS ends it."""
    pace.wait()
    try:
        stream: Any = client.start_live_tail(**request)["responseStream"]
    except botocore.exceptions.ClientError as problem:
        status = problem.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if error_code(problem) in _NOT_HERE or status in {404, 501}:
            raise UsageError("There is no live tail at this endpoint; leave out --live and follow with -f.") from None
        raise
    try:
        for told in stream:
            if "sessionUpdate" in told:
                yield told["sessionUpdate"]
    finally:
        stream.close()


def _event(result: Any) -> LogEvent:
    """Live tail gives no event id, and the group as `account:name`."""
    at_ms = int(result["timestamp"])
    group = str(result.get("logGroupIdentifier", "")).rpartition(":")[2]
    return LogEvent(
        at_ms, int(result.get("ingestionTime", at_ms)), group, result.get("logStreamName", ""), "",
        result.get("message", ""),
    )  # fmt: skip


def _why(problem: BaseException) -> str:
    if isinstance(problem, botocore.exceptions.ClientError):
        return error_code(problem)
    return type(problem).__name__
