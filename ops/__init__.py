"""Logs, reports, tuning and diagnosis of a deployed interpreter; knows boto3 and an endpoint, never the function."""
