"""Lambda's functions as its API knows them: configuration, versions, aliases, concurrency; calls run in their pools.

It knows no HTTP and starts no process itself. Time and delay are given, so that an update's way from InProgress to
Successful can be tested. Behaviour: https://docs.aws.amazon.com/lambda/latest/api/
"""

import asyncio
import base64
import contextlib
import hashlib
import io
import json
import random
import re
import secrets
import shutil
import tempfile
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .environment import Environment, Outcome
from .logs import runtime_arn
from .policy import Policy, PolicyError
from .pool import LATEST, Pool
from .stack import MEMORY_MB, TIMEOUT_S, Stack

SETTLE_S = 0.2  # how long an update stays InProgress; on AWS it is seconds
ACCOUNT_CONCURRENCY = 1000
UNRESERVED_AT_LEAST = 100
DEFAULT_CONCURRENCY = 10  # environments at once on this machine, where nothing says otherwise
MOST_VARIABLE_BYTES = 4096
_RESERVED_VARIABLES = frozenset(
    """_HANDLER _X_AMZN_TRACE_ID AWS_DEFAULT_REGION AWS_REGION AWS_EXECUTION_ENV AWS_LAMBDA_FUNCTION_NAME
    AWS_LAMBDA_FUNCTION_MEMORY_SIZE AWS_LAMBDA_FUNCTION_VERSION AWS_LAMBDA_INITIALIZATION_TYPE
    AWS_LAMBDA_LOG_GROUP_NAME AWS_LAMBDA_LOG_STREAM_NAME AWS_ACCESS_KEY AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
    AWS_SESSION_TOKEN AWS_LAMBDA_RUNTIME_API LAMBDA_TASK_ROOT LAMBDA_RUNTIME_DIR""".split()
)
# Settings of a function that nothing here would follow; taken silently, a test would pass that fails on AWS.
_NOT_PLAYED = ("DeadLetterConfig", "FileSystemConfigs", "ImageConfig", "KMSKeyArn", "RuntimeConfig")
_ALIAS = re.compile(r"(?!^[0-9]+$)[a-zA-Z0-9_-]{1,128}")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_MISMATCH = (
    "The Revision Id provided does not match the latest Revision Id. "
    "Call the GetFunction/GetAlias API to retrieve the latest Revision Id"
)

Document = dict[str, Any]


class LambdaError(Exception):
    """A refusal of Lambda's API: HTTP status, its exception's name, and the message."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Clock:
    """`now` in seconds since the epoch; `later` calls a function after so many seconds."""

    now: Callable[[], float]
    later: Callable[[float, Callable[[], None]], object]


@dataclass(slots=True)
class Code:
    """A directory of code, and what the API tells of the archive it would be."""

    directory: Path
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    is_ours: bool = False  # unpacked by us, so removed by us
    _archive: bytes | None = None

    @property
    def archive(self) -> bytes:
        if self._archive is None:
            self._archive = zipped(self.directory)
        return self._archive

    @property
    def sha256(self) -> str:
        return base64.b64encode(hashlib.sha256(self.archive).digest()).decode()


@dataclass(slots=True)
class Version:
    """One version: what it runs with, and what the API tells of it."""

    stack: Stack
    code: Code
    description: str
    modified_s: float
    revision_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    state: str = "Active"
    state_reason: str = ""
    state_reason_code: str = ""
    last_update: str = "Successful"


@dataclass(slots=True)
class Alias:
    """A name for a version; `weights` sends a share of its calls to other versions."""

    name: str
    version: str
    description: str = ""
    weights: dict[str, float] = field(default_factory=dict)
    revision_id: str = field(default_factory=lambda: str(uuid.uuid4()))


class Function:
    """One function with all its versions.

    `most` is the machine's own limit, None for what the function asks for; new code is unpacked below `scratch`.
    """

    def __init__(
        self,
        stack: Stack,
        role: str,
        code: Code,
        make_pool: Callable[[Stack, int], Pool],
        clock: Clock,
        *,
        scratch: Path,
        most: int | None = None,
        description: str = "",
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.name = stack.function_name
        self.role = role
        self.latest = Version(stack, code, description, clock.now())
        self.versions: dict[str, Version] = {}
        self.aliases: dict[str, Alias] = {}
        self.pool = make_pool(stack, most or max(DEFAULT_CONCURRENCY, stack.reserved_concurrency or 0))
        self._scratch = scratch
        self._most = most
        self._clock = clock
        self._draw = draw
        self._provisioned: dict[str, tuple[int, float]] = {}  # by qualifier: how many, since when
        self._published = 0
        self._published_revision = ""
        self.snapshot: asyncio.Task[Environment] | None = None  # of the version published last
        self._policies: dict[str | None, Policy] = {}  # by qualifier
        for each in stack.permissions:
            asked = {"StatementId": each.statement_id, "Action": each.action, "Principal": each.principal}
            self._policy(each.qualifier).add(asked | {"SourceArn": each.source_arn}, self._arn_of(each.qualifier))

    @property
    def arn(self) -> str:
        return self.latest.stack.function_arn

    # -- calls --------------------------------------------------------------------------------------------------

    async def invoke(
        self,
        payload: bytes,
        *,
        qualifier: str | None = None,
        trace_id: str = "",
        request_id: str | None = None,
        client_context: str = "",
        tenant: str | None = None,
    ) -> Outcome:
        """Run one event in the version that `qualifier` names. Raises LambdaError, Throttled and LaunchError."""
        version = self.version_of(qualifier)
        if version.state in ("Pending", "Failed"):
            raise LambdaError(
                409,
                "ResourceConflictException",
                f"The operation cannot be performed at this time. The function is currently in the following state: "
                f"{version.state}: {self._arn_of(qualifier)}",
            )
        self._check_tenant(version.stack, tenant)
        return await self.pool.invoke(
            payload,
            version=version.stack.version,
            trace_id=trace_id,
            request_id=request_id,
            client_context=client_context,
            arn=self._arn_of(qualifier),
            tenant=tenant,
        )

    def version_of(self, qualifier: str | None) -> Version:
        """The version that a number, an alias (by its weights) or nothing stands for. Raises LambdaError."""
        if qualifier is None or qualifier == LATEST:
            return self.latest
        alias = self.aliases.get(qualifier)
        number = qualifier if alias is None else self._routed(alias)
        if number == LATEST:
            return self.latest
        if number not in self.versions:
            raise not_found(self._arn_of(qualifier))
        return self.versions[number]

    def _routed(self, alias: Alias) -> str:
        drawn = self._draw()
        for version, weight in alias.weights.items():
            if drawn < weight:
                return version
            drawn -= weight
        return alias.version

    def _arn_of(self, qualifier: str | None) -> str:
        return f"{self.arn}:{qualifier}" if qualifier else self.arn

    @staticmethod
    def _check_tenant(stack: Stack, tenant: str | None) -> None:
        if stack.per_tenant and not tenant:
            raise invalid(
                "The invoked function is enabled with tenancy configuration. "
                "Add a valid tenant ID in your request and try again."
            )
        if tenant and not stack.per_tenant:
            raise invalid(
                "The invoked function is not enabled with tenancy configuration. "
                "Remove the tenant ID in your request and try again."
            )

    # -- configuration ------------------------------------------------------------------------------------------

    def configuration(self, qualifier: str | None = None) -> Document:
        """FunctionConfiguration, as GetFunctionConfiguration answers it."""
        version = self.version_of(qualifier)
        stack = version.stack
        arn = self.arn if qualifier is None else self._arn_of(qualifier)
        logging_config: Document = {"LogFormat": stack.log_format, "LogGroup": stack.log_group}
        if stack.log_format == "JSON":
            logging_config["ApplicationLogLevel"] = stack.application_log_level or "INFO"
            logging_config["SystemLogLevel"] = stack.system_log_level
        document: Document = {
            "FunctionName": self.name,
            "FunctionArn": arn,
            "Runtime": stack.runtime,
            "Role": self.role,
            "Handler": stack.handler,
            "CodeSize": len(version.code.archive),
            "Description": version.description,
            "Timeout": stack.timeout_s,
            "MemorySize": stack.memory_mb,
            "LastModified": _stamp(version.modified_s),
            "CodeSha256": version.code.sha256,
            "Version": stack.version,
            "TracingConfig": {"Mode": "Active" if stack.tracing else "PassThrough"},
            "RevisionId": version.revision_id,
            "State": version.state,
            "PackageType": "Zip",
            "Architectures": [stack.architecture],
            "EphemeralStorage": {"Size": stack.ephemeral_mb},
            "SnapStart": {
                "ApplyOn": "PublishedVersions" if stack.snap_start else "None",
                "OptimizationStatus": "On" if stack.snap_start and stack.version != LATEST else "Off",
            },
            "RuntimeVersionConfig": {"RuntimeVersionArn": runtime_arn(stack.region)},
            "LoggingConfig": logging_config,
        }
        if stack.environment:
            document["Environment"] = {"Variables": dict(stack.environment)}
        if stack.layers:
            document["Layers"] = [{"Arn": arn} for arn in stack.layers]
        if stack.per_tenant:
            document["TenancyConfig"] = {"TenantIsolationMode": "PER_TENANT"}
        if version.state == "Pending":
            document |= {"StateReason": "The function is being created.", "StateReasonCode": "Creating"}
        elif version.state == "Failed":
            document |= {"StateReason": version.state_reason, "StateReasonCode": version.state_reason_code}
        elif version is self.latest:  # a version is never updated
            document["LastUpdateStatus"] = version.last_update
        return document

    def update_configuration(self, change: Mapping[str, Any]) -> Document:
        """Take over the members that are given. Raises LambdaError."""
        self._may_change(self.latest.revision_id, change.get("RevisionId"))
        stack = changed(self.latest.stack, change)
        self.role = change.get("Role") or self.role
        if "Description" in change:
            self.latest.description = change["Description"]
        self._update(stack, self.latest.code)
        return self.configuration()

    def update_code(self, change: Mapping[str, Any]) -> Document:
        """Run other code from now on. Raises LambdaError for what is no archive."""
        self._may_change(self.latest.revision_id, change.get("RevisionId"))
        code = unpacked(change, self._scratch)
        if change.get("DryRun"):
            shutil.rmtree(code.directory, ignore_errors=True)
            return self.configuration()
        self._update(replace(self.latest.stack, code_dir=code.directory), code)
        return self.publish({}) if change.get("Publish") else self.configuration()

    def _update(self, stack: Stack, code: Code) -> None:
        latest = self.latest
        latest.stack, latest.code = stack, code
        latest.modified_s, latest.revision_id, latest.last_update = self._clock.now(), str(uuid.uuid4()), "InProgress"

        def settle() -> None:
            latest.last_update = "Successful"
            self.pool.reconfigure(stack)

        self._clock.later(SETTLE_S, settle)

    def _may_change(self, revision_id: str, expected: str | None) -> None:
        busy = None
        if self.latest.state == "Pending":
            busy = "The function is currently in the following state: Pending"
        elif self.latest.last_update == "InProgress":
            busy = f"An update is in progress for resource: {self.arn}"
        if busy:
            message = f"The operation cannot be performed at this time. {busy}"
            raise LambdaError(409, "ResourceConflictException", message)
        if expected is not None and expected != revision_id:
            raise LambdaError(412, "PreconditionFailedException", _MISMATCH)

    # -- versions and aliases -----------------------------------------------------------------------------------

    def publish(self, asked: Mapping[str, Any]) -> Document:
        """Make a version of $LATEST; the last one again when nothing has changed since. Raises LambdaError.

        A description that is asked for makes no difference by itself, only one that was written to $LATEST does: AWS
        answers with the version that is there, and with its description
        (https://docs.aws.amazon.com/lambda/latest/api/API_PublishVersion.html; emulators' tests that ran on AWS agree).
        """
        self._may_change(self.latest.revision_id, asked.get("RevisionId"))
        latest = self.latest
        if asked.get("CodeSha256") not in (None, latest.code.sha256):
            raise invalid(
                f"CodeSHA256 ({asked['CodeSha256']}) is different from current CodeSHA256 in $LATEST "
                f"({latest.code.sha256}). Please try again with the CodeSHA256 in $LATEST."
            )
        if str(self._published) in self.versions and self._published_revision == latest.revision_id:
            return self.configuration(str(self._published))
        return self.configuration(self._publish(asked.get("Description")))

    def _publish(self, description: str | None) -> str:
        latest = self.latest
        self._published += 1
        self._published_revision = latest.revision_id
        number = str(self._published)
        version = Version(
            replace(latest.stack, version=number), latest.code, description or latest.description, self._clock.now()
        )
        self.versions[number] = version
        self.pool.reconfigure(version.stack)
        version.state = "Pending"

        def active() -> None:
            version.state = "Active"

        def taken(snapshot: asyncio.Task[Environment]) -> None:
            if not snapshot.cancelled():
                _settle_by(snapshot, version)

        if not version.stack.snap_start:
            self._clock.later(SETTLE_S, active)
        else:
            self.snapshot = self.pool.take_snapshot(number)
            self.snapshot.add_done_callback(taken)
        return number

    def publish_with_creation(self) -> Document:
        """CreateFunction with Publish: version 1 from the start, told with the function's own ARN as on AWS."""
        return self.configuration(self._publish(None)) | {"FunctionArn": self.arn}

    def delete_version(self, number: str) -> None:
        """Raises LambdaError for $LATEST, for an alias, and while an alias stands for it."""
        if number in self.aliases:
            raise invalid("Deletion of aliases is not currently supported.")
        if number == LATEST:
            raise invalid("$LATEST version cannot be deleted without deleting the function.")
        using = [alias.name for alias in self.aliases.values() if number in (alias.version, *alias.weights)]
        if using:
            raise LambdaError(
                409,
                "ResourceConflictException",
                f"Version {number} of function {self.name} cannot be deleted: alias {using[0]} refers to it.",
            )
        if self.versions.pop(number, None) is not None:
            self.pool.remove(number)

    def create_alias(self, asked: Mapping[str, Any]) -> Document:
        """Raises LambdaError for a bad name, a version that is not there, or an alias that is."""
        name = asked.get("Name", "")
        if not _ALIAS.fullmatch(name):
            raise validation("name", name, r"regular expression pattern: (?!^[0-9]+$)([a-zA-Z0-9-_]+)")
        if name in self.aliases:
            raise LambdaError(409, "ResourceConflictException", f"Alias already exists: {self.arn}:{name}")
        alias = Alias(name, self._existing(asked.get("FunctionVersion", "")), asked.get("Description", ""))
        alias.weights = self._weights(asked, alias.version)
        self.aliases[name] = alias
        return self.alias_document(alias)

    def update_alias(self, name: str, change: Mapping[str, Any]) -> Document:
        """Raises LambdaError."""
        alias = self.alias(name)
        if change.get("RevisionId") not in (None, alias.revision_id):
            raise LambdaError(412, "PreconditionFailedException", _MISMATCH)
        moved = alias.version
        version = self._existing(change.get("FunctionVersion", moved))
        if "RoutingConfig" in change:
            alias.weights = self._weights(change, version)
        alias.version = version
        alias.description = change.get("Description", alias.description)
        alias.revision_id = str(uuid.uuid4())
        if name in self._provisioned and moved != alias.version:
            self.pool.provision(moved, 0)
            self.pool.provision(alias.version, self._provisioned[name][0])
        return self.alias_document(alias)

    def delete_alias(self, name: str) -> None:
        """Deleting one that is not there is no error, as on AWS."""
        if name in self.aliases:
            if name in self._provisioned:
                self.remove_provisioned(name)
            del self.aliases[name]

    def alias(self, name: str) -> Alias:
        """Raises LambdaError when there is none."""
        if name not in self.aliases:
            raise LambdaError(404, "ResourceNotFoundException", f"Cannot find alias arn: {self.arn}:{name}")
        return self.aliases[name]

    def alias_document(self, alias: Alias) -> Document:
        document: Document = {
            "AliasArn": f"{self.arn}:{alias.name}",
            "Name": alias.name,
            "FunctionVersion": alias.version,
            "Description": alias.description,
            "RevisionId": alias.revision_id,
        }
        if alias.weights:
            document["RoutingConfig"] = {"AdditionalVersionWeights": alias.weights}
        return document

    def _existing(self, number: str) -> str:
        if number != LATEST and number not in self.versions:
            raise not_found(f"{self.arn}:{number}")
        return number

    def _weights(self, asked: Mapping[str, Any], version: str) -> dict[str, float]:
        """The second version of an alias of `version` and its share. Raises LambdaError for what AWS does not route."""
        weights = (asked.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or {}
        if len(weights) > 1:
            raise invalid("Number of items in AdditionalVersionWeights cannot be greater than 1")
        for number, weight in weights.items():
            if not 0 <= weight <= 1:
                constraint = "value less than or equal to 1.0 and greater than or equal to 0.0"
                raise validation("routingConfig.additionalVersionWeights", f"{{{number}={weight}}}", constraint)
            if number == version:
                raise invalid(
                    f"Invalid function version {version}. "
                    f"Function version {version} is already included in routing configuration."
                )
            if LATEST in (version, number):
                raise invalid("$LATEST is not supported for an alias pointing to more than 1 version")
            self._existing(number)
        return dict(weights)

    # -- concurrency --------------------------------------------------------------------------------------------

    def put_concurrency(self, asked: Mapping[str, Any]) -> Document:
        """Reserve concurrency. Raises LambdaError when the account would keep too little."""
        wanted = asked.get("ReservedConcurrentExecutions")
        if not isinstance(wanted, int) or wanted < 0:
            raise validation("reservedConcurrentExecutions", wanted, "value greater than or equal to 0")
        if ACCOUNT_CONCURRENCY - wanted < UNRESERVED_AT_LEAST:
            raise invalid(
                "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution "
                f"below its minimum value of [{UNRESERVED_AT_LEAST}]."
            )
        self._reserve(wanted)
        return self.concurrency()

    def delete_concurrency(self) -> None:
        self._reserve(None)

    def concurrency(self) -> Document:
        """Empty when none is reserved, as on AWS."""
        return {} if self.pool.reserved is None else {"ReservedConcurrentExecutions": self.pool.reserved}

    def _reserve(self, wanted: int | None) -> None:
        self.pool.reserve(wanted)
        self.pool.most = self._most or max(DEFAULT_CONCURRENCY, wanted or 0)

    def put_provisioned(self, qualifier: str | None, asked: Mapping[str, Any]) -> Document:
        """Keep environments ready for an alias or version. Raises LambdaError."""
        version = self._provisionable(qualifier)
        wanted = asked.get("ProvisionedConcurrentExecutions")
        if not isinstance(wanted, int) or wanted < 1:
            raise validation("provisionedConcurrentExecutions", wanted, "value greater than or equal to 1")
        room = self.pool.most if self.pool.reserved is None else min(self.pool.most, self.pool.reserved)
        if wanted > room:
            raise invalid(
                f"Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for "
                f"function: {wanted} are asked for, {room} can run at once here."
            )
        assert qualifier is not None
        self._provisioned[qualifier] = (wanted, self._clock.now())
        self.pool.provision(version.stack.version, wanted)
        return self.provisioned(qualifier)

    def remove_provisioned(self, qualifier: str) -> None:
        number = self.version_of(qualifier).stack.version
        if self._provisioned.pop(qualifier, None) is not None:
            self.pool.provision(number, 0)

    def provisioned(self, qualifier: str) -> Document:
        """Raises LambdaError when the qualifier has none."""
        if qualifier not in self._provisioned:
            raise LambdaError(
                404,
                "ProvisionedConcurrencyConfigNotFoundException",
                "No Provisioned Concurrency Config found for this function",
            )
        wanted, since_s = self._provisioned[qualifier]
        allocated, idle = self.pool.provisioned(self.version_of(qualifier).stack.version)
        return {
            "RequestedProvisionedConcurrentExecutions": wanted,
            "AllocatedProvisionedConcurrentExecutions": allocated,
            "AvailableProvisionedConcurrentExecutions": idle,
            "Status": "READY" if allocated >= wanted else "IN_PROGRESS",
            "LastModified": _stamp(since_s),
        }

    def all_provisioned(self) -> list[Document]:
        return [{"FunctionArn": self._arn_of(q), **self.provisioned(q)} for q in sorted(self._provisioned)]

    def _provisionable(self, qualifier: str | None) -> Version:
        if qualifier is None or qualifier == LATEST:
            raise invalid("Provisioned Concurrency Configs cannot be applied to unpublished function versions.")
        version = self.version_of(qualifier)
        if version is self.latest:
            raise invalid("Alias with a $LATEST version cannot be used with provisioned concurrency.")
        if version.stack.snap_start:
            raise invalid("ProvisionedConcurrencyConfig is not supported for SnapStart-enabled functions.")
        if version.stack.per_tenant:
            raise invalid("ProvisionedConcurrencyConfig is not supported for functions with tenant isolation.")
        return version

    # -- who may call -------------------------------------------------------------------------------------------

    def _policy(self, qualifier: str | None) -> Policy:
        return self._policies.setdefault(qualifier, Policy())

    def policy(self, qualifier: str | None) -> Document:
        """Raises LambdaError for what is not there, and where nothing is allowed."""
        self.version_of(qualifier)
        with _told():
            return self._policy(qualifier).document()

    def add_permission(self, qualifier: str | None, asked: Mapping[str, Any]) -> Document:
        """Raises LambdaError."""
        self.version_of(qualifier)
        with _told():
            statement = self._policy(qualifier).add(asked, self._arn_of(qualifier))
        return {"Statement": json.dumps(statement)}

    def remove_permission(self, qualifier: str | None, sid: str) -> None:
        """Raises LambdaError."""
        self.version_of(qualifier)
        with _told():
            self._policy(qualifier).remove(sid)

    def lets_gateway(self, qualifier: str | None, method_arn: str) -> bool:
        """Whether API Gateway may invoke the function by this qualifier from one of its methods."""
        policy = self._policies.get(qualifier)
        return policy is not None and policy.lets_gateway(method_arn)

    async def close(self) -> None:
        await self.pool.close()
        for code in {id(v.code): v.code for v in (self.latest, *self.versions.values())}.values():
            if code.is_ours:
                shutil.rmtree(code.directory, ignore_errors=True)


class Functions:
    """The functions of the account: the stack's own, and those made through the API, which run on its layer."""

    def __init__(
        self, make_pool: Callable[[Stack, int], Pool], clock: Clock, scratch: Path, most: int | None = None
    ) -> None:
        self.all: dict[str, Function] = {}
        self._scratch = scratch
        self._make_pool = make_pool
        self._clock = clock
        self._most = most

    def add(self, stack: Stack, role: str) -> Function:
        """The function of a template."""
        function = self._function(stack, role, Code(stack.code_dir))
        self.all[stack.function_name] = function
        return function

    def _function(self, stack: Stack, role: str, code: Code, description: str = "") -> Function:
        return Function(
            stack, role, code, self._make_pool, self._clock,
            scratch=self._scratch, most=self._most, description=description,
        )  # fmt: skip

    def create(self, asked: Mapping[str, Any], template: Stack) -> Document:
        """A function of its own from an archive; `template` gives the region and the runtime. Raises LambdaError."""
        name = asked.get("FunctionName", "")
        if not _NAME.fullmatch(name):
            raise validation("functionName", name, "regular expression pattern: [a-zA-Z0-9-_]+")
        if name in self.all:
            raise LambdaError(409, "ResourceConflictException", f"Function already exist: {name}")
        if asked.get("Runtime") != template.runtime:
            raise invalid(f"The local stack runs {template.runtime} alone, not {asked.get('Runtime')}.")
        base = replace(
            template,
            function_name=name,
            memory_mb=128,
            timeout_s=3,
            environment={},
            log_group=f"/aws/lambda/{name}",
            log_format="Text",
            log_retention_days=None,
            reserved_concurrency=None,
            tracing=False,
            ephemeral_mb=512,
            snap_start=False,
            permissions=(),
            layers=template.layers if asked.get("Layers") else (),
            per_tenant=(asked.get("TenancyConfig") or {}).get("TenantIsolationMode") == "PER_TENANT",
        )
        code = unpacked(asked.get("Code") or {}, self._scratch)
        try:
            stack = changed(replace(base, code_dir=code.directory), asked)
        except LambdaError:
            shutil.rmtree(code.directory, ignore_errors=True)
            raise
        description = asked.get("Description", "")
        role = str(asked.get("Role", ""))
        function = self._function(stack, role, code, description)
        function.latest.state = "Pending"
        self.all[name] = function

        def settle() -> None:
            function.latest.state = "Active"

        self._clock.later(SETTLE_S, settle)
        return function.publish_with_creation() if asked.get("Publish") else function.configuration()

    def find(self, name: str) -> tuple[Function, str | None]:
        """The function of a name, partial ARN or ARN, and the qualifier in it. Raises LambdaError."""
        parts = name.split(":")
        if "function" in parts:
            parts = parts[parts.index("function") + 1 :]
        elif len(parts) == 3 and parts[0].isdigit():
            parts = parts[1:]
        function = self.all.get(parts[0])
        if function is None:
            region_arn = next(iter(self.all.values())).arn.rpartition(":")[0] if self.all else "arn:aws:lambda"
            raise not_found(f"{region_arn}:{':'.join(parts)}")
        return function, parts[1] if len(parts) > 1 else None

    async def delete(self, name: str) -> None:
        """Raises LambdaError when there is none."""
        function, _ = self.find(name)
        del self.all[function.name]
        await function.close()

    async def close(self) -> None:
        for function in list(self.all.values()):
            await function.close()


async def release_as_deployed(function: Function, stack: Stack) -> None:
    """The version, alias and provisioned concurrency that a deployment of the template makes, its snapshot taken."""
    if stack.alias is None:
        return
    published = function.publish({})
    if function.snapshot is None:
        function.versions[published["Version"]].state = "Active"
    else:
        await function.snapshot
    function.create_alias({"Name": stack.alias, "FunctionVersion": published["Version"]})
    if stack.provisioned:
        function.put_provisioned(stack.alias, {"ProvisionedConcurrentExecutions": stack.provisioned})


def changed(stack: Stack, change: Mapping[str, Any]) -> Stack:
    """`stack` with the members of an UpdateFunctionConfiguration or CreateFunction request. Raises LambdaError."""
    memory_mb, timeout_s = change.get("MemorySize", stack.memory_mb), change.get("Timeout", stack.timeout_s)
    for member, value, allowed in (("memorySize", memory_mb, MEMORY_MB), ("timeout", timeout_s, TIMEOUT_S)):
        if value not in allowed:
            raise validation(member, value, f"value between {allowed[0]} and {allowed[-1]}")
    if change.get("Runtime", stack.runtime) != stack.runtime:
        raise invalid(f"The local stack runs {stack.runtime} alone, not {change['Runtime']}.")
    for member in _NOT_PLAYED:
        if change.get(member):
            raise invalid(f"The local stack plays no {member}; leave it out.")
    if "Layers" in change and tuple(change["Layers"] or ()) != stack.layers:
        raise invalid(
            "The local stack attaches no layer; start it with --layer DIR, and PLayerArn for the ARN it tells."
        )
    if len(change.get("Description") or "") > 256:
        raise validation("description", change["Description"], "length less than or equal to 256")
    variables = stack.environment
    if "Environment" in change:
        variables = (change["Environment"] or {}).get("Variables") or {}
        _check_variables(variables)
    log = change.get("LoggingConfig") or {}
    snap_start = change.get("SnapStart")
    tracing = change.get("TracingConfig")
    ephemeral_mb = (change.get("EphemeralStorage") or {}).get("Size", stack.ephemeral_mb)
    if not 512 <= ephemeral_mb <= 10240:
        raise validation("ephemeralStorage.size", ephemeral_mb, "value between 512 and 10240")
    updated = replace(
        stack,
        memory_mb=memory_mb,
        timeout_s=timeout_s,
        handler=change.get("Handler", stack.handler),
        environment=dict(variables),
        log_format=log.get("LogFormat", stack.log_format),
        log_group=log.get("LogGroup", stack.log_group),
        application_log_level=log.get("ApplicationLogLevel", stack.application_log_level),
        system_log_level=log.get("SystemLogLevel", stack.system_log_level),
        snap_start=stack.snap_start if snap_start is None else snap_start.get("ApplyOn") == "PublishedVersions",
        tracing=stack.tracing if tracing is None else tracing.get("Mode") == "Active",
        ephemeral_mb=ephemeral_mb,
    )
    if updated.snap_start and updated.per_tenant:
        raise invalid("SnapStart is not supported for functions with tenant isolation.")
    if updated.snap_start and updated.ephemeral_mb > 512:
        raise invalid("SnapStart is not supported for functions with more than 512 MB of ephemeral storage.")
    return updated


def _check_variables(variables: Mapping[str, str]) -> None:
    """https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html. Raises LambdaError."""
    refused = "Lambda was unable to configure your environment variables because the environment variables you have"
    if taken := sorted(set(variables) & _RESERVED_VARIABLES):
        raise invalid(
            f"{refused} provided contains reserved keys that are currently not supported for modification. "
            f"Reserved keys used in this request: {', '.join(taken)}"
        )
    if len(json.dumps(dict(variables), separators=(",", ":"), ensure_ascii=False).encode()) > MOST_VARIABLE_BYTES:
        raise invalid(f"{refused} provided exceeded the 4KB limit.")


def _settle_by(snapshot: asyncio.Task[Environment], version: Version) -> None:
    """A version whose init failed has nothing to resume from: AWS never makes it Active."""
    error = snapshot.exception()
    failure = None if error is not None else snapshot.result().init_failure
    if error is None and failure is None:
        version.state = "Active"
        return
    timed_out = failure is not None and failure.status == "timeout"
    version.state = "Failed"
    version.state_reason_code = "FunctionError.InitTimeout" if timed_out else "FunctionError.RuntimeInitError"
    told = error or (failure and failure.error_type) or "it took longer than the init phase may"
    version.state_reason = f"The function failed to initialize: {told}"


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """A policy's refusal as the API's."""
    try:
        yield
    except PolicyError as error:
        raise LambdaError(error.status, error.kind, str(error)) from error


def zipped(directory: Path) -> bytes:
    """The archive of a code directory, the same bytes for the same files."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in sorted(directory.rglob("*")):
            relative = path.relative_to(directory)
            if path.is_file() and "__pycache__" not in relative.parts:
                archive.writestr(zipfile.ZipInfo(str(relative)), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return data.getvalue()


def unpacked(asked: Mapping[str, Any], scratch: Path) -> Code:
    """The code of a request's ZipFile, in a directory that every user may read. Raises LambdaError."""
    if not isinstance(asked.get("ZipFile"), str):
        raise invalid("The local stack takes code as a ZipFile; S3 and images it does not know.")
    directory = Path(tempfile.mkdtemp(prefix="code-", dir=scratch))
    try:
        with zipfile.ZipFile(io.BytesIO(base64.b64decode(asked["ZipFile"]))) as archive:
            archive.extractall(directory)
    except (ValueError, zipfile.BadZipFile) as error:
        shutil.rmtree(directory, ignore_errors=True)
        raise invalid("Could not unzip uploaded file. Please check your file, then try to upload again.") from error
    for path in (directory, *directory.rglob("*")):
        path.chmod(0o755)
    return Code(directory, is_ours=True)


def invalid(message: str) -> LambdaError:
    return LambdaError(400, "InvalidParameterValueException", message)


def validation(member: str, value: object, constraint: str) -> LambdaError:
    message = (
        f"1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: "
        f"Member must satisfy {constraint}"
    )
    return LambdaError(400, "ValidationException", message)


def not_found(arn: str) -> LambdaError:
    return LambdaError(404, "ResourceNotFoundException", f"Function not found: {arn}")


def _stamp(epoch_s: float) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000")
