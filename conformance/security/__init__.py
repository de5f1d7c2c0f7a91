"""Runs the corpus against an endpoint and judges it by effect; it must not judge by wording alone."""
