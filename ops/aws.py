"""boto3 clients made from flags, environment and `.env`, and AWS's refusals turned into one sentence.

It must not print or keep credentials; on a loopback endpoint without any it uses made-up ones, as the local stack asks.
"""

import os
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import botocore.config
import botocore.eventstream
import botocore.exceptions
import urllib3.exceptions

from ops.failures import OpsError, Unreachable, UsageError

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_logs import CloudWatchLogsClient

_DOTENV_NAMES = ("MCP_ENDPOINT_URL", "MCP_API_KEY", "P_FN_NAME", "P_FN_MEMORY", "P_FN_TIMEOUT", "OPS_LOG_GROUP")
_REFUSED = {
    "AccessDenied",
    "AccessDeniedException",
    "UnrecognizedClientException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "MissingAuthenticationToken",
    "OptInRequired",
}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
THROTTLED = {"ThrottlingException", "Throttling", "TooManyRequestsException", "LimitExceededException"}
_NOT_TAKEN = {"InvalidParameterException", "InvalidParameterValueException", "ValidationException", "ValidationError"}
# What botocore raises when a connection cannot be made, or is lost.
NO_ANSWER = (botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError)
# What comes out of an event stream that is cut or garbled: botocore reads it from urllib3 without translating.
BROKEN_STREAM = (urllib3.exceptions.HTTPError, botocore.eventstream.ParserError)
# Ours is the retrying: one pace for the whole command, and a person who can see it.
_CONFIG = botocore.config.Config(retries={"total_max_attempts": 1}, connect_timeout=10, read_timeout=60)
# The alias through which sam/openapi.yaml reaches the function: what it stands for is what clients get.
SERVING = "live"
_AS_GIVEN = botocore.config.Config(inject_host_prefix=False)


@dataclass(frozen=True, slots=True)
class Account:
    """Where to look: `endpoint_url` None is AWS itself; `region_is_default` says that nobody configured one."""

    region: str
    endpoint_url: str | None
    profile: str | None
    region_is_default: bool = False

    @property
    def is_local(self) -> bool:
        """Whether the endpoint is on this machine, where AWS's quotas do not hold."""
        return urlsplit(self.endpoint_url or "").hostname in {"127.0.0.1", "localhost", "::1"}


def read_dotenv(path: Path, environ: MutableMapping[str, str]) -> None:
    """Adds to `environ` what `.env` says of our own and AWS's names, never over what is already set."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        name = name.strip()
        if equals and not name.startswith("#") and (name in _DOTENV_NAMES or name.startswith("AWS_")):
            environ.setdefault(name, value.strip().strip("'\""))


def find_account(region: str | None, profile: str | None, endpoint_url: str | None) -> Account:
    """The account of these flags, else of the environment as boto3 reads it. Raises UsageError without a region."""
    try:
        session = boto3.Session(profile_name=profile)
    except botocore.exceptions.ProfileNotFound as problem:
        raise UsageError(f"{problem}; name one of ~/.aws/config with --profile or AWS_PROFILE.") from None
    endpoint_url = endpoint_url or os.environ.get("AWS_ENDPOINT_URL") or None
    found = region or os.environ.get("AWS_REGION") or session.region_name
    if not found and not endpoint_url:
        raise UsageError("No AWS region is configured; give --region or set AWS_REGION, for example us-east-1.")
    return Account(found or "us-east-1", endpoint_url, profile, region_is_default=not found)


def logs_client(account: Account) -> "CloudWatchLogsClient":
    """A CloudWatch Logs client that leaves retrying to us.

    For live tail and a few others boto3 puts a name before the host (`stream-logs...`); only AWS has such hosts.
    """
    config = _CONFIG if account.endpoint_url is None else _CONFIG.merge(_AS_GIVEN)
    with aws_sentences(account):
        return _session(account).client("logs", endpoint_url=account.endpoint_url, config=config)


def lambda_client(account: Account) -> "LambdaClient":
    """A Lambda client with botocore's own retries, for its few calls, and time for a long invocation."""
    config = botocore.config.Config(retries={"mode": "standard", "total_max_attempts": 4}, read_timeout=910)
    with aws_sentences(account):
        return _session(account).client("lambda", endpoint_url=account.endpoint_url, config=config)


def iam_client(account: Account) -> Any:
    """An IAM client, for reading what a role allows."""
    with aws_sentences(account):
        return _session(account).client("iam", endpoint_url=account.endpoint_url)


def s3_client(account: Account) -> Any:
    """An S3 client, for reading payloads."""
    with aws_sentences(account):
        return _session(account).client("s3", endpoint_url=account.endpoint_url)


def _session(account: Account) -> boto3.Session:
    session = boto3.Session(profile_name=account.profile, region_name=account.region)
    if account.is_local and session.get_credentials() is None:
        return boto3.Session("local", "local", region_name=account.region)
    return session


def split_name(function: str) -> tuple[str, str | None]:
    """The name of a function and the qualifier, from `NAME`, `NAME:QUALIFIER` or an ARN."""
    name, _, qualifier = function.rpartition(":function:")[2].partition(":")
    return name, qualifier or None


def error_code(problem: botocore.exceptions.ClientError) -> str:
    """AWS's own name for what went wrong."""
    return str(problem.response.get("Error", {}).get("Code", ""))


@contextmanager
def aws_sentences(account: Account) -> Iterator[None]:
    """Turns what boto3 raises inside into an OpsError: Unreachable for no answer and for refused credentials."""
    where = account.endpoint_url or f"AWS in {account.region}"
    try:
        yield
    except (botocore.exceptions.NoCredentialsError, botocore.exceptions.PartialCredentialsError):
        raise Unreachable(
            f"No AWS credentials were found for {where}; set AWS_PROFILE or run `aws sso login`."
        ) from None
    except (botocore.exceptions.TokenRetrievalError, botocore.exceptions.SSOError) as problem:
        raise Unreachable(f"The AWS login has ended ({problem}); run `aws sso login`.") from None
    except botocore.exceptions.ParamValidationError as problem:
        raise UsageError(f"AWS takes no such value: {' '.join(str(problem.kwargs['report']).split())}.") from None
    except botocore.exceptions.ClientError as problem:
        raise _client_sentence(problem, where) from None
    except botocore.exceptions.InvalidRegionError:
        raise UsageError(f"{account.region!r} is no region; write it like us-east-1.") from None
    except (*NO_ANSWER, *BROKEN_STREAM, ValueError) as problem:
        if isinstance(problem, ValueError) and "endpoint" not in str(problem).lower():
            raise
        raise Unreachable(
            f"{where} does not answer ({problem}); check the region, the network or AWS_ENDPOINT_URL."
        ) from None


def _client_sentence(problem: botocore.exceptions.ClientError, where: str) -> OpsError:
    code, operation = error_code(problem), problem.operation_name
    message = problem.response.get("Error", {}).get("Message", "")
    status = problem.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if code in _EXPIRED:
        return Unreachable(f"The AWS login has ended ({code}); run `aws sso login`, or renew the keys in AWS_PROFILE.")
    if code in _REFUSED or status in {401, 403}:
        return Unreachable(f"{where} refused our credentials for {operation} ({code}: {message}); check AWS_PROFILE.")
    if code in THROTTLED:
        return Unreachable(f"{where} kept throttling {operation}; try again later or with a shorter --since.")
    if code in {"ResourceNotFoundException", "NoSuchKey", "NoSuchBucket"}:
        return UsageError(
            f"{where} knows no such thing ({operation}: {message}); check --group, --function and the region."
        )
    if code in _NOT_TAKEN:
        return UsageError(f"{where} does not take what {operation} was given: {message.rstrip('.')}.")
    return OpsError(f"{where} answered {operation} with {code or 'an error'}: {message}")
