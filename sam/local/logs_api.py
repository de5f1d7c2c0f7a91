"""CloudWatch Logs for boto3: the operations that read and write events, over `log_store`.

Metric filters are not here, and are refused rather than answered with nothing; live tail is `live_tail`.
"""

import itertools
import json
import re
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .filter_pattern import PatternError, compile_pattern
from .insights import MOST_ROWS, QueryError, compile_query, discovered
from .log_store import EVENT_OVERHEAD, Group, LogsError, LogStore
from .stack import ACCOUNT_ID

TARGET = "Logs_20140328."
NOT_HERE = (
    "PutMetricFilter",
    "PutSubscriptionFilter",
    "GetLogRecord",
)
_KEPT_QUERIES = 100
_LONGEST_EVENT = 1024 * 1024
_MOST_PUT_BYTES, _MOST_PUT_EVENTS = 1024 * 1024, 10_000
_RETENTIONS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653)

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """One Insights query, which was answered when it was asked."""

    text: str
    group: str
    created_ms: int
    rows: list[list[dict[str, str]]]
    statistics: Document


class LogsApi:
    """Answers operations by name; None for one that is not ours."""

    def __init__(self, store: LogStore, region: str) -> None:
        self._store = store
        self._region = region
        self._operations: dict[str, Callable[[Document], Document]] = {
            "CreateLogGroup": self._create_group,
            "DeleteLogGroup": self._delete_group,
            "DescribeLogGroups": self._describe_groups,
            "ListLogGroups": self._list_groups,
            "CreateLogStream": self._create_stream,
            "DeleteLogStream": self._delete_stream,
            "DescribeLogStreams": self._describe_streams,
            "PutRetentionPolicy": self._put_retention,
            "DeleteRetentionPolicy": self._delete_retention,
            "PutLogEvents": self._put_events,
            "GetLogEvents": self._get_events,
            "FilterLogEvents": self._filter_events,
            "StartQuery": self._start_query,
            "StopQuery": self._stop_query,
            "GetQueryResults": self._query_results,
            "DescribeQueries": self._describe_queries,
        }
        self._queries: dict[str, Asked] = {}  # by id, the oldest first

    def handle(self, operation: str, body: bytes) -> tuple[int, Document] | None:
        """HTTP status and document."""
        if operation in NOT_HERE:
            return _refusal("UnknownOperationException", f"The local stack has no {operation}; use FilterLogEvents.")
        if operation not in self._operations:
            return None
        try:
            asked = json.loads(body or b"{}")
            return 200, self._operations[operation](asked)
        except (LogsError, KeyError, TypeError, ValueError) as error:
            return refusal(operation, error)

    # -- groups and streams -------------------------------------------------------------------------------------

    def _create_group(self, asked: Document) -> Document:
        name = asked["logGroupName"]
        if not re.fullmatch(r"[.\-_/#A-Za-z0-9]{1,512}", name):
            raise LogsError("InvalidParameterException", f"The log group name {name!r} is invalid.")
        self._store.create_group(name)
        return {}

    def _delete_group(self, asked: Document) -> Document:
        self._store.delete_group(self._group_name(asked))
        return {}

    def _describe_groups(self, asked: Document) -> Document:
        prefix, pattern = asked.get("logGroupNamePrefix"), asked.get("logGroupNamePattern")
        found = [
            self._group_document(group)
            for name, group in sorted(self._store.groups.items())
            if name.startswith(prefix or "") and (pattern or "").lower() in name.lower()
        ]
        return _page("logGroups", found, asked, 50)

    def _list_groups(self, asked: Document) -> Document:
        pattern = asked.get("logGroupNamePattern") or ""
        found = [
            {"logGroupName": name, "logGroupArn": self._arn(name), "logGroupClass": "STANDARD"}
            for name in sorted(self._store.groups)
            if (name.startswith(pattern[1:]) if pattern.startswith("^") else pattern in name)
        ]
        return _page("logGroups", found, asked, 1000)

    def _group_document(self, group: Group) -> Document:
        document: Document = {
            "logGroupName": group.name,
            "creationTime": group.created_ms,
            "metricFilterCount": 0,
            "arn": self._arn(group.name) + ":*",
            "logGroupArn": self._arn(group.name),
            "storedBytes": sum(stream.bytes for stream in group.streams.values()),
            "logGroupClass": "STANDARD",
        }
        return document | ({"retentionInDays": group.retention_days} if group.retention_days else {})

    def _create_stream(self, asked: Document) -> Document:
        self._store.create_stream(self._group_name(asked), asked["logStreamName"])
        return {}

    def _delete_stream(self, asked: Document) -> Document:
        self._store.delete_stream(self._group_name(asked), asked["logStreamName"])
        return {}

    def _describe_streams(self, asked: Document) -> Document:
        group = self._store.group(self._group_name(asked))
        by_time = asked.get("orderBy") == "LastEventTime"
        if by_time and asked.get("logStreamNamePrefix"):
            raise LogsError("InvalidParameterException", "Cannot order by LastEventTime with a logStreamNamePrefix.")
        streams = [s for s in group.streams.values() if s.name.startswith(asked.get("logStreamNamePrefix") or "")]
        streams.sort(
            key=lambda s: ((s.events[-1].timestamp_ms if s.events else 0) if by_time else 0, s.name),
            reverse=bool(asked.get("descending")),
        )
        found = []
        for stream in streams:
            document: Document = {
                "logStreamName": stream.name,
                "creationTime": stream.created_ms,
                "arn": f"{self._arn(group.name)}:log-stream:{stream.name}",
                "storedBytes": 0,  # AWS has reported none for a stream since 2019
                "uploadSequenceToken": "49000000000000000000000000000000000000000000000000000000",
            }
            if stream.events:
                document["firstEventTimestamp"] = stream.events[0].timestamp_ms
                document["lastEventTimestamp"] = stream.events[-1].timestamp_ms
                document["lastIngestionTime"] = stream.last_ingested_ms
            found.append(document)
        return _page("logStreams", found, asked, 50)

    def _put_retention(self, asked: Document) -> Document:
        days = asked["retentionInDays"]
        if days not in _RETENTIONS:
            raise LogsError("InvalidParameterException", f"{days} is no retention in days; {_RETENTIONS} are.")
        self._store.group(self._group_name(asked)).retention_days = days
        self._store.expire()
        return {}

    def _delete_retention(self, asked: Document) -> Document:
        self._store.group(self._group_name(asked)).retention_days = None
        return {}

    # -- events -------------------------------------------------------------------------------------------------

    def _put_events(self, asked: Document) -> Document:
        events = [(int(event["timestamp"]), str(event["message"])) for event in asked["logEvents"]]
        sizes = [len(message.encode("utf-8", "replace")) + EVENT_OVERHEAD for _, message in events]
        if not events or len(events) > _MOST_PUT_EVENTS or sum(sizes) > _MOST_PUT_BYTES or max(sizes) > _LONGEST_EVENT:
            raise LogsError("InvalidParameterException", "Upload too large, or empty: 1 to 10000 events in 1 MiB.")
        if any(later[0] < earlier[0] for earlier, later in itertools.pairwise(events)):
            raise LogsError(
                "InvalidParameterException",
                "Log events in a single PutLogEvents request must be in chronological order.",
            )
        self._store.put(self._group_name(asked), asked["logStreamName"], events)
        return {"nextSequenceToken": "49000000000000000000000000000000000000000000000000000000"}

    def _get_events(self, asked: Document) -> Document:
        events, forward, backward = self._store.page(
            self._group_name(asked),
            asked["logStreamName"],
            start_ms=asked.get("startTime"),
            end_ms=asked.get("endTime"),
            limit=_limit(asked, 10_000),
            from_head=bool(asked.get("startFromHead")),
            token=asked.get("nextToken"),
        )
        told = [{"timestamp": e.timestamp_ms, "message": e.message, "ingestionTime": e.ingested_ms} for e in events]
        return {"events": told, "nextForwardToken": forward, "nextBackwardToken": backward}

    def _filter_events(self, asked: Document) -> Document:
        names, prefix = asked.get("logStreamNames"), asked.get("logStreamNamePrefix")
        if names and prefix:
            raise LogsError("InvalidParameterException", "logStreamNames and logStreamNamePrefix exclude each other.")
        start_ms, end_ms = asked.get("startTime"), asked.get("endTime")
        if start_ms is not None and end_ms is not None and start_ms > end_ms:
            raise LogsError("InvalidParameterException", "startTime must not be after endTime.")
        page, token = self._store.filter(
            self._group_name(asked),
            compile_pattern(asked.get("filterPattern") or ""),
            streams=names,
            prefix=prefix,
            start_ms=start_ms,
            end_ms=end_ms,
            limit=_limit(asked, 10_000),
            token=asked.get("nextToken"),
        )
        events = [
            {
                "logStreamName": stream,
                "timestamp": event.timestamp_ms,
                "message": event.message,
                "ingestionTime": event.ingested_ms,
                "eventId": event.event_id,
            }
            for stream, event in page
        ]
        return {"events": events, "searchedLogStreams": []} | ({"nextToken": token} if token else {})

    # -- Insights -----------------------------------------------------------------------------------------------

    def _start_query(self, asked: Document) -> Document:
        """Answers at once: a client sees Complete the first time it asks, where AWS may take a while."""
        if asked.get("queryLanguage", "CWLI") != "CWLI":
            raise LogsError("InvalidParameterException", "The local stack reads the query language CWLI alone.")
        named = [asked[name] for name in ("logGroupName", "logGroupNames", "logGroupIdentifiers") if asked.get(name)]
        if len(named) != 1:
            raise LogsError("InvalidParameterException", "Exactly one of the ways to name log groups is required.")
        groups = [self._named(each) for each in (named[0] if isinstance(named[0], list) else named)]
        start_s, end_s = int(asked["startTime"]), int(asked["endTime"])
        if start_s > end_s:
            raise LogsError("InvalidParameterException", "startTime must not be after endTime.")
        try:
            query = compile_query(asked["queryString"])
        except QueryError as error:
            raise LogsError("MalformedQueryException", str(error)) from error
        read: list[dict[str, Any]] = []
        scanned_bytes = 0
        for group in groups:
            token: str | None = None
            while True:
                page, token = self._store.filter(
                    group, lambda _: True, start_ms=start_s * 1000, end_ms=end_s * 1000 + 999, token=token
                )
                for stream, event in page:
                    scanned_bytes += event.size
                    times = event.timestamp_ms, event.ingested_ms
                    read.append(discovered(event.message, *times, f"{ACCOUNT_ID}:{group}", stream))
                if token is None:
                    break
        rows, matched = query.run(read, _limit(asked, MOST_ROWS))
        figures = {
            "recordsScanned": len(read), "recordsMatched": matched, "bytesScanned": scanned_bytes,
            "logGroupsScanned": len(groups), "resultCount": len(rows),
        }  # fmt: skip
        query_id = str(uuid.uuid4())
        now_ms = int(time.time() * 1000)
        self._queries[query_id] = Asked(
            asked["queryString"], groups[0], now_ms, rows, {name: float(value) for name, value in figures.items()}
        )
        while len(self._queries) > _KEPT_QUERIES:
            del self._queries[next(iter(self._queries))]
        return {"queryId": query_id}

    def _query(self, asked: Document) -> Asked:
        if asked["queryId"] not in self._queries:
            raise LogsError("ResourceNotFoundException", f"Unable to find a query with Id {asked['queryId']}.")
        return self._queries[asked["queryId"]]

    def _query_results(self, asked: Document) -> Document:
        query = self._query(asked)
        page = _page("results", query.rows, {**asked, "limit": asked.get("maxItems")}, MOST_ROWS)
        return {"queryLanguage": "CWLI", "status": "Complete", "statistics": query.statistics, **page}

    def _stop_query(self, asked: Document) -> Document:
        self._query(asked)
        raise LogsError("InvalidParameterException", f"The query {asked['queryId']} is not running; it is Complete.")

    def _describe_queries(self, asked: Document) -> Document:
        found = [
            {
                "queryId": query_id,
                "queryLanguage": "CWLI",
                "queryString": query.text,
                "status": "Complete",
                "createTime": query.created_ms,
                "logGroupName": query.group,
            }
            for query_id, query in reversed(self._queries.items())
            if asked.get("logGroupName") in (None, query.group) and asked.get("status") in (None, "Complete")
        ]
        return _page("queries", found, {**asked, "limit": asked.get("maxResults")}, 1000)

    def _group_name(self, asked: Document) -> str:
        """By name, or by ARN as logGroupIdentifier."""
        identifier = asked.get("logGroupName") or asked.get("logGroupIdentifier")
        if not isinstance(identifier, str):
            raise LogsError("InvalidParameterException", "Either logGroupName or logGroupIdentifier is required.")
        return self._named(identifier)

    @staticmethod
    def _named(identifier: str) -> str:
        return identifier.partition(":log-group:")[2].removesuffix(":*") if ":log-group:" in identifier else identifier

    def _arn(self, group: str) -> str:
        return f"arn:aws:logs:{self._region}:{ACCOUNT_ID}:log-group:{group}"


def _limit(asked: Document, most: int) -> int:
    limit = asked.get("limit") or most
    if not 1 <= limit <= most:
        raise LogsError("InvalidParameterException", f"limit must be 1 to {most}, got {limit}.")
    return int(limit)


def _page(name: str, found: Sequence[object], asked: Document, most: int) -> Document:
    start = int(asked.get("nextToken") or 0)
    end = start + _limit(asked, most)
    return {name: found[start:end]} | ({"nextToken": str(end)} if end < len(found) else {})


def refusal(operation: str, error: Exception) -> tuple[int, Document]:
    """HTTP status and document for what an operation raised: LogsError, PatternError, or what bad input raises."""
    if isinstance(error, LogsError):
        return _refusal(error.kind, str(error))
    if isinstance(error, PatternError):
        return _refusal("InvalidParameterException", str(error))
    return _refusal("InvalidParameterException", f"{operation} cannot be read: {type(error).__name__} {error}")


def _refusal(kind: str, message: str) -> tuple[int, Document]:
    return 400, {"__type": kind, "message": message}
