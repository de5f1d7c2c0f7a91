"""Logs, reports, tuning and diagnosis of a deployed interpreter; knows boto3 and an endpoint, never the function."""

from pathlib import Path

# How a person calls this room: from the repository, or by the command that `pip install` made.
COMMAND = "lci-ops" if Path(__file__).parents[1].name == "lambda_code_interpreter" else "python -m ops"
