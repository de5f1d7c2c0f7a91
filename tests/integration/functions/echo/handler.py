"""A function for testing the local stack alone: it does what the event's JSON body asks for and tells what it saw."""

import ctypes
import errno
import json
import os
import socket
import subprocess
import sys
import time
import uuid

ENVIRONMENT_ID = uuid.uuid4().hex
invocations = 0


def handler(event, context):
    global invocations
    invocations += 1
    ask = json.loads(event.get("body") or "{}") if "httpMethod" in event else event
    told = {"environment": ENVIRONMENT_ID, "invocation": invocations, "pid": os.getpid()}
    time.sleep(ask.get("wait", 0))
    told["answer"] = ACTIONS[ask.get("do", "event")](event, context, ask)
    if "raw" in ask:
        return ask["raw"]
    headers = {
        "Content-Type": "application/json",
        "X-Lambda-Environment-Id": ENVIRONMENT_ID,
        "X-Lambda-Invocation": str(invocations),
    }
    return {"statusCode": 200, "headers": headers, "body": json.dumps(told), "isBase64Encoded": False}


def _exit(_event, _context, ask):
    os._exit(ask.get("code", 1))


def _kill(_event, _context, _ask):
    os.kill(os.getpid(), 9)


def _fail(_event, _context, ask):
    raise ValueError(ask.get("message", "asked to fail"))


def _eat(_event, _context, ask):
    block = bytearray(ask["mb"] * 1024 * 1024)
    block[::4096] = b"x" * len(block[::4096])
    time.sleep(ask.get("hold", 5))
    return len(block)


def _print(_event, _context, ask):
    print(ask["text"])
    print("on stderr", file=sys.stderr, flush=True)
    return "printed"


def _burn(_event, _context, ask):
    began = time.process_time()
    while time.process_time() - began < ask["cpu_s"]:
        pass


def _leave_behind(_event, _context, _ask):
    """A daemon in a session of its own, the hardest kind to find again."""
    return subprocess.Popen(["sleep", "300"], start_new_session=True).pid


def _look(_event, _context, _ask):
    return {
        "environ": dict(os.environ),
        "cwd": os.getcwd(),
        "uid": os.getuid(),
        "path": sys.path,
        "processes": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
        "root": sorted(os.listdir("/")),
        "status": open("/proc/self/status").read(),
        "tmp": sorted(os.listdir("/tmp")),
        "interfaces": [name for _, name in socket.if_nameindex()],
    }


def _syscall(_event, _context, ask):
    libc = ctypes.CDLL(None, use_errno=True)
    ctypes.set_errno(0)
    result = libc.syscall(*[ctypes.c_long(number) for number in ask["call"]])
    return {"result": result, "errno": ctypes.get_errno()}


def _open(_event, _context, ask):
    try:
        with open(ask["path"], ask.get("mode", "r")) as file:
            return {"text": file.read(100) if "r" in ask.get("mode", "r") else str(file.write("x"))}
    except OSError as error:
        return {"error": errno.errorcode[error.errno]}


ACTIONS = {
    "event": lambda event, context, ask: event,
    "context": lambda event, context, ask: {
        "request_id": context.aws_request_id,
        "memory": context.memory_limit_in_mb,
        "arn": context.invoked_function_arn,
        "tenant": context.tenant_id,
        "remaining_ms": context.get_remaining_time_in_millis(),
    },
    "sleep": lambda event, context, ask: time.sleep(ask["seconds"]),
    "nothing": lambda event, context, ask: None,
    "exit": _exit,
    "kill": _kill,
    "fail": _fail,
    "eat": _eat,
    "print": _print,
    "burn": _burn,
    "leave-behind": _leave_behind,
    "look": _look,
    "syscall": _syscall,
    "open": _open,
}
