"""`python -m sam.local`: the command line of the local stack; it starts the parts and ends them, and does no work."""

import argparse
import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from aiohttp import web

from .aws import Aws, is_aws_request
from .console import Console, wants_page
from .cpu import FULL_VCPU_MB, Share, shares
from .environment import INIT_LIMIT_S, MB, Site
from .functions import Clock, Functions, release_as_deployed
from .gateway import Gateway
from .host import Host, LaunchError, probe
from .lambda_api import LambdaApi
from .log_store import MOST_BYTES
from .logs import LogWriter
from .pool import SCALE_OUT_PER_10_S, Pool
from .scratch import scratch
from .stack import Stack, StackError, configured, read_stack

EXIT_OK, EXIT_USAGE, EXIT_INTERRUPTED = 0, 2, 130
_TEMPLATE = Path(__file__).parents[1] / "template.yaml"
_EXAMPLES = """examples:
  python -m sam.local --port 3000
  python -m sam.local --port 0 --memory 512 --timeout 20 --log-format text
  python -m sam.local --env MCP_RESPONSE=json --confinement kernel
  python -m sam.local --api-key "$MCP_API_KEY"    (clients then need the header x-api-key)
  python -m sam.local --cpu-share --memory 512    (as slow as 512 MB are on Lambda)
  python -m sam.local --parameter PIsolation=snap_start

With AWS_ENDPOINT_URL set to the printed aws_endpoint_url, boto3 and the AWS CLI read its logs and change its settings.
The printed console is a page to try the interpreter from a browser.
"""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sam.local",
        description="Runs the function of a SAM template on this machine as Lambda and API Gateway would. "
        "Prints one line of JSON when it is ready, and stays until Ctrl-C or SIGTERM.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=3000, help="0 takes a free one (default 3000)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--template", type=Path, default=_TEMPLATE, help="SAM template (default sam/template.yaml)")
    parser.add_argument(
        "--parameter", action="append", default=[], metavar="NAME=VALUE", help="a parameter of the template; repeat"
    )
    parser.add_argument(
        "--concurrency", type=int, help="environments at most (default: reserved concurrency, at least 10)"
    )
    parser.add_argument("--memory", type=int, metavar="MB", help="over the template's (also P_FN_MEMORY)")
    parser.add_argument("--timeout", type=int, metavar="S", help="over the template's (also P_FN_TIMEOUT)")
    parser.add_argument("--env", action="append", default=[], metavar="K=V", help="a variable of the function; repeat")
    parser.add_argument("--log-format", choices=["text", "json"], help="over the template's")
    parser.add_argument("--layer", type=Path, metavar="DIR", help="a built layer (holding python/) in place of .venv")
    parser.add_argument(
        "--confinement",
        choices=["lambda", "kernel"],
        default="lambda",
        help="lambda: system calls that Lambda refuses are refused (default); kernel: none are",
    )
    parser.add_argument(
        "--network",
        choices=["none", "host"],
        default="none",
        help="none: environments have loopback alone (default); host: they reach what this machine reaches",
    )
    parser.add_argument(
        "--cpu-share", action="store_true", help="CPU by memory, one vCPU at 1769 MB (default: the whole machine)"
    )
    parser.add_argument(
        "--no-freeze",
        dest="freeze",
        action="store_false",
        help="let processes run on between calls, as Lambda does not",
    )
    parser.add_argument(
        "--init-limit", type=float, default=INIT_LIMIT_S, metavar="S", help="seconds for the init phase (default 10)"
    )
    parser.add_argument(
        "--scale-out",
        type=float,
        default=SCALE_OUT_PER_10_S,
        metavar="N",
        help=f"new environments in 10 seconds at most (default {SCALE_OUT_PER_10_S}, as Lambda)",
    )
    parser.add_argument(
        "--keep-logs",
        type=int,
        default=MOST_BYTES // MB,
        metavar="MB",
        help=f"log lines kept in memory, a few times that; the oldest go first (default {MOST_BYTES // MB})",
    )
    key = parser.add_mutually_exclusive_group()
    key.add_argument(
        "--api-key",
        action="append",
        metavar="KEY",
        help="ask clients for this x-api-key, and hold them to the usage plan (also SAM_LOCAL_API_KEY); repeat",
    )
    key.add_argument("--no-auth", action="store_true", help="ask for no key (default)")
    return parser.parse_args(argv)


def run(argv: Sequence[str]) -> int:
    """Serve until told to end. Returns 0 after SIGTERM, 130 after Ctrl-C, 2 for what cannot be started."""
    options = parse(argv)
    try:
        stack = _stack(options)
        listening = _listen(options.host, options.port)
    except StackError as error:
        print(f"sam.local: {error}", file=sys.stderr)
        return EXIT_USAGE
    try:
        with scratch() as directory:
            return asyncio.run(_serve(stack, options, listening, directory))
    except LaunchError as error:
        print(f"sam.local: {error}", file=sys.stderr)
        return EXIT_USAGE


def _stack(options: argparse.Namespace) -> Stack:
    parameters = dict(_pair(text, "--parameter") for text in options.parameter)
    if options.log_format is not None:
        parameters["PLogFormat"] = {"text": "Text", "json": "JSON"}[options.log_format]
    if options.concurrency is not None and options.concurrency < 1:
        raise StackError(f"--concurrency must be at least 1, got {options.concurrency}")
    if options.keep_logs < 1:
        raise StackError(f"--keep-logs must be at least 1 MB, got {options.keep_logs}")
    if options.layer is not None and not (options.layer / "python").is_dir():
        raise StackError(f"--layer {options.layer} has no python directory; run make layer.build first")
    return configured(
        read_stack(options.template, parameters),
        memory_mb=_setting(options.memory, "P_FN_MEMORY"),
        timeout_s=_setting(options.timeout, "P_FN_TIMEOUT"),
        environment=dict(_pair(text, "--env") for text in options.env),
    )


def _setting(flag: int | None, variable: str) -> int | None:
    if flag is not None or not os.environ.get(variable):
        return flag
    try:
        return int(os.environ[variable])
    except ValueError as error:
        raise StackError(f"{variable} must be a whole number, got {os.environ[variable]!r}") from error


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise StackError(f"{option} wants NAME=VALUE, got {text!r}")
    return name, value


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=1024)
    except OSError as error:
        raise StackError(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from error


async def _serve(stack: Stack, options: argparse.Namespace, listening: socket.socket, directory: Path) -> int:
    loop = asyncio.get_running_loop()
    stopping: asyncio.Future[int] = loop.create_future()
    _stop_on_signals(stopping)
    aws = Aws(stack, options.keep_logs * MB)
    _say_which_python(stack.runtime)
    probed = await _probe(options, stack.code_dir, directory)
    writer = LogWriter(aws.deliver)
    aws.settle = writer.flush
    site = Site(
        host=probed,
        layer=options.layer,
        scratch=directory,
        write_log=writer.put,
        new_share=_share(options),
        freezes=options.freeze,
        init_limit_s=options.init_limit,
    )

    def make_pool(of: Stack, most: int) -> Pool:
        return Pool(of, most, site, aws.metrics.observe, scale_out_per_10_s=options.scale_out)

    functions = Functions(make_pool, Clock(time.time, loop.call_later), directory, options.concurrency)
    function = functions.add(stack, aws.role_arn)
    aws.lambda_api = LambdaApi(functions, stack)
    await release_as_deployed(function, stack)
    if stack.alias and (served := function.configuration(stack.alias))["State"] == "Failed":
        print(f"sam.local: what {stack.alias} serves is Failed: {served['StateReason']}", file=sys.stderr)
    api_keys = _api_keys(options)
    ready = _ready(stack, *listening.getsockname()[:2])
    console = _console(stack, ready["console"], wants_key=bool(api_keys))
    handle = _handler(aws, console, Gateway(stack, function, api_keys), ready)
    runner = web.ServerRunner(web.Server(handle, access_log=None), shutdown_timeout=1.0)
    await runner.setup()
    await web.SockSite(runner, listening).start()
    print(json.dumps(ready), flush=True)
    print(
        f"sam.local: {stack.function_name} with {stack.memory_mb} MB and {stack.timeout_s} s, "
        f"{function.pool.most} environments at most; console at {ready['console']}; Ctrl-C ends it",
        file=sys.stderr,
    )
    try:
        return await stopping
    finally:
        await functions.close()
        await runner.cleanup()
        await asyncio.to_thread(writer.close)
        aws.close()


def _ready(stack: Stack, host: str, port: int) -> dict[str, str]:
    """The line that tells a program, or a person, what is where."""
    base = f"http://{host}:{port}"
    return {
        "endpoint": f"{base}/{stack.stage}/lambda/mcp/",
        "aws_endpoint_url": base,
        "log_group": stack.log_group,
        "function_name": stack.function_name,
        # The function answers pages of loopback names alone.
        "console": f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}/",
    }


def _console(stack: Stack, url: str, *, wants_key: bool) -> Console:
    return Console(
        {
            "endpoint": f"/{stack.stage}/lambda/mcp/",
            "console": url,
            "function_name": stack.function_name,
            "memory_mb": stack.memory_mb,
            "timeout_s": stack.timeout_s,
            "api_key": wants_key,
        }
    )


def _handler(
    aws: Aws, console: Console, gateway: Gateway, ready: Mapping[str, str]
) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    """Everything comes to one port: AWS's APIs by their signature, the console and the ready line at its root."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if is_aws_request(request):
            return await aws.handle(request)
        if wants_page(request):
            return console.page()
        if request.path == "/" and request.method == "GET":
            return web.json_response(ready)
        return await gateway.handle(request)

    return handle


def _share(options: argparse.Namespace) -> Callable[[int], Share] | None:
    if not options.cpu_share:
        return None
    new_share, how = shares()
    print(f"sam.local: CPU by memory, one vCPU at {FULL_VCPU_MB} MB, through {how}", file=sys.stderr)
    return new_share


def _api_keys(options: argparse.Namespace) -> list[str]:
    keys = list(options.api_key or [])
    if not keys and not options.no_auth and os.environ.get("SAM_LOCAL_API_KEY"):
        keys = [os.environ["SAM_LOCAL_API_KEY"]]
    return keys


async def _probe(options: argparse.Namespace, code_dir: Path, directory: Path) -> Host:
    wanted = Host(
        isolated=True, lambda_syscalls=options.confinement == "lambda", host_network=options.network == "host"
    )
    host = await probe(wanted, code_dir, options.layer, directory)
    if host.missing:
        print(f"sam.local: {host.missing}", file=sys.stderr)
    return host


def _say_which_python(runtime: str) -> None:
    """Environments run the Python that runs this; AWS would run the template's."""
    ours = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    if runtime != ours:
        print(f"sam.local: the template says {runtime}; environments run {ours}, as this does", file=sys.stderr)


def _stop_on_signals(stopping: asyncio.Future[int]) -> None:
    def stop(code: int) -> None:
        if not stopping.done():
            stopping.set_result(code)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop, EXIT_OK)
    loop.add_signal_handler(signal.SIGINT, stop, EXIT_INTERRUPTED)


def main() -> None:
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
