"""A pytest plugin that forbids real calls: while a test runs, only loopback and Unix sockets connect.

Opt in with `pytest -p confroute.testing.plugin`, or with `pytest_plugins = ["confroute.testing.plugin"]` in the
`conftest.py` of the root folder; installing confroute alone changes nothing. Mark a test that may make real calls with
`@pytest.mark.real_calls`.

An attempt raises `RealCallError`, and the test fails at its end even if that error was caught: a router takes a refused
connection for a failed model and asks the other one, so the test would pass without having tested the first.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from confroute.decision import Decision
from confroute.errors import ConfrouteError
from confroute.observe.trace import record
from confroute.testing.server import ScriptedServer


class RealCallError(ConfrouteError, RuntimeError):
    """A test tried to connect to another machine."""


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", "real_calls: this test may connect to other machines")


@pytest.fixture(autouse=True)
def confroute_no_real_calls(request: pytest.FixtureRequest) -> Iterator[None]:
    """Refuse connections to other machines, and fail a test that tried one."""
    if request.node.get_closest_marker("real_calls") is not None:
        yield
        return
    attempts: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, _guard_connect(getattr(socket.socket, name), attempts))
        patch.setattr(socket.socket, "sendto", _guard_sendto(socket.socket.sendto, attempts))
        for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
            patch.setattr(socket, name, _guard_lookup(getattr(socket, name), attempts))
        yield
    if attempts:
        pytest.fail(_message(", ".join(dict.fromkeys(attempts))), pytrace=False)


@pytest.fixture
def decisions() -> Iterator[list[Decision]]:
    """The decisions of all calls that the test routes, in order."""
    with record() as collected:
        yield collected


@pytest.fixture
def scripted_server() -> Iterator[Callable[..., ScriptedServer]]:
    """A function that starts a `ScriptedServer(models)`, which stops when the test ends."""
    servers: list[ScriptedServer] = []

    def start(models: Any, **options: Any) -> ScriptedServer:
        server = ScriptedServer(models, **options)
        server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop()


def _guard_connect(connect: Callable[..., Any], attempts: list[str]) -> Callable[..., Any]:
    def guarded(self: socket.socket, address: Any) -> Any:
        _refuse_remote(address, attempts)
        return connect(self, address)

    return guarded


def _guard_sendto(sendto: Callable[..., Any], attempts: list[str]) -> Callable[..., Any]:
    """Datagrams need no connection, and are guarded when they are sent."""

    def guarded(self: socket.socket, data: Any, *rest: Any) -> Any:
        _refuse_remote(rest[-1], attempts)
        return sendto(self, data, *rest)

    return guarded


def _guard_lookup(look_up: Callable[..., Any], attempts: list[str]) -> Callable[..., Any]:
    def guarded(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name is not None and not _is_local(name):
            attempts.append(":".join(map(str, (name, *args[:1]))))
            raise RealCallError(_message(attempts[-1]))
        return look_up(host, *args, **kwargs)

    return guarded


def _refuse_remote(address: Any, attempts: list[str]) -> None:
    if isinstance(address, tuple) and not _is_local(str(address[0])):
        attempts.append(f"{address[0]}:{address[1]}")
        raise RealCallError(_message(attempts[-1]))


def _is_local(host: str) -> bool:
    if host in {"", "localhost"}:
        return True
    try:
        return ipaddress.ip_address(host.split("%", maxsplit=1)[0]).is_loopback
    except ValueError:
        return False


def _message(address: str) -> str:
    return (
        f"the test tried to reach {address}: give it a scripted model or a ScriptedServer, "
        "or mark it with @pytest.mark.real_calls"
    )
