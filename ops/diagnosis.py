"""Judges gathered facts: one small check for each trouble, each with what is wrong and the command that mends it.

Pure. It must not call a thing fine that was not seen: what could not be asked is `unknown`, with the reason.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Final, Literal

from ops.probes import PACKAGES, Facts
from ops.summary import SCARCE_HEADROOM

# REST API integrations end after 29 s unless a quota increase was granted (AWS docs, "API Gateway quotas").
GATEWAY_LIMIT_S: Final = 29.0
# What the interpreter needs after its own limit to kill, sweep and answer.
FLUSH_S: Final = 2.0
_ALWAYS_ON = ("process", "rlimits", "sweep", "wipe", "credentials", "audit-hook")
_RELEASED = {"CodeSha256": "code", "MemorySize": "memory", "Timeout": "timeout", "Environment": "environment"}
_LAYER_ARN = re.compile(r"arn:aws[\w-]*:lambda:[\w-]+:\d{12}:layer:[\w-]+:\d+")
_HARMLESS_ACTIONS = ("logs:", "xray:", "ec2:CreateNetworkInterface", "ec2:DescribeNetworkInterfaces",
                     "ec2:DeleteNetworkInterface")  # fmt: skip

type Level = Literal["ok", "wrong", "unknown"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's outcome; `mend` is a command or an instruction, empty when there is nothing to mend."""

    id: str
    level: Level
    says: str
    mend: str = ""

    def as_json(self) -> str:
        """One line of findings.jsonl."""
        return json.dumps({"schema": "ops-finding/1"} | asdict(self), ensure_ascii=False)


type Check = Callable[[Facts], Iterator[Finding]]


def diagnose(facts: Facts) -> list[Finding]:
    """Every finding of every check that has something to judge, in the order a call travels."""
    return [finding for check in CHECKS for finding in check(facts)]


def endpoint(f: Facts) -> Iterator[Finding]:
    """Does anybody answer, at this stage and path, with this key?"""
    a = f.environment
    if a is None:
        yield Finding("endpoint", "unknown", "No endpoint was given.", "set MCP_ENDPOINT_URL or give --endpoint URL")
    elif a.problem:
        yield Finding("endpoint", "wrong", f"{a.url} does not answer: {a.problem}.", "check the URL, DNS and network")
    elif a.status == 403 and "MissingAuthenticationToken" in f"{a.error_type}{a.message.replace(' ', '')}":
        yield Finding(
            "stage", "wrong", f"The gateway knows no such stage or path: {a.url} (403 Missing Authentication Token).",
            "the path is /{stage}/lambda/mcp/; list stages with "
            f"`aws apigateway get-stages --rest-api-id {_api(a.url)}`",
        )  # fmt: skip
    elif a.status in {401, 403}:
        given = "the key that was given" if f.key_given else "a call without a key"
        yield Finding(
            "key", "wrong", f"The gateway refuses {given} ({a.status} {a.message}).",
            "set MCP_API_KEY to a key of the stage's usage plan: `aws apigateway get-api-keys --include-values`",
        )  # fmt: skip
    elif a.status == 404:
        yield Finding("stage", "wrong", f"{a.url} is not there (404).", "check stage and path: /{stage}/lambda/mcp/")
    elif a.is_throttled:
        return  # `throttled` tells it
    elif a.status == 504:
        yield Finding("gateway-timeout", "wrong", "The gateway gave up waiting (504).", "python -m ops logs errors")
    elif a.status is not None and a.status >= 500:
        yield Finding(
            "function-fails", "wrong", f"The function fails or answers in no proxy shape ({a.status}).",
            "python -m ops logs errors --since 15m",
        )  # fmt: skip
    elif not a.is_good:
        yield Finding(
            "protocol", "wrong", f"{a.url} answers {a.status}, but not with our tools. {a.message}".strip(),
            "check that the URL ends in /lambda/mcp/ and that the deployed code is this project's",
        )  # fmt: skip
    else:
        yield Finding("endpoint", "ok", f"{a.url} answers in {a.elapsed_ms:.0f} ms.")


def throttled(f: Facts) -> Iterator[Finding]:
    """No call was refused for the rate or the quota of its key."""
    refused = [a for a in (f.environment, f.other_slash, f.imports) if a is not None and a.is_throttled]
    if any("limit exceeded" in a.message.lower() for a in refused):
        yield Finding(
            "throttled", "wrong", "The key's quota is used up (429 Limit Exceeded).",
            "wait for the next day, or raise it: P_QUOTA_DAY=N make apigw",
        )  # fmt: skip
    elif refused:
        yield Finding(
            "throttled", "wrong", f"The gateway throttles: 429 {refused[0].message}.".replace(" .", "."),
            "call less often, or raise the usage plan's rate limit: P_RATE_LIMIT=N P_BURST_LIMIT=N make apigw",
        )  # fmt: skip


def trailing_slash(f: Facts) -> Iterator[Finding]:
    """Both forms of the path work, without a redirect that drops the body."""
    if f.other_slash is None or f.environment is None or not f.environment.is_good or f.other_slash.is_throttled:
        return
    if f.other_slash.is_good:
        yield Finding("trailing-slash", "ok", "The path works with and without its trailing slash.")
    else:
        what = f.other_slash.status or f.other_slash.problem
        yield Finding(
            "trailing-slash", "wrong", f"{f.other_slash.url} answers {what}; only the other form of the path works.",
            "deploy sam/openapi.yaml with both paths: `make apigw`",
        )  # fmt: skip


def open_door(f: Facts) -> Iterator[Finding]:
    """An endpoint that wants a key refuses a call without one."""
    if f.without_key is not None and f.without_key.is_good:
        yield Finding(
            "open", "wrong", "A key was given, but the endpoint answers without one too.",
            "deploy with P_AUTH=api_key in etc/environment.sh: `make apigw`",
        )  # fmt: skip
    elif f.environment is not None and f.environment.is_good and not f.key_given and not _is_loopback(f.endpoint):
        yield Finding(
            "open", "wrong", "Anybody who knows the URL can run code: the endpoint answers without a key.",
            "deploy with P_AUTH=api_key in etc/environment.sh: `make apigw`",
        )  # fmt: skip


def libraries(f: Facts) -> Iterator[Finding]:
    """numpy, pandas and matplotlib are there and can be imported."""
    if f.imports is None or f.imports.is_throttled:
        return
    result = f.imports.result or {}
    if result.get("success"):
        yield Finding("libraries", "ok", f"{', '.join(PACKAGES)} can be imported.")
        return
    error = result.get("error") or {}
    why = error.get("message") or f.imports.message or f.imports.problem or f"status {f.imports.status}"
    layers = (f.function.value or {}).get("Layers") if f.function else None
    cause = "no layer is attached" if layers == [] else "the layer does not bring them for this runtime"
    yield Finding(
        "libraries", "wrong", f"Importing {', '.join(PACKAGES)} fails ({why}); {cause}.", "make layer && make apigw"
    )


def isolation(f: Facts) -> Iterator[Finding]:
    """The layers of confinement that hold everywhere are active; those that need the kernel are told."""
    info = f.environment.result if f.environment else None
    if not info or "confinement" not in info:
        return
    layers = {layer["name"]: layer for layer in info["confinement"]}
    off = [name for name in _ALWAYS_ON if not layers.get(name, {}).get("active")]
    if off:
        yield Finding(
            "isolation", "wrong", f"Layers of confinement that should always hold are off: {', '.join(off)}.",
            "redeploy this project's code: `make apigw`; look at get_environment_info for the reason",
        )  # fmt: skip
    else:
        without = [name for name, layer in layers.items() if not layer["active"]]
        told = f"; not available here: {', '.join(without)}" if without else ""
        yield Finding("isolation", "ok", f"{len(layers) - len(without)} layers of confinement are active{told}.")


def function_state(f: Facts) -> Iterator[Finding]:
    """The function exists, is active, and its last update went through."""
    if f.function is None:
        if f.asks_aws:
            yield Finding("function", "unknown", "No function was named.", "give --function NAME or set P_FN_NAME")
    elif f.function.refused:
        yield Finding(
            "function", "unknown", f"AWS does not let us look ({f.function.refused}).", _allow(f.function.refused)
        )
    elif f.function.value is None:
        yield Finding(
            "function", "wrong", f"There is no function {_name(f)} in this region.",
            "check --region and P_FN_NAME, or deploy: `make apigw`",
        )  # fmt: skip
    else:
        state, update = f.function.value.get("State", "Active"), f.function.value.get("LastUpdateStatus", "Successful")
        if state in {"Active", "Inactive"} and update != "Failed":
            says = f"{_name(f)} is {state.lower()}, last update {update.lower()}"
            yield Finding("function", "ok", f"{says}{_unreleased(f)}.")
        else:
            reason = (
                f.function.value.get("StateReason")
                or f.function.value.get("LastUpdateStatusReason")
                or "no reason given"
            )
            yield Finding(
                "function",
                "wrong",
                f"{_name(f)} is {state}, last update {update}: {reason.rstrip('.')}.",
                "`python -m ops logs errors` tells more; mend it and deploy again: `make apigw`",
            )


def _unreleased(f: Facts) -> str:
    """What was changed in $LATEST alone: somebody who did it waits for an effect that does not come."""
    served, latest = ((asked.value if asked else None) or {} for asked in (f.function, f.latest))
    names = [name for member, name in _RELEASED.items() if latest and served.get(member) != latest.get(member)]
    release = f"`make gate FUNCTION={f.function_name}`"
    return f"; $LATEST has another {', '.join(names)}, which a release brings: {release}" if names else ""


def layer_arns(f: Facts) -> Iterator[Finding]:
    """Each attached layer exists, names a version, and suits the runtime and architecture."""
    if f.function is None or f.function.value is None:
        return
    config = f.function.value
    for arn, asked in f.layers.items():
        if not _LAYER_ARN.fullmatch(arn):
            yield Finding(
                "layer-arn", "wrong", f"{arn} is no layer version ARN; it must end in a version number.",
                "aws lambda list-layer-versions --layer-name NAME",
            )  # fmt: skip
        elif asked.missing:
            yield Finding("layer-arn", "wrong", f"The layer {arn} does not exist any more.", "make layer && make apigw")
        elif asked.value is None:
            yield Finding("layer-arn", "unknown", f"{arn}: {asked.refused}.", _allow(asked.refused))
        else:
            runtimes, architectures = (
                asked.value.get(k) or [] for k in ("CompatibleRuntimes", "CompatibleArchitectures")
            )
            wanted = config.get("Runtime"), (config.get("Architectures") or ["x86_64"])[0]
            if (runtimes and wanted[0] not in runtimes) or (architectures and wanted[1] not in architectures):
                yield Finding(
                    "layer-arn", "wrong", f"{arn} is for {runtimes} {architectures}, the function is {wanted}.",
                    "make layer && make apigw",
                )  # fmt: skip
            else:
                yield Finding("layer-arn", "ok", f"{arn} exists and suits {wanted[0]} on {wanted[1]}.")


def timeouts(f: Facts) -> Iterator[Finding]:
    """interpreter limit + flush < gateway limit, and < function timeout: every slow call ends with a typed error."""
    info = f.environment.result if f.environment else None
    soft = (info or {}).get("limits", {}).get("timeout_s")
    hard = ((f.function.value if f.function else None) or {}).get("Timeout")
    if soft is not None and soft + FLUSH_S > GATEWAY_LIMIT_S:
        yield Finding(
            "timeout-gateway", "wrong",
            f"Code may run {soft:g} s, but the gateway gives up after {GATEWAY_LIMIT_S:g} s: callers get 504.",
            f"set the interpreter's limit to {GATEWAY_LIMIT_S - FLUSH_S - 2:g} s or less and deploy: `make apigw`",
        )  # fmt: skip
    elif soft is not None:
        yield Finding("timeout-gateway", "ok", f"Code may run {soft:g} s, within the gateway's {GATEWAY_LIMIT_S:g} s.")
    if soft is not None and hard is not None and hard < soft + FLUSH_S:
        yield Finding(
            "timeout-function", "wrong",
            f"The function's timeout of {hard} s comes before the interpreter's {soft:g} s: environments are lost.",
            f"P_FN_TIMEOUT={int(soft + FLUSH_S) + 1} make apigw",
        )  # fmt: skip
    elif soft is not None and hard is not None:
        yield Finding(
            "timeout-function", "ok", f"The function's timeout is {hard} s, above the interpreter's {soft:g} s."
        )


def concurrency(f: Facts) -> Iterator[Finding]:
    """Reserved concurrency does not throttle everything."""
    if f.concurrency is None:
        return
    if f.concurrency.value is None:
        yield Finding("concurrency", "unknown", f"{f.concurrency.refused}.", _allow(f.concurrency.refused))
        return
    reserved = f.concurrency.value.get("ReservedConcurrentExecutions")
    if reserved is None:
        yield Finding("concurrency", "ok", "No reserved concurrency: the account's pool is shared.")
        return
    peak = f.recent.invocations.peak_concurrency() if f.recent else 0
    if reserved == 0:
        yield Finding(
            "concurrency", "wrong", "Reserved concurrency is 0, so every call is throttled.",
            f"aws lambda delete-function-concurrency --function-name {f.function_name}",
        )  # fmt: skip
    elif peak >= reserved:
        yield Finding(
            "concurrency", "wrong", f"All {reserved} reserved environments were busy at once; more is throttled.",
            f"aws lambda put-function-concurrency --function-name {f.function_name} "
            f"--reserved-concurrent-executions {2 * reserved}",
        )  # fmt: skip
    else:
        yield Finding("concurrency", "ok", f"{reserved} reserved, at most {peak} in use.")


def gateway_permission(f: Facts) -> Iterator[Finding]:
    """API Gateway may invoke the function: shown by a good answer, else by the resource policy."""
    if f.policy is None or (f.environment is not None and f.environment.is_good):
        return
    if f.policy.refused:
        yield Finding("permission", "unknown", f"{f.policy.refused}.", _allow(f.policy.refused))
    elif "apigateway.amazonaws.com" not in str((f.policy.value or {}).get("Policy", "")):
        yield Finding("permission", "wrong", "The function's policy does not let API Gateway invoke it.", "make apigw")


def memory(f: Facts) -> Iterator[Finding]:
    """Recent invocations left room in memory, and none was cut off or killed."""
    if f.recent is None:
        return
    inv = f.recent.invocations
    if not len(inv):
        yield Finding("memory", "unknown", "No invocation in the range to judge memory by.", "give a longer --since")
        return
    size = int(inv.memory_size_mb[-1])
    peak = float(inv.max_memory_used_mb[inv.memory_size_mb == size].max())
    oom, timed_out = int((inv.outcomes == "oom").sum()), int((inv.outcomes == "timeout").sum())
    more = f"P_FN_MEMORY={min(10240, -(-int(peak * 1.5) // 64) * 64)} make apigw"
    if oom:
        yield Finding("memory", "wrong", f"{oom} of {len(inv)} invocations ran out of memory at {size} MB.", more)
    elif peak > size * (1 - SCARCE_HEADROOM):
        yield Finding("memory", "wrong", f"An invocation used {peak:.0f} of {size} MB: less than 10 % is left.", more)
    else:
        yield Finding("memory", "ok", f"At most {peak:.0f} of {size} MB used in {len(inv)} invocations.")
    if timed_out:
        yield Finding(
            "timed-out", "wrong", f"{timed_out} of {len(inv)} invocations were cut off by the function's timeout.",
            "python -m ops logs errors; python -m ops tune timeout",
        )  # fmt: skip


def log_group(f: Facts) -> Iterator[Finding]:
    """The log group exists, keeps its lines for a stated time, and the format is known."""
    if f.log_group is None:
        return
    if f.log_group.refused:
        yield Finding("log-group", "unknown", f"{f.log_group.refused}.", _allow(f.log_group.refused))
        return
    if f.log_group.value is None:
        yield Finding(
            "log-group", "wrong", "The function has no log group: it never ran, or its role may not write logs.",
            "call it once; check that the role allows logs:CreateLogStream and logs:PutLogEvents",
        )  # fmt: skip
        return
    name, days = f.log_group.value["logGroupName"], f.log_group.value.get("retentionInDays")
    if days:
        yield Finding("log-retention", "ok", f"{name} keeps its lines {days} days.")
    else:
        yield Finding(
            "log-retention", "wrong", f"{name} keeps its lines for ever, and bills for them.",
            f"aws logs put-retention-policy --log-group-name {name} --retention-in-days 30",
        )  # fmt: skip
    told = ((f.function.value if f.function else None) or {}).get("LoggingConfig", {}).get("LogFormat")
    if told:
        yield Finding("log-format", "ok", f"Log format {told}.")


def role(f: Facts) -> Iterator[Finding]:
    """The role allows logs and nothing that code running in the function should reach."""
    if f.role_actions is None:
        return
    if f.role_actions.value is None:
        why = f.role_actions.refused or "the role was not found"
        yield Finding("role", "unknown", f"{why}.", _allow(f.role_actions.refused))
        return
    config = (f.function.value if f.function else None) or {}
    wide = {a: p for a, p in f.role_actions.value.items() if not str(a).startswith(_HARMLESS_ACTIONS)}
    if wide:
        listed = ", ".join(f"{action} ({policy})" for action, policy in sorted(wide.items())[:5])
        yield Finding(
            "role", "wrong", f"The role allows more than logs, to any code that gets hold of it: {listed}.",
            "remove those policies; the template's own role is enough: `make apigw`",
        )  # fmt: skip
    elif f.role_actions.value:
        yield Finding("role", "ok", "The role allows logs and nothing else.")
    else:
        yield Finding(
            "role", "unknown", "AWS shows no policy on the role.",
            f"aws iam list-role-policies --role-name {str(config.get('Role', 'ROLE')).rpartition('/')[2]}",
        )  # fmt: skip


def bucket(f: Facts) -> Iterator[Finding]:
    """The bucket that deployments upload code and layer to is there, ours, and where the function is."""
    if f.bucket is None:
        return
    if f.bucket.missing:
        yield Finding(
            "bucket", "wrong", f"BUCKET names {f.bucket_name}, which does not exist, so nothing can be deployed.",
            f"aws s3 mb s3://{f.bucket_name}, or leave BUCKET out and SAM makes one of its own",
        )  # fmt: skip
    elif f.bucket.value is None:
        yield Finding(
            "bucket", "wrong", f"These credentials may not use {f.bucket_name}, named by BUCKET ({f.bucket.refused}).",
            "allow your user s3:ListBucket, s3:GetObject and s3:PutObject on it, or name a bucket of your own",
        )  # fmt: skip
    elif (there := f.bucket.value.get("BucketRegion") or f.region) != f.region:
        yield Finding(
            "bucket", "wrong", f"The bucket {f.bucket_name} is in {there}; Lambda takes code from {f.region} alone.",
            f"aws s3 mb s3://NAME --region {f.region}, and name that as BUCKET",
        )  # fmt: skip
    else:
        yield Finding("bucket", "ok", f"The bucket {f.bucket_name} is there; that it may be written to was not tried.")


def _name(f: Facts) -> str:
    return f"{f.function_name}:{f.qualifier}" if f.qualifier else str(f.function_name)


def _api(url: str) -> str:
    """The id of the REST API in its own host name."""
    found = re.match(r"https://(\w+)\.execute-api\.", url)
    return found[1] if found else "ID"


def _allow(refused: str | None) -> str:
    return f"allow your user {refused.partition(':')[0]}" if refused else ""


def _is_loopback(url: str | None) -> bool:
    return bool(url and re.match(r"https?://(127\.0\.0\.1|localhost|\[::1\])[:/]", url))


CHECKS: tuple[Check, ...] = (
    endpoint,
    throttled,
    trailing_slash,
    open_door,
    libraries,
    isolation,
    function_state,
    layer_arns,
    gateway_permission,
    timeouts,
    concurrency,
    memory,
    log_group,
    role,
    bucket,
)
