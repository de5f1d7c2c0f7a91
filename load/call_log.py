"""Reads a CloudWatch log group through boto3: every event of a time range, none twice, none skipped.

It parses nothing: what an event means is for `server_side` and `mix` to say.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from load import aws
from load.settings import SettingsError

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient


class NoLog(Exception):
    """The log group cannot be read; the message says which and why."""


def client() -> "CloudWatchLogsClient":
    """CloudWatch Logs as boto3 finds it; AWS_ENDPOINT_URL leads to the local stack. Raises AwsRefused."""
    logs: CloudWatchLogsClient = aws.client("logs")
    return logs


def events(
    logs: "CloudWatchLogsClient", log_group: str, start_ms: int, end_ms: int, pattern: str = ""
) -> Iterator[tuple[int, str]]:
    """Time in ms and message of every event in a range that matches a CloudWatch filter pattern ("" matches all).

    Tokens are followed by hand: an empty page is not the end, a repeated token is. Raises NoLog when CloudWatch cannot
    be read, SettingsError when there is no such group.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    request: dict[str, Any] = {"logGroupName": log_group, "startTime": start_ms, "endTime": end_ms}
    if pattern:
        request["filterPattern"] = pattern
    token: str | None = None
    while True:
        try:
            page = logs.filter_log_events(**(request if token is None else {**request, "nextToken": token}))
        except logs.exceptions.ResourceNotFoundException as error:
            raise SettingsError(f"there is no log group {log_group}; is --log-group right, and the region?") from error
        except (BotoCoreError, ClientError) as error:
            raise NoLog(f"cannot read log group {log_group}: {error}") from error
        for event in page.get("events", []):
            yield event["timestamp"], event["message"]
        following = page.get("nextToken")
        if following is None or following == token:
            return
        token = following
