"""Becomes one execution environment: builds what surrounds the runtime, then runs it; it decides nothing about calls.

A program of its own (`python -I -S launch.py FD`, standard library only), so that the process that serves HTTP never
forks. FD is a socket: it reads one line of JSON, the plan, and answers with one line, {"runtime_api": "host:port"}
(with the listening socket attached when it made one) or {"error": "..."}. Then every line it reads starts a runtime in
what surrounds it, and {"ended": code} tells its end: Lambda too starts a crashed runtime again with the same /tmp.

    launcher            waits
      init              pid 1 of its own namespace: what is below dies with it
        runtime         awslambdaric, without privileges
          ...           whatever the function starts

Without namespaces there is no init; the launcher is the reaper of everything below it, so that it can be found.
"""

import array
import contextlib
import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any, NoReturn

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1,
    2,
    4,
    8,
    32,
    4096,
    16384,
    1 << 18,
)
MNT_DETACH = 2
AT_RECURSIVE, MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID = 0x8000, 1, 2
MOUNT_SETATTR = 442  # the same number on every architecture
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 1, 4, 36
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
RUNTIME_API = ("127.0.0.1", 9001)  # where Lambda's own is
DEVICES = ("null", "zero", "full", "random", "urandom")
# One uid per environment: RLIMIT_NPROC counts processes by uid, and neighbours must not use up each other's.
FIRST_UID, UIDS_APART, GID = 0x40000000, 0x10000000, 990
TASKS_AND_FILES = 1024  # https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html

Plan = dict[str, Any]
libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parents[2]))  # -I leaves this package out
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    plan = json.loads(_line(control) or b"null")
    if plan is None:
        os._exit(0)
    die_with_parent()
    try:
        code = isolated(plan, control) if plan["isolated"] else plain(plan, control)
    except OSError as error:
        answer(control, {"error": f"{error.strerror} ({error.filename or 'launcher'})"})
        code = 70
    os._exit(code)


# -- with namespaces --------------------------------------------------------------------------------------------------


def isolated(plan: Plan, control: socket.socket) -> int:
    from sam.local import syscalls  # now: once the root is exchanged, these files are out of sight

    del syscalls
    uid, inner_uid = namespaces(plan)
    init = os.fork()
    if init == 0:
        try:
            run_init(plan, control, uid, inner_uid)
            os._exit(0)
        except OSError as error:
            answer(control, {"error": f"{error.strerror} ({error.filename or 'init'})"})
        except BaseException as error:
            answer(control, {"error": f"{type(error).__name__}: {error}"})
        os._exit(70)
    control.close()
    return ended(init)


def namespaces(plan: Plan) -> tuple[int | None, int]:
    """Leave the host's namespaces. Returns the runtime's uid, None when one uid is all there is, and init's uid."""
    flags = os.CLONE_NEWNS | os.CLONE_NEWPID | os.CLONE_NEWIPC | os.CLONE_NEWUTS
    if not plan["host_network"]:
        flags |= os.CLONE_NEWNET
    uid, gid = os.geteuid(), os.getegid()
    try:
        os.unshare(flags)
    except PermissionError:
        os.unshare(flags | os.CLONE_NEWUSER)
        write("/proc/self/setgroups", "deny")
        write("/proc/self/uid_map", f"993 {uid} 1")
        write("/proc/self/gid_map", f"{GID} {gid} 1")
        return None, 993
    own = FIRST_UID + os.getpid()
    return own, own + UIDS_APART


def run_init(plan: Plan, control: socket.socket, uid: int | None, init_uid: int) -> None:
    die_with_parent()
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    build_root(plan, uid if uid is not None else 993)
    with contextlib.suppress(OSError):
        socket.sethostname("lambda")
    if plan["host_network"]:
        answer(control, {"runtime_api": plan["runtime_api"]})
    else:
        raise_loopback()
        listening = socket.create_server(RUNTIME_API)
        answer(control, {"runtime_api": "{}:{}".format(*RUNTIME_API)}, listening)
        listening.close()
    if uid is None:
        libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    else:
        step_down(init_uid)
    while _line(control):
        if uid is not None:
            os.seteuid(0)
        runtime = os.fork()
        if runtime == 0:
            control.close()
            become_runtime(plan, uid)
        if uid is not None:
            step_down(init_uid)
        answer(control, {"ended": ended(runtime)})


def step_down(uid: int) -> None:
    """Wait without privileges; the saved uid is root's, so that the next runtime can be given its user."""
    os.setgroups([])
    os.setresgid(GID, GID, 0)
    os.setresuid(uid, uid, 0)
    die_with_parent()  # a change of uid forgets it


def build_root(plan: Plan, uid: int) -> None:
    """A small root of read-only binds, a private /tmp, its own /proc, a few devices, and nothing else of the host."""
    root = plan["root"]
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=1m")
    for name in ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        host = "/" + name
        if os.path.islink(host):
            os.symlink(os.readlink(host), root + host)
        elif os.path.isdir(host):
            bind(host, root + host)
    for source, target in plan["binds"]:
        bind(source, root + target)
    build_etc(root, uid)
    os.makedirs(root + "/dev")
    for name in DEVICES:
        bind("/dev/" + name, root + "/dev/" + name, read_only=False)
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        os.symlink("/proc/self/fd" + target, f"{root}/dev/{name}")
    for name in ("proc", "tmp", "mnt", "home"):
        os.makedirs(f"{root}/{name}", exist_ok=True)
    mount("proc", root + "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    size = plan["tmp_mb"]
    mount("tmpfs", root + "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, f"mode=700,uid={uid},gid={GID},size={size}m")
    os.chdir(root)
    if libc.syscall(PIVOT_ROOT[os.uname().machine], b".", b".") != 0:
        fail("pivot_root")
    if libc.umount2(b".", MNT_DETACH) != 0:
        fail("umount of the host's root")
    os.chdir("/")
    mount(None, "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def build_etc(root: str, uid: int) -> None:
    os.makedirs(root + "/etc")
    for name in ("ssl", "pki", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "localtime"):
        if os.path.exists("/etc/" + name):
            bind(os.path.realpath("/etc/" + name), f"{root}/etc/{name}")
    write(
        root + "/etc/passwd", f"root:x:0:0:root:/root:/sbin/nologin\nsbx_user1051:x:{uid}:{GID}::/tmp:/sbin/nologin\n"
    )
    write(root + "/etc/group", f"root:x:0:\nsbx_user1051:x:{GID}:\n")
    write(root + "/etc/hosts", "127.0.0.1 localhost lambda\n")
    write(root + "/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
    with contextlib.suppress(OSError), open("/etc/resolv.conf") as file:
        write(root + "/etc/resolv.conf", file.read())


def bind(source: str, target: str, read_only: bool = True) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        write(target, "")
    mount(source, target, None, MS_BIND | MS_REC)
    if not read_only:
        return
    attributes = struct.pack("QQQQ", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID, 0, 0, 0)
    if libc.syscall(MOUNT_SETATTR, -100, target.encode(), AT_RECURSIVE, attributes, len(attributes)) != 0:
        # Before Linux 5.12: the mount itself only, with the flags it has (a user namespace may not take them off).
        kept = os.statvfs(source).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC)
        mount(None, target, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | kept)


def raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14x", b"lo", 0)
        (flags,) = struct.unpack_from("16xH", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request))
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))


# -- without ----------------------------------------------------------------------------------------------------------


def plain(plan: Plan, control: socket.socket) -> int:
    """The runtime as an ordinary process: of this user, and never as root, whose reach would be the whole machine."""
    from sam.local import processes

    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def end_all(*_: object) -> None:
        processes.kill_below(os.getpid())
        os._exit(128 + signal.SIGTERM)

    # Nothing but this process knows all that a function started, so it may not die first when the stack is killed.
    signal.signal(signal.SIGTERM, end_all)
    die_with_parent(signal.SIGTERM)
    uid = None
    if os.geteuid() == 0:
        uid = FIRST_UID + os.getpid()
        os.chown(plan["scratch"], uid, GID)
    answer(control, {"runtime_api": plan["runtime_api"]})
    while _line(control):
        runtime = os.fork()
        if runtime == 0:
            control.close()
            become_runtime(plan, uid)
        code = ended(runtime)
        while left := processes.descendants(os.getpid()):
            for pid in left:
                processes.kill(pid)
            with contextlib.suppress(ChildProcessError):
                os.wait()
        answer(control, {"ended": code})
    return 0


# -- both -------------------------------------------------------------------------------------------------------------


def become_runtime(plan: Plan, uid: int | None) -> NoReturn:
    """Ends as the runtime, or with 70 and a line on stderr, which is the environment's log."""
    try:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            with contextlib.suppress(OSError):  # some are the C library's own
                signal.signal(number, signal.SIG_DFL)
        if uid is not None:
            drop_to(uid)
        limit(resource.RLIMIT_NOFILE, TASKS_AND_FILES)
        limit(resource.RLIMIT_CORE, 0)
        if plan["isolated"]:
            limit(resource.RLIMIT_NPROC, TASKS_AND_FILES)
        os.chdir(plan["cwd"])
        if plan["lambda_syscalls"]:
            from sam.local import syscalls

            syscalls.install(syscalls.lambda_filter(os.uname().machine))
        os.execve(plan["argv"][0], plan["argv"], plan["environment"])
    except BaseException as error:
        os.write(2, f"launcher: {type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(70)


def drop_to(uid: int) -> None:
    os.setgroups([])
    os.setresgid(GID, GID, GID)
    os.setresuid(uid, uid, uid)


def limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def ended(pid: int) -> int:
    """Reap everything until `pid` has ended; its exit code, 128 and the signal's number for a death by signal."""
    while True:
        try:
            done, status = os.wait()
        except InterruptedError:
            continue
        if done == pid:
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def die_with_parent(by: signal.Signals = signal.SIGKILL) -> None:
    libc.prctl(PR_SET_PDEATHSIG, by, 0, 0, 0)


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    encoded = [None if text is None else text.encode() for text in (source, target, kind, data)]
    if libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]) != 0:
        fail(f"mount of {target}")


def fail(what: str) -> NoReturn:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), what)


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def answer(control: socket.socket, message: Plan, listening: socket.socket | None = None) -> None:
    attached = []
    if listening is not None:
        attached = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listening.fileno()]))]
    control.sendmsg([json.dumps(message).encode() + b"\n"], attached)


def _line(control: socket.socket) -> bytes:
    """The next line, or nothing once the other end is closed."""
    data = b""
    while not data.endswith(b"\n"):
        more = control.recv(65536)
        if not more:
            return b""
        data += more
    return data


if __name__ == "__main__":
    main()
