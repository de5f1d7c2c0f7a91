"""The shapes a stage's load can have, one a file: a validated configuration and the intended times it yields.

Pure arithmetic. They must not read a clock, sleep, or import gevent.
"""
