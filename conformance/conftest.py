"""Lets plain `pytest conformance --endpoint URL` find the suite's plugin."""

pytest_plugins = ["conformance.plugin"]
