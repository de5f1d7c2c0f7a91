"""Judges any MCP endpoint over the wire: the protocol, the interpreter's tools, and what its blocking really stops.

Knows an endpoint URL and nothing else: it must not import the function, the local stack or an MCP SDK.
"""
