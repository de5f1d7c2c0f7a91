"""Says a JSON record as one line for a person at a terminal; any other message stays as it came.

Pure. It must not hide what a record tells of a failure: members without a word of their own follow as name=value, and
only the bookkeeping below is left to `--output jsonl`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ops import records

# What every record repeats, or another line of the same invocation tells.
_BOOKKEEPING = frozenset(
    """timestamp time level message errorMessage msg requestId request_id function_request_id AWSRequestId logger
    service errorType exception_name taskName tenantId _aws""".split()
)
# What could move the cursor, colour the terminal, or turn the direction of the text around.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_STACKS = ("stackTrace", "stack_trace", "exception")


def readable(message: str) -> str:
    """The message as a person reads it; several lines where it carries a stack."""
    if not message.startswith("{"):
        return message
    match records.parse(message):
        case records.Report() as r:
            return f"REPORT {r.request_id} {_list(_report(r))}"
        case records.Start() as s:
            return f"START {s.request_id} version {s.version}" + (f", tenant {s.tenant}" if s.tenant else "")
        case records.End() as e:
            return f"END {e.request_id}"
        case records.InitStart() as i:
            return f"INIT_START {_list([i.initialization_type, i.runtime_version])}"
        case records.RestoreStart() as i:
            return f"RESTORE_START {i.runtime_version}"
        case records.InitReport() as i:
            return f"INIT_REPORT {_list([_ended(i.status, i.error_type), f'{i.init_ms:g} ms', i.initialization_type])}"
        case records.RestoreReport() as i:
            return f"RESTORE_REPORT {_list([_ended(i.status, i.error_type), f'{i.restore_ms:g} ms'])}"
        case records.RuntimeDone() as d:
            return f"DONE {d.request_id} {_list([_ended(d.status, d.error_type), _ms('', d.duration_ms)])}"
        case records.Logged() as logged if records.is_call(logged.fields):
            return f"CALL {logged.request_id} {_list(_call(logged.fields))}"
        case records.Logged() as logged:
            return _logged(logged)
        case records.Platform() as p:
            return f"{p.type} {json.dumps(p.fields, ensure_ascii=False)}"
    return message


def printable(text: str) -> str:
    """The text with what a terminal would obey and not show written out, as `\\x1b`; tabs and new lines stay."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _report(r: records.Report) -> Iterator[str | None]:
    yield _ended(r.status, r.error_type)
    yield f"{r.duration_ms:g} ms"
    yield _ms("billed", r.billed_ms)
    if r.max_memory_used_mb is not None and r.memory_size_mb is not None:
        yield f"{r.max_memory_used_mb:g} of {r.memory_size_mb:g} MB"
    yield _ms("init", r.init_ms)
    yield _ms("restore", r.restore_ms)


def _call(fields: Mapping[str, Any]) -> Iterator[str | None]:
    yield records.call_words(fields) if fields["outcome"] != "ok" else f"{fields['tool']} ok"
    if requirements := fields.get("requirements"):
        yield f"requirements {' '.join(map(str, requirements))}"
    yield _ms("install", fields.get("install_ms") or None)
    yield _ms("wall", fields.get("wall_ms"))
    yield _ms("CPU", fields.get("cpu_ms"))
    if fields.get("max_rss_mb") is not None:
        yield f"{fields['max_rss_mb']} MB"
    if fields.get("api_key_id"):
        yield f"key {fields['api_key_id']}"


def _logged(logged: records.Logged) -> str:
    says = ": ".join(filter(None, (logged.error_type, logged.message)))
    rest = (
        f"{name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in logged.fields.items()
        if name not in _BOOKKEEPING and name not in _STACKS and value not in (None, "", [])
    )
    head = " ".join(filter(None, (logged.level, logged.request_id, says, *rest)))
    return "\n".join([head, *_stack(logged.fields)])


def _stack(fields: Mapping[str, Any]) -> Iterator[str]:
    for name in _STACKS:
        told = fields.get(name)
        for part in told if isinstance(told, list) else [told] if told else []:
            yield from str(part).rstrip().split("\n")


def _ended(status: str | None, error_type: str | None) -> str | None:
    return " ".join(filter(None, (status, error_type))) or None


def _ms(name: str, value: float | None) -> str | None:
    return None if value is None else f"{name} {value:g} ms".strip()


def _list(parts: Any) -> str:
    return ", ".join(part for part in parts if part)
