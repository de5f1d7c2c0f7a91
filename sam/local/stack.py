"""Reads a SAM template into the few facts the local stack needs; it starts nothing and asks AWS nothing.

The template goes through AWS's own aws-sam-translator, so that what is read here is what CloudFormation would see.
"""

import copy
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from samtranslator.model.exceptions import InvalidDocumentException  # type: ignore[import-untyped]
from samtranslator.translator.transform import transform  # type: ignore[import-untyped]
from samtranslator.yaml_helper import yaml_parse  # type: ignore[import-untyped]

from .throttle import UNLIMITED, UsagePlan

ACCOUNT_ID = "123456789012"  # moto's account: ARNs here and ARNs boto3 reads must agree
API_ID = "local00000"
INTEGRATION_TIMEOUT_S = 29.0  # REST API, where the integration gives no timeoutInMillis
STACK_NAME = "code-interpreter"
MEMORY_MB = range(128, 10240 + 1)
TIMEOUT_S = range(1, 900 + 1)
METHODS = ("get", "head", "post", "put", "patch", "delete", "options")
ANY_METHOD = "x-amazon-apigateway-any-method"
_NO_VALUE = object()


class StackError(Exception):
    """The template cannot be used; the message is one sentence for a person."""


@dataclass(frozen=True, slots=True)
class Route:
    """One operation of the REST API: `resource` as in the OpenAPI file, `method` in upper case or `ANY`."""

    resource: str
    method: str
    api_key_required: bool
    qualifier: str | None = None  # the alias or version that the integration calls
    tenant: str | None = None  # where the tenant comes from: a mapping expression of the integration
    timeout_s: float = INTEGRATION_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class MetricFilter:
    """A metric that CloudWatch Logs takes from the lines of a group: `value` is a number, `$.path` or `$field`."""

    log_group: str
    pattern: str
    namespace: str
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Permission:
    """Who else may invoke the function, or its alias `qualifier`, and from where (an ARN with `*`, empty for any)."""

    statement_id: str
    qualifier: str | None
    action: str
    principal: str
    source_arn: str


@dataclass(frozen=True, slots=True)
class Stack:
    """What `sam deploy` would create, as far as this machine plays it."""

    function_name: str
    handler: str
    runtime: str
    code_dir: Path
    memory_mb: int
    timeout_s: int
    environment: Mapping[str, str]
    log_group: str
    log_format: str  # "JSON" or "Text", as CloudFormation spells them
    log_retention_days: int | None
    reserved_concurrency: int | None
    stage: str
    routes: tuple[Route, ...]
    binary_media_types: tuple[str, ...]
    region: str
    architecture: str = "x86_64"  # what the template says; code runs on this machine's own
    version: str = "$LATEST"
    system_log_level: str = "INFO"
    application_log_level: str | None = None
    tracing: bool = False
    ephemeral_mb: int = 512
    snap_start: bool = False
    per_tenant: bool = False
    alias: str | None = None
    provisioned: int = 0
    usage_plan: UsagePlan = UNLIMITED
    stage_throttle: UsagePlan = UNLIMITED
    metric_filters: tuple[MetricFilter, ...] = ()
    permissions: tuple[Permission, ...] = ()
    layers: tuple[str, ...] = ()  # ARNs that are told; what lies under /opt is --layer's or the venv's

    @property
    def function_arn(self) -> str:
        return f"arn:aws:lambda:{self.region}:{ACCOUNT_ID}:function:{self.function_name}"


def read_stack(template: Path, parameters: Mapping[str, str] | None = None) -> Stack:
    """Read `template` with `parameters` over its defaults. Raises StackError."""
    source = _load_yaml(template)
    function_id, function = _only_resource(source, "AWS::Serverless::Function", template)
    code_dir = _code_dir(function, function_id, template)
    cloudformation = _translate(source, template, dict(parameters or {}))
    resolver = _Resolver(cloudformation, dict(parameters or {}), _region())
    properties = resolver.properties(function_id)
    logging_config = properties.get("LoggingConfig", {})
    function_name = properties.get("FunctionName", function_id)
    log_group = logging_config.get("LogGroup", f"/aws/lambda/{function_name}")
    stage, api = _rest_api(cloudformation, resolver, template)
    alias = _optional(cloudformation, resolver, "AWS::Lambda::Alias")
    body = api.get("Body", {})
    stack = Stack(
        function_name=function_name,
        handler=_need(properties, "Handler", function_id),
        runtime=_need(properties, "Runtime", function_id),
        code_dir=code_dir,
        memory_mb=_whole(properties.get("MemorySize", 128), "MemorySize"),
        timeout_s=_whole(properties.get("Timeout", 3), "Timeout"),
        environment={k: str(v) for k, v in properties.get("Environment", {}).get("Variables", {}).items()},
        log_group=log_group,
        log_format=logging_config.get("LogFormat", "Text"),
        log_retention_days=_retention(cloudformation, resolver, log_group),
        reserved_concurrency=properties.get("ReservedConcurrentExecutions"),
        stage=str(stage["StageName"]),
        routes=_routes(body),
        binary_media_types=tuple(  # SAM writes the slash as a JSON pointer does
            media_type.replace("~1", "/")
            for media_type in api.get("BinaryMediaTypes") or body.get("x-amazon-apigateway-binary-media-types") or ()
        ),
        region=_region(),
        architecture=str((properties.get("Architectures") or ["x86_64"])[0]),
        system_log_level=logging_config.get("SystemLogLevel", "INFO"),
        application_log_level=logging_config.get("ApplicationLogLevel"),
        tracing=properties.get("TracingConfig", {}).get("Mode") == "Active",
        ephemeral_mb=_whole(properties.get("EphemeralStorage", {}).get("Size", 512), "EphemeralStorage"),
        snap_start=properties.get("SnapStart", {}).get("ApplyOn") == "PublishedVersions" or _is_put_in(resolver),
        per_tenant=properties.get("TenancyConfig", {}).get("TenantIsolationMode") == "PER_TENANT",
        alias=alias.get("Name"),
        provisioned=_whole(
            alias.get("ProvisionedConcurrencyConfig", {}).get("ProvisionedConcurrentExecutions", 0), "P"
        ),
        usage_plan=_usage_plan(_optional(cloudformation, resolver, "AWS::ApiGateway::UsagePlan")),
        stage_throttle=_stage_throttle(stage),
        metric_filters=tuple(
            MetricFilter(
                log_group=str(found["LogGroupName"]),
                pattern=str(found["FilterPattern"]),
                namespace=str(transformation["MetricNamespace"]),
                name=str(transformation["MetricName"]),
                value=str(transformation["MetricValue"]),
            )
            for found in _all(cloudformation, resolver, "AWS::Logs::MetricFilter")
            for transformation in found["MetricTransformations"]
        ),
        permissions=_permissions(cloudformation, resolver),
        layers=tuple(map(str, properties.get("Layers", ()))),
    )
    check_limits(stack)
    return stack


def check_limits(stack: Stack) -> None:
    """Raise StackError when memory or timeout is outside what Lambda takes (its default quotas)."""
    if stack.memory_mb not in MEMORY_MB:
        raise StackError(f"memory must be 128 to 10240 MB, got {stack.memory_mb}; set PFnMemory or --memory")
    if stack.timeout_s not in TIMEOUT_S:
        raise StackError(f"timeout must be 1 to 900 s, got {stack.timeout_s}; set PFnTimeout or --timeout")


def configured(
    stack: Stack, *, memory_mb: int | None = None, timeout_s: int | None = None, environment: Mapping[str, str] = {}
) -> Stack:
    """A copy of `stack` with these settings over the template's. Raises StackError past Lambda's limits."""
    changed = replace(
        stack,
        memory_mb=stack.memory_mb if memory_mb is None else memory_mb,
        timeout_s=stack.timeout_s if timeout_s is None else timeout_s,
        environment={**stack.environment, **environment},
    )
    check_limits(changed)
    return changed


def _region() -> str:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"


def _load_yaml(path: Path) -> dict[str, Any]:
    try:
        document = yaml_parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StackError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise StackError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise StackError(f"{path} holds no mapping, so it is no template")
    return document


def _only_resource(source: Mapping[str, Any], kind: str, path: Path) -> tuple[str, dict[str, Any]]:
    found = [(name, r) for name, r in source.get("Resources", {}).items() if r.get("Type") == kind]
    if len(found) != 1:
        raise StackError(f"{path} has {len(found)} resources of type {kind}; the local stack runs exactly one")
    return found[0]


def _code_dir(function: Mapping[str, Any], function_id: str, template: Path) -> Path:
    uri = function.get("Properties", {}).get("CodeUri")
    if not isinstance(uri, str) or uri.startswith("s3://"):
        raise StackError(f"{template}: {function_id}.CodeUri must be a local directory, got {uri!r}")
    directory = (template.parent / uri).resolve()
    if not directory.is_dir():
        raise StackError(f"{template}: {function_id}.CodeUri names {directory}, which is not a directory")
    return directory


def _translate(source: Mapping[str, Any], template: Path, parameters: dict[str, str]) -> dict[str, Any]:
    """SAM to CloudFormation, with local code and included files put in first (the translator knows only S3)."""
    prepared = _include(copy.deepcopy(dict(source)), template.parent)
    for resource in prepared.get("Resources", {}).values():
        if resource.get("Type") == "AWS::Serverless::Function":
            resource["Properties"]["CodeUri"] = "s3://local/code"
    logging.getLogger("samtranslator").setLevel(logging.CRITICAL)
    region_before = os.environ.get("AWS_DEFAULT_REGION")
    os.environ["AWS_DEFAULT_REGION"] = _region()  # the translator asks boto3 for the partition
    try:
        translated: dict[str, Any] = transform(prepared, parameters, _NoManagedPolicies())
    except InvalidDocumentException as error:
        causes = "; ".join(str(cause.message) for cause in error.causes) or error.message
        raise StackError(f"{template} is not a valid SAM template: {causes}") from error
    finally:
        if region_before is None:
            del os.environ["AWS_DEFAULT_REGION"]
        else:
            os.environ["AWS_DEFAULT_REGION"] = region_before
    return translated


class _NoManagedPolicies:
    """The translator wants a loader of managed policy names; asking IAM is not for this machine."""

    def load(self) -> dict[str, str]:
        return {}


def _include(node: Any, base: Path) -> Any:
    """Put the named local file where `Fn::Transform: AWS::Include` stands, as CloudFormation does."""
    if isinstance(node, list):
        return [_include(item, base) for item in node]
    if not isinstance(node, dict):
        return node
    macro = node.get("Fn::Transform")
    if isinstance(macro, dict) and macro.get("Name") == "AWS::Include":
        location = macro.get("Parameters", {}).get("Location")
        if not isinstance(location, str):
            raise StackError(f"AWS::Include wants a file name as Location, got {location!r}")
        return _load_yaml(base / location)
    return {key: _include(value, base) for key, value in node.items()}


class _Resolver:
    """CloudFormation's intrinsic functions, as many as a template of one function uses."""

    def __init__(self, template: Mapping[str, Any], parameters: Mapping[str, str], region: str) -> None:
        self.resources: Mapping[str, Any] = template.get("Resources", {})
        self.conditions: Mapping[str, Any] = template.get("Conditions", {})
        self.values: dict[str, Any] = {
            "AWS::Region": region,
            "AWS::AccountId": ACCOUNT_ID,
            "AWS::Partition": "aws",
            "AWS::StackName": STACK_NAME,
            "AWS::URLSuffix": "amazonaws.com",
            "AWS::NoValue": _NO_VALUE,
        }
        declared = template.get("Parameters", {})
        unknown = sorted(set(parameters) - set(declared))
        if unknown:
            raise StackError(f"the template has no parameter {unknown[0]}; it has {', '.join(sorted(declared))}")
        for name, spec in declared.items():
            value = parameters.get(name, spec.get("Default"))
            if value is None:
                raise StackError(f"parameter {name} has no default and no value was given")
            self.values[name] = _number(value) if spec.get("Type") == "Number" else str(value)

    def properties(self, logical_id: str) -> dict[str, Any]:
        resolved = self.resolve(self.resources[logical_id].get("Properties", {}))
        return resolved if isinstance(resolved, dict) else {}

    def resolve(self, node: Any) -> Any:
        if isinstance(node, list):
            return [item for item in map(self.resolve, node) if item is not _NO_VALUE]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            name, argument = next(iter(node.items()))
            if name == "Ref":
                return self.reference(argument)
            if name.startswith("Fn::"):
                return self.call(name, argument)
        pairs = ((key, self.resolve(value)) for key, value in node.items())
        return {key: value for key, value in pairs if value is not _NO_VALUE}

    def call(self, name: str, argument: Any) -> Any:
        match name:
            case "Fn::If":
                condition, yes, no = argument
                return self.resolve(yes if self.holds({"Condition": condition}) else no)
            case "Fn::Sub":
                return self.substitute(argument)
            case "Fn::GetAtt":
                parts = argument.split(".", 1) if isinstance(argument, str) else argument
                return self.attribute(parts[0], parts[1])
            case "Fn::Join":
                separator, items = argument
                return str(separator).join(str(item) for item in self.resolve(items))
        raise StackError(f"the local stack cannot resolve {name}; it knows Ref, If, Sub, GetAtt and Join")

    def reference(self, name: str) -> Any:
        if name in self.values:
            return self.values[name]
        if name not in self.resources:
            raise StackError(f"Ref names {name}, which is neither a parameter nor a resource")
        properties = self.resources[name].get("Properties", {})
        if self.resources[name].get("Type") == "AWS::Lambda::Alias":
            function = self.resolve(properties["FunctionName"])
            return f"{self._arn('lambda', 'function:', function)}:{self.resolve(properties['Name'])}"
        if self.resources[name].get("Type") == "AWS::ApiGateway::RestApi":
            return API_ID
        for key in ("FunctionName", "LogGroupName", "StageName"):
            if key in properties:
                return self.resolve(properties[key])
        return name

    def attribute(self, name: str, attribute: str) -> str:
        kind = self.resources.get(name, {}).get("Type", "")
        if (kind, attribute) == ("AWS::Lambda::Version", "Version"):
            return "1"  # a stack is deployed here once
        prefix = {"AWS::Lambda::Function": "lambda", "AWS::IAM::Role": "iam", "AWS::Logs::LogGroup": "logs"}.get(kind)
        if attribute != "Arn" or prefix is None:
            raise StackError(f"the local stack cannot resolve GetAtt {name}.{attribute}")
        resource = {"lambda": "function:", "iam": "role/", "logs": "log-group:"}[prefix]
        return self._arn(prefix, resource, self.reference(name))

    def _arn(self, service: str, resource: str, name: Any) -> str:
        region = "" if service == "iam" else self.values["AWS::Region"]
        return f"arn:aws:{service}:{region}:{ACCOUNT_ID}:{resource}{name}"

    def substitute(self, argument: Any) -> str:
        text, extra = argument if isinstance(argument, list) else (argument, {})

        def value(match: re.Match[str]) -> str:
            name = match.group(1)
            if name in extra:
                return str(self.resolve(extra[name]))
            return self.attribute(*name.split(".", 1)) if "." in name else str(self.reference(name))

        return re.sub(r"\$\{([A-Za-z0-9:.]+)\}", value, text)

    def holds(self, condition: Any) -> bool:
        name, argument = next(iter(condition.items()))
        match name:
            case "Condition":
                return self.holds(self.conditions[argument])
            case "Fn::Equals":
                left, right = (str(self.resolve(side)) for side in argument)
                return left == right
            case "Fn::Not":
                return not self.holds(argument[0])
            case "Fn::And":
                return all(self.holds(part) for part in argument)
            case "Fn::Or":
                return any(self.holds(part) for part in argument)
        raise StackError(f"the local stack cannot judge a condition of {name}")


def _rest_api(
    cloudformation: Mapping[str, Any], resolver: _Resolver, template: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The properties of the stage and of its API."""
    stage_id, _ = _only_resource(cloudformation, "AWS::ApiGateway::Stage", template)
    api_id, _ = _only_resource(cloudformation, "AWS::ApiGateway::RestApi", template)
    return resolver.properties(stage_id), resolver.properties(api_id)


def _all(cloudformation: Mapping[str, Any], resolver: _Resolver, kind: str) -> list[dict[str, Any]]:
    """The properties of every resource of a kind that its condition lets be."""
    return list(_named(cloudformation, resolver, kind).values())


def _named(cloudformation: Mapping[str, Any], resolver: _Resolver, kind: str) -> dict[str, dict[str, Any]]:
    """The same by their logical ids."""
    return {
        name: resolver.properties(name)
        for name, resource in cloudformation.get("Resources", {}).items()
        if resource.get("Type") == kind
        and ("Condition" not in resource or resolver.holds({"Condition": resource["Condition"]}))
    }


def _permissions(cloudformation: Mapping[str, Any], resolver: _Resolver) -> tuple[Permission, ...]:
    """What the template lets others invoke; the function is the only one there is."""
    return tuple(
        Permission(
            statement_id=name,
            qualifier=_qualifier_of(str(found.get("FunctionName", ""))),
            action=str(found.get("Action", "")),
            principal=str(found.get("Principal", "")),
            source_arn=str(found.get("SourceArn", "")),
        )
        for name, found in _named(cloudformation, resolver, "AWS::Lambda::Permission").items()
    )


def _qualifier_of(function: str) -> str | None:
    """The alias or version in `NAME:QUALIFIER` or in an ARN."""
    parts = function.rpartition(":function:")[2].split(":")
    return parts[1] if len(parts) > 1 else None


def _optional(cloudformation: Mapping[str, Any], resolver: _Resolver, kind: str) -> dict[str, Any]:
    """The properties of the first resource of a kind; empty without."""
    return next(iter(_all(cloudformation, resolver, kind)), {})


def _is_put_in(resolver: _Resolver) -> bool:
    """SAM takes no SnapStart beside TenancyConfig, so the deployment puts it in where this condition holds."""
    return "UsesSnapStart" in resolver.conditions and resolver.holds({"Condition": "UsesSnapStart"})


def _usage_plan(properties: Mapping[str, Any]) -> UsagePlan:
    throttle, quota = properties.get("Throttle", {}), properties.get("Quota", {})
    return UsagePlan(
        rate_per_s=throttle.get("RateLimit"),
        burst=throttle.get("BurstLimit"),
        quota=quota.get("Limit"),
        quota_period=quota.get("Period", "DAY"),
    )


def _stage_throttle(stage: Mapping[str, Any]) -> UsagePlan:
    """What the stage allows all clients together, on every method."""
    for settings in stage.get("MethodSettings", []):
        if settings.get("HttpMethod") == "*" and settings.get("ResourcePath") == "/*":
            return UsagePlan(settings.get("ThrottlingRateLimit"), settings.get("ThrottlingBurstLimit"))
    return UNLIMITED


def _routes(body: Mapping[str, Any]) -> tuple[Route, ...]:
    routes = []
    for resource, operations in body.get("paths", {}).items():
        for method, operation in operations.items():
            if method in (*METHODS, ANY_METHOD):
                name = "ANY" if method == ANY_METHOD else method.upper()
                if operation.get("x-amazon-apigateway-auth", {}).get("type") == "AWS_IAM":
                    raise StackError(
                        f"{resource} wants IAM signatures, which the local stack cannot check; use API keys"
                    )
                integration = operation.get("x-amazon-apigateway-integration", {})
                tenant = integration.get("requestParameters", {}).get("integration.request.header.X-Amz-Tenant-Id")
                qualifier = _qualifier(str(integration.get("uri", "")))
                timeout_s = _number(integration.get("timeoutInMillis", INTEGRATION_TIMEOUT_S * 1000)) / 1000
                routes.append(Route(resource, name, _wants_api_key(operation, body), qualifier, tenant, timeout_s))
    if not routes:
        raise StackError("the OpenAPI document has no paths, so no request could reach the function")
    return tuple(sorted(routes, key=lambda route: (route.resource, route.method)))


def _qualifier(uri: str) -> str | None:
    """The alias or version at the end of the function's ARN in an integration's URI."""
    found = re.search(r":function:[^:/]+:([^/]+)/(?:invocations|response-streaming-invocations)$", uri)
    return found[1] if found else None


def _wants_api_key(operation: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    schemes = body.get("components", {}).get("securitySchemes", {})
    required = operation.get("security", body.get("security", []))
    return any(schemes.get(name, {}).get("type") == "apiKey" for entry in required for name in entry)


def _retention(cloudformation: Mapping[str, Any], resolver: _Resolver, log_group: str) -> int | None:
    for name, resource in cloudformation.get("Resources", {}).items():
        if resource.get("Type") == "AWS::Logs::LogGroup":
            properties = resolver.properties(name)
            if properties.get("LogGroupName") == log_group:
                return properties.get("RetentionInDays")
    return None


def _need(properties: Mapping[str, Any], key: str, resource: str) -> str:
    if not isinstance(properties.get(key), str):
        raise StackError(f"{resource} has no {key}")
    return str(properties[key])


def _number(value: Any) -> int | float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise StackError(f"a Number parameter has the value {value!r}") from error
    return int(number) if number.is_integer() else number


def _whole(value: Any, name: str) -> int:
    number = _number(value)
    if not isinstance(number, int):
        raise StackError(f"{name} must be a whole number, got {value!r}")
    return number
