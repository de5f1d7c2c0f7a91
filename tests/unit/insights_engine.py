"""A client of Logs Insights over events in memory, with the states a query goes through; the local stack reads it."""

from sam.local.insights import compile_query, discovered


def fields_of(event):
    return discovered(event.message, event.timestamp_ms, event.ingestion_ms, event.group, event.stream)


class Insights:
    """The client: StartQuery and GetQueryResults over `events`; a query is Running when first asked for."""

    def __init__(self, events, statuses=("Scheduled", "Running", "Complete")):
        self.events, self.statuses = [(event, fields_of(event)) for event in events], list(statuses)
        self.started, self.asked, self.stopped = [], {}, []

    def start_query(self, *, logGroupNames, startTime, endTime, queryString, limit):
        inside = [
            fields
            for event, fields in self.events
            if startTime <= event.timestamp_ms / 1000 <= endTime and event.group in logGroupNames
        ]
        self.started.append((queryString, compile_query(queryString).run(inside, limit)[0]))
        return {"queryId": str(len(self.started) - 1)}

    def get_query_results(self, *, queryId):
        self.asked[queryId] = self.asked.get(queryId, -1) + 1
        status = self.statuses[min(self.asked[queryId], len(self.statuses) - 1)]
        rows = self.started[int(queryId)][1] if status == "Complete" else []
        return {"status": status, "results": rows, "statistics": {"bytesScanned": 1e6}}

    def stop_query(self, *, queryId):
        self.stopped.append(queryId)
