"""The Python interpreter: code in, an `Execution` out, each run in a forked child of a warm template process.

Importing this package must stay cheap: the template processes import it too, and they load the standard library only.
"""
