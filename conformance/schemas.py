"""What each revision prescribes of results and notifications, as JSON Schemas built from one table of differences.

Written from the specification's text and compared, member by member, with its schema.json (docs/conformance.md tells
how); it must hold no opinion that is not in the specification: an unknown member is always allowed.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import jsonschema

Schema = dict[str, Any]

REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28")
STRING: Schema = {"type": "string"}
URI: Schema = {"type": "string", "minLength": 1}
NUMBER: Schema = {"type": "number"}
INTEGER: Schema = {"type": "integer"}
BOOLEAN: Schema = {"type": "boolean"}
OBJECT: Schema = {"type": "object"}
ROLE: Schema = {"enum": ["assistant", "user"]}
LEVELS: Schema = {"enum": ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]}
TOKEN: Schema = {"type": ["string", "integer"]}
JUNE, NOVEMBER, MODERN = REVISIONS[2:]


def _object(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    schema = {"type": "object", "properties": {**required, **(optional or {})}}
    return {**schema, "required": list(required)} if required else schema


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _map(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}


class _Revision:
    """The schemas of one revision; each member that a later revision added is there from that revision on."""

    def __init__(self, revision: str) -> None:
        self.revision = revision
        self.modern = revision >= MODERN

    def since(self, revision: str, members: Mapping[str, Schema]) -> Mapping[str, Schema]:
        return members if self.revision >= revision else {}

    def result(
        self, required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, *, cacheable: bool = False
    ) -> Schema:
        """A result with what every result of the revision has; only these may be empty of anything else."""
        always = dict(required)
        if self.modern:
            always["resultType"] = {"const": "complete"}
        if self.modern and cacheable:
            always |= {"ttlMs": {"type": "integer", "minimum": 0}, "cacheScope": {"enum": ["private", "public"]}}
        meta = _object({}, {"io.modelcontextprotocol/serverInfo": self.implementation}) if self.modern else OBJECT
        return _object(always, {"_meta": meta, **(optional or {})})

    def asking(self, complete: Schema) -> Schema:
        """A result that may ask the client for input instead, as three methods may since 2026-07-28."""
        if not self.modern:
            return complete
        asks = _object({"resultType": STRING}, {"inputRequests": _map(OBJECT), "requestState": STRING, "_meta": OBJECT})
        return {"if": _object({"resultType": {"const": "input_required"}}), "then": asks, "else": complete}

    def page(self, member: str, item: Schema) -> Schema:
        return self.result({member: _list(item)}, {"nextCursor": STRING}, cacheable=True)

    @property
    def icon(self) -> Schema:
        return _object({"src": URI}, {"mimeType": STRING, "sizes": _list(STRING), "theme": {"enum": ["dark", "light"]}})

    @property
    def described(self) -> Mapping[str, Schema]:
        """What names a thing for people, and what the later revisions let every thing carry."""
        added = {**self.since(JUNE, {"title": STRING, "_meta": OBJECT})}
        return {"description": STRING, **added, **self.since(NOVEMBER, {"icons": _list(self.icon)})}

    @property
    def annotations(self) -> Schema:
        members = {"audience": _list(ROLE), "priority": {"type": "number", "minimum": 0, "maximum": 1}}
        return _object({}, {**members, **self.since(JUNE, {"lastModified": STRING})})

    @property
    def implementation(self) -> Schema:
        added = {"description": STRING, "websiteUrl": STRING, "icons": _list(self.icon)}
        return _object(
            {"name": STRING, "version": STRING},
            {**self.since(JUNE, {"title": STRING}), **self.since(NOVEMBER, added)},
        )

    @property
    def capabilities(self) -> Schema:
        changes = _object({}, {"listChanged": BOOLEAN})
        members = {
            "experimental": _map(OBJECT),
            "logging": OBJECT,
            "prompts": changes,
            "resources": _object({}, {"listChanged": BOOLEAN, "subscribe": BOOLEAN}),
            "tools": changes,
        }
        later = self.since("2025-03-26", {"completions": OBJECT})
        requests = _object({}, {"tools": _object({}, {"call": OBJECT})})
        tasks = {"tasks": _object({}, {"cancel": OBJECT, "list": OBJECT, "requests": requests})}
        added = tasks if self.revision == NOVEMBER else self.since(MODERN, {"extensions": _map(OBJECT)})
        return _object({}, {**members, **later, **added})

    @property
    def tool(self) -> Schema:
        dialect = self.since(NOVEMBER, {"$schema": STRING})
        older = {} if self.modern else {"properties": _map(OBJECT), "required": _list(STRING)}
        takes = _object({"type": {"const": "object"}}, {**older, **dialect})
        hints = ("readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")
        notes = _object({}, {"title": STRING, **dict.fromkeys(hints, BOOLEAN)})
        execution = _object({}, {"taskSupport": {"enum": ["forbidden", "optional", "required"]}})
        added = {
            **self.since("2025-03-26", {"annotations": notes}),
            **self.since(JUNE, {"outputSchema": _object({}, dialect) if self.modern else takes}),
            **({"execution": execution} if self.revision == NOVEMBER else {}),
        }
        return _object({"name": STRING, "inputSchema": takes}, {**self.described, **added})

    @property
    def contents(self) -> Schema:
        """What is in a resource: text or bytes."""
        optional = {"mimeType": STRING, **self.since(JUNE, {"_meta": OBJECT})}
        text, blob = _object({"uri": URI, "text": STRING}, optional), _object({"uri": URI, "blob": STRING}, optional)
        return {"anyOf": [text, blob]}

    @property
    def resource(self) -> Mapping[str, Schema]:
        return {"mimeType": STRING, "annotations": self.annotations, "size": INTEGER, **self.described}

    @property
    def block(self) -> Schema:
        """One content block."""
        optional = {"annotations": self.annotations, **self.since(JUNE, {"_meta": OBJECT})}
        data = {"data": STRING, "mimeType": STRING}
        kinds: dict[str, Schema] = {
            "text": _object({"text": STRING}, optional),
            "image": _object(data, optional),
            **self.since("2025-03-26", {"audio": _object(data, optional)}),
            "resource": _object({"resource": self.contents}, optional),
            **self.since(JUNE, {"resource_link": _object({"uri": URI, "name": STRING}, self.resource)}),
        }
        # One `if` per kind, so that a fault names the member at fault and not five alternatives.
        cases = [{"if": {"properties": {"type": {"const": kind}}}, "then": schema} for kind, schema in kinds.items()]
        return {"type": "object", "required": ["type"], "properties": {"type": {"enum": list(kinds)}}, "allOf": cases}

    @property
    def results(self) -> dict[str, Schema]:
        """Method -> schema of its result."""
        argument = _object({"name": STRING}, {**self.since(JUNE, {"title": STRING}), "description": STRING,
                                              "required": BOOLEAN})  # fmt: skip
        prompt = _object({"name": STRING}, {"arguments": _list(argument), **self.described})
        message = _object({"role": ROLE, "content": self.block})
        template = {"mimeType": STRING, "annotations": self.annotations, **self.described}
        structured = {} if self.modern else self.since(JUNE, {"structuredContent": OBJECT})
        values: Schema = {**_list(STRING), "maxItems": 100}
        completion = _object({"values": values}, {"total": INTEGER, "hasMore": BOOLEAN})
        found = {
            "tools/list": self.page("tools", self.tool),
            "tools/call": self.asking(self.result({"content": _list(self.block)}, {"isError": BOOLEAN, **structured})),
            "prompts/list": self.page("prompts", prompt),
            "prompts/get": self.asking(self.result({"messages": _list(message)}, {"description": STRING})),
            "resources/list": self.page("resources", _object({"uri": URI, "name": STRING}, self.resource)),
            "resources/templates/list": self.page(
                "resourceTemplates", _object({"uriTemplate": STRING, "name": STRING}, template)
            ),
            "resources/read": self.asking(self.result({"contents": _list(self.contents)}, cacheable=True)),
            "completion/complete": self.result({"completion": completion}),
        }
        if self.modern:
            versions = {"supportedVersions": _list(STRING), "capabilities": self.capabilities}
            return {**found, "server/discover": self.result(versions, {"instructions": STRING}, cacheable=True)}
        introduced = {"protocolVersion": STRING, "capabilities": self.capabilities, "serverInfo": self.implementation}
        empty = {"type": "object", "properties": {"_meta": OBJECT}}
        later = {"initialize": self.result(introduced, {"instructions": STRING}), "ping": empty}
        return {**found, **later, "logging/setLevel": empty}

    @property
    def notifications(self) -> dict[str, Schema]:
        """Method -> schema of its params, for the notifications a server sends."""
        meta = _object({}, {"io.modelcontextprotocol/subscriptionId": TOKEN}) if self.modern else OBJECT
        progress = {"total": NUMBER, **self.since("2025-03-26", {"message": STRING}), "_meta": meta}
        cancelled = {"requestId": TOKEN}
        optional = {"reason": STRING, "_meta": meta}
        return {
            "notifications/progress": _object({"progressToken": TOKEN, "progress": NUMBER}, progress),
            "notifications/message": _object({"level": LEVELS, "data": {}}, {"logger": STRING, "_meta": meta}),
            "notifications/cancelled": _object({}, {**cancelled, **optional})
            if self.revision == NOVEMBER
            else _object(cancelled, optional),
            "notifications/resources/updated": _object({"uri": URI}, {"_meta": meta}),
        }


@cache
def _validators(revision: str, kind: str) -> dict[str, jsonschema.Draft202012Validator]:
    schemas: dict[str, Schema] = getattr(_Revision(revision), kind)
    return {method: jsonschema.Draft202012Validator(schema) for method, schema in schemas.items()}


def result_fault(revision: str, method: str, result: object) -> str | None:
    """What is wrong with a result, in one sentence; None when nothing is, or the method has no schema here."""
    return _fault(_validators(revision, "results").get(method), f"The {method} result", result)


def notification_fault(revision: str, message: Mapping[str, object]) -> str | None:
    """What is wrong with a notification's params, in one sentence; None when nothing is."""
    method = str(message.get("method"))
    return _fault(_validators(revision, "notifications").get(method), f"A {method}", message.get("params"))


def is_known(revision: str, method: str) -> bool:
    """Whether the method's result, or the notification, has a schema in that revision."""
    return method in _validators(revision, "results") or method in _validators(revision, "notifications")


def _fault(validator: jsonschema.Draft202012Validator | None, what: str, value: object) -> str | None:
    # Sorted, so that the fault told is the same in every run.
    fault = next(iter(sorted(validator.iter_errors(value), key=lambda one: (len(one.path), str(one)))), None) if (
        validator) else None  # fmt: skip
    if fault is None:
        return None
    where = "/".join(map(str, fault.absolute_path)) or "its root"
    return f"{what} does not fit its schema at {where}: {fault.message[:300]}"
