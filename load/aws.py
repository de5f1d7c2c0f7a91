"""boto3 clients as the environment and `.env` configure them, and AWS's refusals as one sentence.

On a loopback AWS_ENDPOINT_URL without credentials it uses made-up ones, as the local stack asks. Nothing is retried by
boto3: a call that was throttled must be seen as one.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from load.settings import SettingsError, is_loopback


class AwsRefused(Exception):
    """AWS cannot be reached, has no such thing or refuses us; the message says which and what to do."""


def client(service: str, connections: int = 10, read_timeout_s: float = 60.0) -> Any:
    """A client of a service; AWS_ENDPOINT_URL leads to the local stack. Raises AwsRefused or SettingsError."""
    import boto3  # half a second that only these commands need
    from botocore.config import Config

    config = Config(retries={"total_max_attempts": 1}, max_pool_connections=connections, read_timeout=read_timeout_s)
    local = is_loopback(os.environ.get("AWS_ENDPOINT_URL", ""))
    made_up: dict[str, Any] = {}
    if local and not os.environ.get("AWS_ACCESS_KEY_ID") and not os.environ.get("AWS_PROFILE"):
        made_up = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
    if local and not (os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")):
        made_up["region_name"] = "us-east-1"
    with told(service):
        return boto3.client(service, config=config, **made_up)  # type: ignore[call-overload]


@contextmanager
def told(doing: str) -> Iterator[None]:
    """Turns what boto3 raises into AwsRefused, and a missing region into SettingsError; `doing` says what was tried."""
    from botocore.exceptions import BotoCoreError, ClientError, NoRegionError, WaiterError

    try:
        yield
    except NoRegionError as error:
        raise SettingsError("no AWS region; set AWS_REGION, or AWS_ENDPOINT_URL for the local stack") from error
    except ClientError as error:
        said = error.response.get("Error", {})
        raise AwsRefused(f"{doing}: AWS says {said.get('Code')}: {said.get('Message')}") from error
    except (WaiterError, BotoCoreError) as error:
        raise AwsRefused(f"{doing}: {error}") from error
