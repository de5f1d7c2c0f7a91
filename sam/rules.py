"""What AWS refuses or silently does not do, and `sam validate`, cfn-lint and checkov let pass; it asks AWS nothing.

`python -m sam.rules` judges a template with given parameters: each finding is a sentence. Every rule names its source;
each is seen failing in tests/unit/test_sam_rules.py on a template broken in just that way.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samtranslator.yaml_helper import yaml_parse  # type: ignore[import-untyped]

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2
TEMPLATE = Path(__file__).parent / "template.yaml"
RUNTIMES = ("python3.12", "python3.13", "python3.14")
SERVERLESS, LAMBDA = "AWS::Serverless::Function", "AWS::Lambda::Function"
_ABSENT = object()
EXAMPLES = """examples:
  python -m sam.rules
  python -m sam.rules --parameter PIsolation=snap_start --parameter PFnStorage=1024
  python -m sam.rules --template .aws-sam/build/template.yaml
"""


class RulesError(Exception):
    """The template or a parameter cannot be read; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A template with its parameters put in: conditions decided, references to parameters replaced."""

    parameters: Mapping[str, str]
    resources: Mapping[str, Any]
    paths: Mapping[str, Any]  # of the OpenAPI document

    def of_type(self, *kinds: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for name, resource in self.resources.items():
            if resource.get("Type") in kinds:
                yield name, resource.get("Properties", {})

    @property
    def functions(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        return self.of_type(SERVERLESS, LAMBDA)


def findings(deployment: Deployment) -> list[str]:
    """A sentence for each rule that the deployment breaks; empty when it breaks none."""
    return [sentence for rule in RULES for sentence in rule(deployment)]


# -- the rules --------------------------------------------------------------------------------------------------------


def memory_and_timeout(deployment: Deployment) -> Iterator[str]:
    """The API model's maxima rose to 32,768 MB and 5,400 s for Managed Instances, so cfn-lint passes what an ordinary
    function is refused. https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html"""
    for name, function in deployment.functions:
        memory, timeout = function.get("MemorySize", 128), function.get("Timeout", 3)
        if _number(memory) not in range(128, 10241):
            yield f"{name} has {memory} MB of memory; Lambda takes 128 to 10240 (P_FN_MEMORY)."
        if _number(timeout) not in range(15, 901):
            yield f"{name} has a timeout of {timeout} s; it must be 15 to 900 (P_FN_TIMEOUT)."


def storage(deployment: Deployment) -> Iterator[str]:
    """512 to 10,240 MB, and no more than 512 with SnapStart.
    https://docs.aws.amazon.com/lambda/latest/dg/snapstart.html"""
    for name, function in deployment.functions:
        size = (function.get("EphemeralStorage") or {}).get("Size", 512)
        if _number(size) not in range(512, 10241):
            yield f"{name} has {size} MB of /tmp; Lambda takes 512 to 10240 (P_FN_STORAGE)."
        elif _snap_start(function) and _number(size) != 512:
            yield f"{name} has SnapStart and {size} MB of /tmp; SnapStart takes no more than 512 (P_FN_STORAGE)."


def snap_start(deployment: Deployment) -> Iterator[str]:
    """Python 3.12 and later, zip packages, published versions, no provisioned concurrency.
    https://docs.aws.amazon.com/lambda/latest/dg/snapstart.html"""
    for name, function in deployment.functions:
        if not _snap_start(function):
            continue
        if function.get("PackageType", "Zip") != "Zip":
            yield f"{name} is a container image with SnapStart; SnapStart takes zip packages only."
        if _provisioned(deployment, function):
            yield f"{name} has SnapStart and provisioned concurrency; Lambda takes one of the two."
        if "FileSystemConfigs" in function:
            yield f"{name} has SnapStart and a file system; Lambda takes one of the two."


def tenants(deployment: Deployment) -> Iterator[str]:
    """Tenant isolation excludes SnapStart, provisioned concurrency and function URLs, and every call must name its
    tenant. https://docs.aws.amazon.com/lambda/latest/dg/tenant-isolation.html"""
    for name, function in deployment.functions:
        if (function.get("TenancyConfig") or {}).get("TenantIsolationMode") != "PER_TENANT":
            yield from _needless_tenants(deployment)
            continue
        if _snap_start(function):
            yield f"{name} has tenant isolation and SnapStart; Lambda takes one of the two (P_ISOLATION)."
        if _provisioned(deployment, function):
            yield f"{name} has tenant isolation and provisioned concurrency; Lambda takes one of the two."
        if "FunctionUrlConfig" in function or any(deployment.of_type("AWS::Lambda::Url")):
            yield f"{name} has tenant isolation and a function URL, which cannot name a tenant."
        for path, method, operation in _operations(deployment):
            source = _tenant_of(operation)
            if source is None:
                yield f"{method} {path} names no tenant (X-Amz-Tenant-Id), so Lambda would refuse each of its calls."
            elif source == "context.identity.apiKeyId" and not _wants_key(operation):
                yield f"{method} {path} takes its tenant from the API key and wants none; P_AUTH must be api_key."
            elif source == "context.identity.userArn" and not _wants_signature(operation):
                yield f"{method} {path} takes its tenant from the caller's signature and wants none; use P_AUTH=iam."


def _needless_tenants(deployment: Deployment) -> Iterator[str]:
    for path, method, operation in _operations(deployment):
        if _tenant_of(operation) is not None:
            yield f"{method} {path} names a tenant, but the function isolates none; Lambda would refuse each call."


def served_by_an_alias(deployment: Deployment) -> Iterator[str]:
    """Clients get a version behind an alias: a snapshot is of a version, and `make gate` needs something to move. An
    alias has a policy of its own, so that a permission on the function does not let the API call it.
    https://docs.aws.amazon.com/lambda/latest/dg/access-control-resource-based.html"""
    aliases = {name for name, _ in deployment.of_type("AWS::Lambda::Alias")}
    for path, method, operation in _operations(deployment):
        if not any(f"${{{alias}}}/invocations" in _uri_of(operation) for alias in aliases):
            yield f"{method} {path} calls no alias of the function, so each deploy would reach clients unjudged."
    for name, permission in deployment.of_type("AWS::Lambda::Permission"):
        if permission.get("FunctionName") not in [{"Ref": alias} for alias in aliases]:
            yield f"{name} is for no alias, and the API calls one, so each of its calls would get 500."


def open_to_anyone(deployment: Deployment) -> Iterator[str]:
    """An endpoint that runs anyone's code is deployed on purpose or not at all."""
    if deployment.parameters.get("POpenOnPurpose") == "yes":
        return
    for path, method, operation in _operations(deployment):
        if not _wants_key(operation) and not _wants_signature(operation):
            yield (
                f"{method} {path} asks nothing of its callers, so anyone could run code; set P_AUTH to api_key or iam, "
                "or say P_OPEN_ON_PURPOSE=yes as well."
            )


def keys_in_a_plan(deployment: Deployment) -> Iterator[str]:
    """API Gateway answers 403 to every key that is in no usage plan of the stage.
    https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-api-usage-plans.html"""
    if not any(_wants_key(operation) for _, _, operation in _operations(deployment)):
        return
    plans = dict(deployment.of_type("AWS::ApiGateway::UsagePlan"))
    if not plans or not any(deployment.of_type("AWS::ApiGateway::UsagePlanKey")):
        yield "The API wants a key, but no usage plan has one, so every call would get 403."
    for name, plan in plans.items():
        if not plan.get("Throttle") or not plan.get("Quota"):
            yield f"{name} has no throttle or no quota, so one key can use up the account's concurrency."


def network(deployment: Deployment) -> Iterator[str]:
    """A network without a way out has none: no gateway, no endpoint, no resolver, no open security group."""
    for name, vpc in deployment.of_type("AWS::EC2::VPC"):
        if str(vpc.get("EnableDnsSupport", True)).lower() != "false":
            yield f"{name} has a DNS resolver, which carries data out by itself; EnableDnsSupport must be false."
    if not any(deployment.of_type("AWS::EC2::VPC")):
        return
    for kind in (
        "InternetGateway",
        "NatGateway",
        "VPCEndpoint",
        "EgressOnlyInternetGateway",
        "TransitGatewayAttachment",
    ):
        for name, _ in deployment.of_type(f"AWS::EC2::{kind}"):
            yield f"{name} is a way out of the network that is to have none (P_EGRESS=none)."
    for name, group in deployment.of_type("AWS::EC2::SecurityGroup"):
        rules = group.get("SecurityGroupEgress")
        if not rules or any(rule.get("CidrIp") != "127.0.0.1/32" for rule in rules):
            yield f"{name} lets traffic out; with no rule a group allows all of it."
    for name, function in deployment.functions:
        if not function.get("VpcConfig"):
            yield f"{name} is not in the network that is to hold it."
        if _variables(function).get("INTERPRETER_NETWORK") == "public":
            yield f"{name} lets code open sockets in a network without a way out; drop P_CODE_NETWORK or P_EGRESS."


def runtime(deployment: Deployment) -> Iterator[str]:
    """The interpreter needs Python 3.12 or later; SAM takes any runtime that Lambda ever had."""
    for name, function in deployment.functions:
        if function.get("PackageType", "Zip") == "Zip" and function.get("Runtime") not in RUNTIMES:
            yield f"{name} runs on {function.get('Runtime')}; it must be one of {', '.join(RUNTIMES)} (P_RUNTIME)."


def logs_are_kept_and_end(deployment: Deployment) -> Iterator[str]:
    """Without a retention CloudWatch keeps logs, and charges for them, for ever."""
    for name, group in deployment.of_type("AWS::Logs::LogGroup"):
        if not group.get("RetentionInDays"):
            yield f"{name} keeps its logs for ever; give it RetentionInDays (P_LOG_RETENTION_DAYS)."
    for name, function in deployment.functions:
        if not (function.get("LoggingConfig") or {}).get("LogGroup"):
            yield f"{name} names no log group, so Lambda makes one that keeps its logs for ever."


def logs_only(deployment: Deployment) -> Iterator[str]:
    """What code can do with the function's credentials: write logs and trace segments, nothing else."""
    allowed = {"logs:CreateLogStream", "logs:PutLogEvents", "xray:PutTraceSegments", "xray:PutTelemetryRecords"}
    for name, role in deployment.of_type("AWS::IAM::Role"):
        principals = str(role.get("AssumeRolePolicyDocument", {}))
        if "lambda.amazonaws.com" not in principals:
            continue
        if role.get("ManagedPolicyArns"):
            yield f"{name} has managed policies; the function's role may write logs and nothing else."
        statements = [s for policy in role.get("Policies", []) for s in _list(policy["PolicyDocument"]["Statement"])]
        denied = {a for s in statements if s["Effect"] == "Deny" for a in _list(s["Action"])}
        for action in (a for s in statements if s["Effect"] == "Allow" for a in _list(s["Action"])):
            if action not in allowed and f"{action.split(':')[0]}:*" not in denied:
                yield f"{name} allows {action}; code that reads the function's credentials could do it too."
    for name, function in deployment.functions:
        if function.get("Policies"):
            yield f"{name} has Policies, which SAM adds to its role; the role may write logs and nothing else."


RULES: tuple[Callable[[Deployment], Iterator[str]], ...] = (
    memory_and_timeout, storage, runtime, snap_start, tenants, served_by_an_alias, open_to_anyone, keys_in_a_plan,
    network, logs_are_kept_and_end, logs_only,
)  # fmt: skip


def _snap_start(function: Mapping[str, Any]) -> bool:
    return (function.get("SnapStart") or {}).get("ApplyOn") == "PublishedVersions"


def _provisioned(deployment: Deployment, function: Mapping[str, Any]) -> bool:
    by_alias = any("ProvisionedConcurrencyConfig" in alias for _, alias in deployment.of_type("AWS::Lambda::Alias"))
    return by_alias or "ProvisionedConcurrencyConfig" in function


def _variables(function: Mapping[str, Any]) -> Mapping[str, Any]:
    variables: Mapping[str, Any] = (function.get("Environment") or {}).get("Variables", {})
    return variables


def _operations(deployment: Deployment) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, item in deployment.paths.items():
        for method, operation in item.items():
            if isinstance(operation, Mapping) and "x-amazon-apigateway-integration" in operation:
                yield path, "ANY" if method.startswith("x-amazon") else method.upper(), operation


def _tenant_of(operation: Mapping[str, Any]) -> str | None:
    parameters = operation["x-amazon-apigateway-integration"].get("requestParameters") or {}
    return parameters.get("integration.request.header.X-Amz-Tenant-Id")


def _uri_of(operation: Mapping[str, Any]) -> str:
    uri = operation["x-amazon-apigateway-integration"].get("uri") or ""
    return str(uri.get("Fn::Sub", "") if isinstance(uri, Mapping) else uri)


def _wants_key(operation: Mapping[str, Any]) -> bool:
    return any("api_key" in entry for entry in operation.get("security", []))


def _wants_signature(operation: Mapping[str, Any]) -> bool:
    return (operation.get("x-amazon-apigateway-auth") or {}).get("type") == "AWS_IAM"


def _number(value: Any) -> int | None:
    try:
        return int(str(value))
    except ValueError:
        return None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


# -- reading ----------------------------------------------------------------------------------------------------------


def read(template: Path, parameters: Mapping[str, str] | None = None) -> Deployment:
    """`template` with `parameters` over its defaults, included files put in. Raises RulesError."""
    source = _yaml(template)
    values = _values(source.get("Parameters", {}), dict(parameters or {}), template)
    resolver = _Resolver(values, source.get("Conditions", {}), template.parent)
    resources = {
        name: resolver.resolve({key: part for key, part in resource.items() if key != "Condition"})
        for name, resource in source.get("Resources", {}).items()
        if "Condition" not in resource or resolver.holds({"Condition": resource["Condition"]})
    }
    bodies = [r["Properties"].get("DefinitionBody") or {} for r in resources.values() if "Properties" in r]
    paths = {path: item for body in bodies for path, item in body.get("paths", {}).items()}
    return Deployment(values, resources, paths)


def _yaml(path: Path) -> dict[str, Any]:
    try:
        document = yaml_parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RulesError(f"cannot read {path}: {error.strerror}") from error
    except Exception as error:
        raise RulesError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise RulesError(f"{path} holds no mapping, so it is no template")
    return document


def _values(declared: Mapping[str, Any], given: Mapping[str, str], template: Path) -> dict[str, str]:
    if unknown := sorted(set(given) - set(declared)):
        raise RulesError(f"{template} has no parameter {unknown[0]}; it has {', '.join(sorted(declared))}")
    values = {}
    for name, spec in declared.items():
        value = str(given.get(name, spec.get("Default", "")))
        allowed = [str(item) for item in spec.get("AllowedValues", [])]
        if allowed and value not in allowed:
            raise RulesError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")
        if spec.get("Type") == "Number" and _number(value) is None:
            raise RulesError(f"{name} is {value!r}; it must be a whole number")
        values[name] = value
    return values


class _Resolver:
    """Decides conditions and puts parameters in; whatever only AWS knows (ARNs, attributes) stays as it is."""

    def __init__(self, values: Mapping[str, str], conditions: Mapping[str, Any], base: Path) -> None:
        self.values = values
        self.conditions = conditions
        self.base = base

    def resolve(self, node: Any) -> Any:
        if isinstance(node, list):
            return [item for item in map(self.resolve, node) if item is not _ABSENT]
        if not isinstance(node, dict):
            return node
        match node:
            case {"Ref": "AWS::NoValue"}:
                return _ABSENT
            case {"Ref": str(name)} if name in self.values:
                return self.values[name]
            case {"Fn::If": [condition, yes, no]}:
                return self.resolve(yes if self.holds({"Condition": condition}) else no)
            case {"Fn::Transform": {"Name": "AWS::Include", "Parameters": {"Location": str(location)}}}:
                return self.resolve(_yaml(self.base / location))
        resolved = ((key, self.resolve(value)) for key, value in node.items())
        return {key: value for key, value in resolved if value is not _ABSENT}

    def holds(self, condition: Mapping[str, Any]) -> bool:
        match dict(condition):
            case {"Condition": name}:
                return self.holds(self.conditions[name])
            case {"Fn::Equals": [left, right]}:
                return str(self.resolve(left)) == str(self.resolve(right))
            case {"Fn::Not": [part]}:
                return not self.holds(part)
            case {"Fn::And": parts}:
                return all(self.holds(part) for part in parts)
            case {"Fn::Or": parts}:
                return any(self.holds(part) for part in parts)
        raise RulesError(f"a condition uses {next(iter(condition))}, which these rules cannot decide")


# -- the command ------------------------------------------------------------------------------------------------------


def run(argv: Sequence[str]) -> int:
    """Print the findings. Returns 0 without any, 1 with some, 2 when the template cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m sam.rules",
        description="What AWS refuses or silently does not do, and the linters let pass.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--template", type=Path, default=TEMPLATE, help="default sam/template.yaml")
    parser.add_argument("--parameter", action="append", default=[], metavar="NAME=VALUE", help="repeat for more")
    options = parser.parse_args(argv)
    try:
        parameters = dict(_pair(text) for text in options.parameter)
        found = findings(read(options.template, parameters))
    except RulesError as error:
        print(f"rules: {error}", file=sys.stderr)
        return EXIT_USAGE
    for sentence in found:
        print(f"rules: {sentence}", file=sys.stderr)
    return EXIT_FAILED if found else EXIT_OK


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise RulesError(f"--parameter wants NAME=VALUE, got {text!r}")
    return name, value


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
