"""`python -m sam.deploy`: builds, packages and deploys the layer and the function's stack; the make targets call it.

What AWS would refuse is refused here first, in a sentence. Running it again changes nothing that is not to be changed.
AWS is asked through boto3 and the SAM CLI (in .tools/sam, made on first use), so the AWS CLI is not needed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import yaml
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    WaiterError,
)
from samtranslator.yaml_helper import yaml_parse  # type: ignore[import-untyped]

from sam import rules, settings
from sam.dependencies import layer
from sam.settings import Settings, SettingsError

ROOT = Path(__file__).parents[1]
DOT_EVERY_S = 5.0
EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_UNREACHABLE, EXIT_INTERRUPTED = 0, 1, 2, 3, 130
UNREACHABLE = {"ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException"}
REFUSED = UNREACHABLE | {"AccessDenied", "AccessDeniedException", "SignatureDoesNotMatch"}
EXAMPLES = """examples:
  python -m sam.deploy layer           build, package and deploy the layer; prints its ARN
  python -m sam.deploy apigw           package and deploy function and API; prints the endpoint
  P_FN_MEMORY=2048 python -m sam.deploy apigw
  python -m sam.deploy apigw.delete

Settings come from the environment, then etc/environment.sh (see etc/environment.sh.example).
"""


class DeployError(Exception):
    """A step cannot be done; the message is one sentence, `code` the exit code."""

    def __init__(self, message: str, code: int = EXIT_USAGE) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Place:
    """Where settings are read from and results written to, and what was asked on the command line."""

    settings_file: Path
    env_file: Path
    work: Path  # for what is built and packaged
    settings: Settings
    yes: bool

    @property
    def built(self) -> Path:
        return self.work / "build" / "template.yaml"

    @property
    def packaged(self) -> Path:
        return self.work / "apigw.yaml"

    @property
    def packaged_layer(self) -> Path:
        return self.work / "layer.yaml"


def run(argv: Sequence[str]) -> int:
    """Do the step named. Returns 0, 1 when AWS or a build failed, 2 for settings, 3 when AWS is out of reach or refuses
    the credentials, 130 after Ctrl-C."""
    options = _parse(argv)
    try:
        place = Place(options.settings, options.env, options.work, settings.read(options.settings), options.yes)
        for step in STEPS[options.step]:
            step(place)
    except (DeployError, layer.BuildError) as error:
        print(f"{options.step}: {error}", file=sys.stderr)
        return error.code
    except (SettingsError, rules.RulesError) as error:
        print(f"{options.step}: {error}", file=sys.stderr)
        return EXIT_USAGE
    except (ClientError, BotoCoreError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
        print(f"{options.step}: AWS says: {error}", file=sys.stderr)
        return EXIT_UNREACHABLE if code in REFUSED or not code else EXIT_FAILED
    except KeyboardInterrupt:
        print(
            f"{options.step}: interrupted; what CloudFormation has begun goes on, run it again later", file=sys.stderr
        )
        return EXIT_INTERRUPTED
    return EXIT_OK


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sam.deploy",
        description="Build, package and deploy the layer and the stack.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--settings", type=Path, default=ROOT / "etc" / "environment.sh", metavar="FILE")
    parser.add_argument("--env", type=Path, default=ROOT / ".env", metavar="FILE", help="default .env")
    parser.add_argument("--work", type=Path, default=ROOT / ".aws-sam", metavar="DIR", help="default .aws-sam")
    parser.add_argument("--yes", action="store_true", help="apigw.delete: do not ask")
    return parser.parse_args(argv)


def say(text: str) -> None:
    print(f"deploy: {text}", file=sys.stderr, flush=True)


# -- the layer --------------------------------------------------------------------------------------------------------


def layer_build(place: Place) -> None:
    given = place.settings
    arguments = ["--arch", given.architecture, "--python", given.python]
    if given.get("P_LAYER_DOCSTRINGS") == "yes":
        arguments.append("--docstrings")
    code = layer.run(arguments)
    if code:
        raise DeployError("the layer was not built (see above)", code)


def layer_package(place: Place) -> None:
    if not (layer.OUT / "python").is_dir():
        raise DeployError(f"{layer.OUT.relative_to(ROOT)} has no layer; run make layer.build first")
    _aws(place)
    say("packing and uploading the layer (about 80 MB, only when it has changed)")
    where = _bucket(place, place.settings.stack)
    _sam(place, "package", "-t", "sam/layer.yaml", "--output-template-file", str(place.packaged_layer), *where)


def layer_deploy(place: Place) -> None:
    """Deploy the packaged layer; its ARN goes to stdout and into the settings file as O_LAYER_ARN."""
    if not place.packaged_layer.exists():
        raise DeployError("nothing is packaged; run make layer.package first")
    session = _aws(place)
    name = f"{place.settings.stack}-layer"
    given = {
        "PLayerName": place.settings.stack,
        "PRuntime": f"python{place.settings.python}",
        "PArchitecture": place.settings.architecture,
    }
    _sam_deploy(place, place.packaged_layer, name, given)
    arn = _outputs(session, name)["LayerArn"]
    settings.write(place.settings_file, {"O_LAYER_ARN": arn})
    say(f"O_LAYER_ARN is in {place.settings_file}")
    print(arn)


# -- the stack --------------------------------------------------------------------------------------------------------


def apigw_package(place: Place) -> None:
    parameters = _judged(place)
    _aws(place)
    say("building the function")
    _sam(place, "build", "-t", "sam/template.yaml", "--build-dir", str(place.built.parent), *_overrides(parameters))
    tidy(place.built.parent / "Function", layer.find_python(place.settings.python))
    if place.settings.isolation == "snap_start":
        place.built.write_text(snap_started(place.built.read_text(encoding="utf-8")), encoding="utf-8")
        _refuse(rules.findings(rules.read(place.built, parameters)))
    say("uploading the function")
    # Under a key of this release: CloudFormation compares templates and sends code only when its key is new, while a
    # candidate that the gate refused may lie in $LATEST, and would be published with the next change of a parameter.
    # https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-properties-lambda-function-code.html
    where = _bucket(place, f"{place.settings.stack}/{release(parameters)}")
    _sam(place, "package", "-t", str(place.built), "--output-template-file", str(place.packaged), *where)


def apigw_deploy(place: Place) -> None:
    """Deploy the packaged stack; the endpoint goes to stdout and, with the key, into the .env file."""
    if not place.packaged.exists():
        raise DeployError("nothing is packaged; run make apigw.package first")
    parameters = _judged(place)
    session = _aws(place)
    stack = _stack(session, place.settings.stack)
    _refuse_replacement(place, stack)
    parameters.setdefault("PApiLogRole", api_log_role(session, stack))
    parameters["PRelease"] = place.settings.get("P_RELEASE") or release(parameters)
    _sam_deploy(place, place.packaged, place.settings.stack, parameters)
    outputs = _outputs(session, place.settings.stack)
    key = _key(session, outputs)
    told = {"MCP_ENDPOINT_URL": outputs["Endpoint"], "MCP_API_KEY": key, "P_FN_NAME": place.settings.stack}
    where = {"AWS_DEFAULT_REGION": session.region_name}  # so that report, doctor and gate ask where it was deployed
    if profile := place.settings.get("AWS_PROFILE"):
        where["AWS_PROFILE"] = profile
    settings.write(place.env_file, told | where, private=True)
    say(f"MCP_ENDPOINT_URL{' and MCP_API_KEY are' if key else ' is'} in {place.env_file}")
    if (emulator := settings.line_of(place.env_file, "AWS_ENDPOINT_URL")) and not os.environ.get("AWS_ENDPOINT_URL"):
        say(f"{place.env_file} sends ops to AWS_ENDPOINT_URL={emulator}; take that line out to read the logs on AWS")
    print(outputs["Endpoint"])


def apigw_delete(place: Place) -> None:
    """Delete the stack after asking; a script says --yes."""
    name = place.settings.stack
    session = _aws(place)
    stack = _stack(session, name)
    if stack is None:
        say(f"there is no stack {name} in {session.region_name}; nothing to delete")
        return
    if not place.yes and not _confirmed(name, session.region_name):
        raise DeployError(f"{name} was left as it is")
    endpoint = _outputs(session, name).get("Endpoint") if stack.get("Outputs") else None
    cloudformation = session.client("cloudformation")
    cloudformation.delete_stack(StackName=name)
    say(f"deleting {name}; this can take minutes")
    try:
        cloudformation.get_waiter("stack_delete_complete").wait(StackName=stack["StackId"])
    except WaiterError as error:
        raise DeployError(f"{name} was not deleted: {error}; its events say why", EXIT_FAILED) from error
    if endpoint and settings.line_of(place.env_file, "MCP_ENDPOINT_URL") == endpoint:
        settings.write(place.env_file, {"MCP_ENDPOINT_URL": None, "MCP_API_KEY": None}, private=True)
    say(
        f"{name} is gone, its logs with it; the layer stays (aws cloudformation delete-stack --stack-name {name}-layer)"
    )


def tidy(function: Path, python: str) -> None:
    """Make a built function ready to be zipped: nothing of a developer's tools, bytecode beside each source, since
    /var/task is read-only and what is not compiled here is compiled on every cold start."""
    for directory in [path for path in function.rglob("*") if path.is_dir()]:
        if directory.name in ("__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"):
            shutil.rmtree(directory, ignore_errors=True)
    command = [python, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    command += ["-s", str(function), "-p", "/var/task", str(function)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DeployError(f"the function does not compile: {done.stdout.strip() or done.stderr.strip()}", EXIT_FAILED)


def snap_started(template: str) -> str:
    """The built template with SnapStart in the place of tenant isolation. SAM takes no template that has both, not even
    behind conditions."""
    document = yaml_parse(template)
    properties = document["Resources"]["Function"]["Properties"]
    properties.pop("TenancyConfig", None)
    properties["SnapStart"] = {"ApplyOn": "PublishedVersions"}
    return yaml.safe_dump(document, sort_keys=False, width=120)


def release(parameters: Mapping[str, str], function: Path | None = None) -> str:
    """A name of what is deployed: the same for the same code and parameters, another for any other."""
    digest = hashlib.sha256(repr(sorted(parameters.items())).encode())
    root = function or ROOT / "function"
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def api_log_role(session: boto3.Session, stack: Mapping[str, Any] | None) -> str:
    """`create` when the account has no role for API Gateway's logs, or this stack is the one that made it."""
    account = session.client("apigateway").get_account()
    if not account.get("cloudwatchRoleArn"):
        return "create"
    before = {p["ParameterKey"]: p["ParameterValue"] for p in (stack or {}).get("Parameters", [])}
    return str(before.get("PApiLogRole", "existing"))


def _judged(place: Place) -> dict[str, str]:
    """The parameters, after our rules have let them pass. Raises DeployError with all that is wrong."""
    parameters = place.settings.parameters()
    if not parameters.get("PLayerArn"):
        raise DeployError(f"O_LAYER_ARN is not in {place.settings_file}; run make layer first")
    _refuse(rules.findings(rules.read(rules.TEMPLATE, parameters)))
    if place.settings.isolation == "snap_start" and parameters.get("PFnStorage", "512") != "512":
        raise DeployError(f"SnapStart takes no more than 512 MB of /tmp, got P_FN_STORAGE={parameters['PFnStorage']}")
    return parameters


def _refuse(found: list[str]) -> None:
    if found:
        raise DeployError("\n".join(found))


def _refuse_replacement(place: Place, stack: Mapping[str, Any] | None) -> None:
    """What CloudFormation could do only by making a second function of the same name."""
    if stack is None:
        return
    name = place.settings.stack
    if stack["StackStatus"] == "ROLLBACK_COMPLETE":
        raise DeployError(f"{name} failed when it was first created and can only be deleted; run make apigw.delete")
    before = {p["ParameterKey"]: p["ParameterValue"] for p in stack.get("Parameters", [])}
    was, now = before.get("PIsolation", "tenant"), place.settings.isolation
    if (was == "tenant") != (now == "tenant"):
        raise DeployError(
            f"{name} was deployed with P_ISOLATION={was}, and Lambda cannot switch tenant isolation on or off; "
            f"run make apigw.delete first, or deploy P_ISOLATION={now} under another P_FN_NAME"
        )


def _confirmed(name: str, region: str) -> bool:
    if not sys.stdin.isatty():
        raise DeployError("apigw.delete asks before it deletes, and nobody can answer here; say --yes")
    print(f"This deletes {name} in {region}: function, API, key and logs. Type its name to go on: ", end="", flush=True)
    return sys.stdin.readline().strip() == name


# -- AWS --------------------------------------------------------------------------------------------------------------


def _aws(place: Place) -> boto3.Session:
    """A session whose credentials work. Raises DeployError with what is missing."""
    profile, region = place.settings.get("AWS_PROFILE"), place.settings.get("AWS_REGION")
    try:
        session = boto3.Session(profile_name=profile or None, region_name=region or None)
    except ProfileNotFound as error:
        message = f"AWS_PROFILE names {profile}, which ~/.aws does not have; run aws configure --profile {profile}"
        raise DeployError(message) from error
    if session.region_name is None:
        raise DeployError(f"no region is set; put AWS_REGION into {place.settings_file}, or into the profile")
    try:
        session.client("sts").get_caller_identity()
    except (NoCredentialsError, PartialCredentialsError) as error:
        message = f"no AWS credentials were found; put AWS_PROFILE into {place.settings_file}, or run aws configure"
        raise DeployError(message) from error
    except ClientError as error:
        raise DeployError(f"AWS refuses the credentials: {error}", EXIT_UNREACHABLE) from error
    except BotoCoreError as error:
        raise DeployError(f"AWS cannot be reached: {error}", EXIT_UNREACHABLE) from error
    if bucket := place.settings.get("BUCKET"):
        _check_bucket(session, bucket)
    return session


def _check_bucket(session: boto3.Session, bucket: str) -> None:
    try:
        session.client("s3").head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchBucket"):
            message = (
                f"BUCKET names {bucket}, which does not exist; make it with aws s3 mb s3://{bucket}, "
                "or leave BUCKET out and SAM makes one of its own"
            )
        else:
            message = f"BUCKET names {bucket}, which this account may not use; name one of your own, or leave it out"
        raise DeployError(message) from error


def _stack(session: boto3.Session, name: str) -> dict[str, Any] | None:
    try:
        found: list[dict[str, Any]] = session.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
    except ClientError as error:
        if "does not exist" in str(error):
            return None
        raise
    return next((stack for stack in found if stack["StackStatus"] != "DELETE_COMPLETE"), None)


def _outputs(session: boto3.Session, name: str) -> dict[str, str]:
    stack = _stack(session, name)
    return {output["OutputKey"]: output["OutputValue"] for output in (stack or {}).get("Outputs", [])}


def _key(session: boto3.Session, outputs: Mapping[str, str]) -> str:
    """The API key's value, empty where the API takes none. It goes to the .env file only."""
    if "ApiKeyId" not in outputs:
        return ""
    return str(session.client("apigateway").get_api_key(apiKey=outputs["ApiKeyId"], includeValue=True)["value"])


# -- the SAM CLI ------------------------------------------------------------------------------------------------------


def _sam_deploy(place: Place, template: Path, name: str, parameters: Mapping[str, str]) -> None:
    say(f"deploying {name}")
    _sam(
        place, "deploy", "-t", str(template), "--stack-name", name, "--no-confirm-changeset",
        "--no-fail-on-empty-changeset", "--capabilities", "CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND",
        *_bucket(place, place.settings.stack), *_overrides(parameters),
    )  # fmt: skip


def _sam(place: Place, *arguments: str) -> None:
    """Run the SAM CLI. It says little when all goes well; what it says goes to stderr when it fails."""
    if subprocess.run(["sh", str(ROOT / "sam" / "tool.sh"), "sam"], check=False).returncode:
        raise DeployError("there is no SAM CLI to work with (see above)")
    python = layer.find_python(place.settings.python)
    home = Path(sys.base_prefix) / "bin" if python == sys.executable else Path(python).parent
    environment = {**os.environ, "SAM_CLI_TELEMETRY": "0", "PATH": f"{home}:{os.environ.get('PATH', '')}"}
    for name, value in (("AWS_PROFILE", "AWS_PROFILE"), ("AWS_DEFAULT_REGION", "AWS_REGION")):
        if place.settings.get(value):
            environment[name] = place.settings.get(value)
    command = [str(ROOT / ".tools" / "sam" / "bin" / "sam"), *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        said = _follow(process)
    if process.returncode:
        print(said, file=sys.stderr)
        raise DeployError(f"sam {arguments[0]} failed (see above)", EXIT_FAILED)


def _follow(process: subprocess.Popen[str]) -> str:
    """What the process says, with a dot on stderr for every few seconds that it takes."""
    done = threading.Event()

    def dots() -> None:
        while not done.wait(DOT_EVERY_S):
            print(".", end="", file=sys.stderr, flush=True)

    ticking = threading.Thread(target=dots, daemon=True)
    ticking.start()
    assert process.stdout is not None
    try:
        return process.stdout.read()
    finally:
        done.set()
        ticking.join()


def _bucket(place: Place, prefix: str) -> list[str]:
    bucket = place.settings.get("BUCKET")
    return ["--s3-prefix", prefix, *(["--s3-bucket", bucket] if bucket else ["--resolve-s3"])]


def _overrides(parameters: Mapping[str, str]) -> list[str]:
    pairs = [f"ParameterKey={name},ParameterValue={value}" for name, value in sorted(parameters.items())]
    return ["--parameter-overrides", *pairs] if pairs else []


STEPS: dict[str, tuple[Callable[[Place], None], ...]] = {
    "layer": (layer_build, layer_package, layer_deploy),
    "layer.build": (layer_build,),
    "layer.package": (layer_package,),
    "layer.deploy": (layer_deploy,),
    "apigw": (apigw_package, apigw_deploy),
    "apigw.package": (apigw_package,),
    "apigw.deploy": (apigw_deploy,),
    "apigw.delete": (apigw_delete,),
}


def main() -> None:
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
