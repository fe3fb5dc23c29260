"""``confroute serve``: an OpenAI-compatible server on two or more models and a policy."""

from __future__ import annotations

import argparse
import os
import socket
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from confroute.cli.options import add_dtype, add_model, add_tiers, count, model_of, new_file, tiers_of
from confroute.cli.terminal import say
from confroute.errors import MissingExtraError, PolicyError

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from confroute.flow import Policy
    from confroute.types import JSON

KEY = "CONFROUTE_KEY"
_AGAIN_S = 10.0


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "serve",
        help="run an OpenAI-compatible server that routes by a policy",
        description="Serve /v1/chat/completions, /v1/models and /health. If the environment variable "
        f"{KEY} is set, callers must send its value as a bearer token; otherwise the server listens only on this machine's loopback.",
    )
    parser.add_argument("policy", type=Path, metavar="POLICY", help="a policy file")
    add_model(parser, "edge", required=True)
    add_tiers(parser, "if the policy has more than two")
    add_model(parser, "cloud", required=True)
    add_dtype(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=8000, help="port to listen on; 0 for any free one (default: %(default)s)"
    )
    parser.add_argument(
        "--name", default="confroute", help="the name of the model that callers see (default: %(default)s)"
    )
    parser.add_argument(
        "--log", type=new_file, metavar="FILE", help="append every decision, without texts, to this file"
    )
    for flag, default, about in (
        ("--max-tokens", 512, "longest answer, if the request gives no limit"),
        ("--concurrency", 64, "calls at the same time; more are refused"),
        ("--max-body", 8_000_000, "largest request, in bytes"),
        ("--timeout", 600, "seconds from a request to the end of its answer"),
        ("--grace", 30, "seconds that running calls have to end when the server is stopped"),
    ):
        parser.add_argument(
            flag, type=count, default=default, metavar="N", help=f"{about} (default: %(default)s)"
        )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until a signal ends it; calls that are running are answered first.

    Raises
    ------
    MissingExtraError
        Starlette or uvicorn is not installed.
    PolicyError
        The policy or a model cannot be used, or the server would listen beyond loopback without a key.
    """
    try:
        import uvicorn

        from confroute.serve.app import LOOPBACK
    except ImportError as error:
        raise MissingExtraError(extra="serve", needed_for="confroute serve") from error
    from confroute.observe.log import DecisionLog

    key = os.environ.get(KEY) or None
    if key is None and args.host not in LOOPBACK:
        msg = f"--host {args.host} can be reached from other machines: set {KEY} to the key that callers have to send"
        raise PolicyError(msg)
    settings = {"log_level": "warning", "access_log": False, "timeout_graceful_shutdown": args.grace}
    server = uvicorn.Server(uvicorn.Config(_app(args, key), lifespan="off", **settings))
    with nullcontext() if args.log is None else DecisionLog(args.log), _listening(args) as listening:
        say(f"{args.name} is served on http://{_address(listening)}/v1", err=True)
        server.run(sockets=[listening])
    return 0


def _listening(args: argparse.Namespace) -> socket.socket:
    """Bound before the address is said: whoever reads it may ask at once."""
    family = socket.AF_INET6 if ":" in args.host else socket.AF_INET
    made = socket.create_server((args.host, args.port), family=family)
    # Opened again, it knows its protocol, without which asyncio leaves the delay on that holds every answer back for 40 ms.
    return socket.socket(fileno=made.detach())


def _address(listening: socket.socket) -> str:
    host, port, *_ = listening.getsockname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _app(args: argparse.Namespace, key: str | None) -> Starlette:
    from confroute.hosts.router import Router
    from confroute.policy import load_policy
    from confroute.serve.app import ServerLimits, make_app

    policy = load_policy(args.policy)
    tiers = {"edge": model_of(args, "edge"), **tiers_of(args), "cloud": model_of(args, "cloud")}
    router = Router(tiers=tiers, policy=policy)
    limits = ServerLimits(concurrent=args.concurrency, body_bytes=args.max_body, timeout_s=args.timeout)
    watched = None if args.log is None else _Watched(args.log, policy)
    return make_app(router, name=args.name, key=key, limits=limits, health=watched)


class _Watched:
    """What the log says of the policy's promise, read again after 10 s at the earliest: monitors ask more often."""

    def __init__(self, log: Path, policy: Policy) -> None:
        from confroute.drift import GrowingHealth

        self._health = GrowingHealth(log, policy)
        self._told: dict[str, JSON] = {}
        self._until = 0.0

    def __call__(self) -> dict[str, JSON]:
        if time.monotonic() >= self._until:
            found = self._health()
            self._told = {"promise": found.verdict, "watched": found.to_dict() | {"hours": len(found.hours)}}
            self._until = time.monotonic() + _AGAIN_S
        return self._told
