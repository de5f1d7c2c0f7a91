"""Lambda's resource policies: who beside the account's own users may invoke a function, an alias or a version.

It judges what API Gateway may call and stores nothing on disk. Shapes and refusals as
https://docs.aws.amazon.com/lambda/latest/api/API_AddPermission.html gives them.
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

GATEWAY = "apigateway.amazonaws.com"
_INVOKES = ("lambda:InvokeFunction", "lambda:*")


class PolicyError(Exception):
    """A refusal: HTTP status, its exception's name, and the message."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


@dataclass(slots=True)
class Policy:
    """The statements of one function, alias or version, by their ids."""

    statements: dict[str, dict[str, Any]] = field(default_factory=dict)
    revision_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def add(self, asked: Mapping[str, Any], resource_arn: str) -> dict[str, Any]:
        """The statement of an AddPermission request, added. Raises PolicyError where its id is taken."""
        sid, principal = str(asked.get("StatementId", "")), str(asked.get("Principal", ""))
        if sid in self.statements:
            raise PolicyError(
                409,
                "ResourceConflictException",
                f"The statement id ({sid}) provided already exists. "
                "Please provide a new statement id, or remove the existing statement.",
            )
        statement: dict[str, Any] = {
            "Sid": sid,
            "Effect": "Allow",
            "Principal": {"Service": principal} if principal.endswith(".amazonaws.com") else {"AWS": principal},
            "Action": asked.get("Action", ""),
            "Resource": resource_arn,
        }
        if source_arn := asked.get("SourceArn"):
            statement["Condition"] = {"ArnLike": {"AWS:SourceArn": source_arn}}
        self.statements[sid] = statement
        self.revision_id = str(uuid.uuid4())
        return statement

    def remove(self, sid: str) -> None:
        """Raises PolicyError where there is no such statement."""
        if sid not in self.statements:
            raise PolicyError(404, "ResourceNotFoundException", f"Statement {sid} is not found in resource policy.")
        del self.statements[sid]
        self.revision_id = str(uuid.uuid4())

    def document(self) -> dict[str, Any]:
        """What GetPolicy answers. Raises PolicyError where nothing is allowed."""
        if not self.statements:
            raise PolicyError(404, "ResourceNotFoundException", "The resource you requested does not exist.")
        policy = {"Version": "2012-10-17", "Id": "default", "Statement": list(self.statements.values())}
        return {"Policy": json.dumps(policy), "RevisionId": self.revision_id}

    def lets_gateway(self, method_arn: str) -> bool:
        """Whether API Gateway may invoke from this method: arn:aws:execute-api:REGION:ACCOUNT:API/STAGE/METHOD/PATH."""
        return any(
            statement["Principal"] == {"Service": GATEWAY}
            and statement["Action"] in _INVOKES
            and fnmatchcase(method_arn, statement.get("Condition", {}).get("ArnLike", {}).get("AWS:SourceArn", "*"))
            for statement in self.statements.values()
        )
