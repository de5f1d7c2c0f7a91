"""The Python interpreter: code in, an `Execution` out, each run in a forked child of a warm template process.

Who runs what:

    the handler         engine (one call), template (starts template processes), watch (a child, to its end), outcome,
                        execution (the answer's model), files, packages, sessions
    template processes  zygote
    the code's process  child, audit and judges (the hook)
    pip's process       pip_confined
    several of them     pipes (what they agree on), confinement, kernel, outputs

Importing this package must stay cheap: the template processes import it too, and they load the standard library only.
"""
