"""A pytest plugin that forbids real calls: only loopback and Unix sockets connect while a test runs.

Opt in with `pytest -p confroute.testing.plugin`, or with `pytest_plugins = ["confroute.testing.plugin"]` in the
`conftest.py` of the root folder; installing confroute alone changes nothing. A test that may call out is marked
`@pytest.mark.real_calls`.

The attempt raises `RealCallError`, and the test fails at its end even if the error was caught: a router takes a refused
connection for a failed model and asks the other one, so the test would pass without having tried the first.
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
    """A test tried to reach something beyond this machine."""


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", "real_calls: this test may reach beyond this machine")


@pytest.fixture(autouse=True)
def confroute_no_real_calls(request: pytest.FixtureRequest) -> Iterator[None]:
    """Refuse connections to other machines, and fail a test that tried one."""
    if request.node.get_closest_marker("real_calls") is not None:
        yield
        return
    tried: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, _guarded(getattr(socket.socket, name), tried))
        patch.setattr(socket.socket, "sendto", _sending(socket.socket.sendto, tried))
        for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
            patch.setattr(socket, name, _looking_up(getattr(socket, name), tried))
        yield
    if tried:
        pytest.fail(_told(", ".join(dict.fromkeys(tried))), pytrace=False)


@pytest.fixture
def decisions() -> Iterator[list[Decision]]:
    """The decisions of every call routed in the test, in order."""
    with record() as collected:
        yield collected


@pytest.fixture
def scripted_server() -> Iterator[Callable[..., ScriptedServer]]:
    """Starts a `ScriptedServer(models)` at each call; they stop with the test."""
    servers: list[ScriptedServer] = []

    def start(models: Any, **options: Any) -> ScriptedServer:
        server = ScriptedServer(models, **options)
        server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop()


def _guarded(connect: Callable[..., Any], tried: list[str]) -> Callable[..., Any]:
    def guarded(self: socket.socket, address: Any) -> Any:
        if isinstance(address, tuple) and not _here(str(address[0])):
            tried.append(f"{address[0]}:{address[1]}")
            raise RealCallError(_told(tried[-1]))
        return connect(self, address)

    return guarded


def _sending(sendto: Callable[..., Any], tried: list[str]) -> Callable[..., Any]:
    """Datagrams need no connection."""

    def guarded(self: socket.socket, data: Any, *rest: Any) -> Any:
        address = rest[-1]
        if isinstance(address, tuple) and not _here(str(address[0])):
            tried.append(f"{address[0]}:{address[1]}")
            raise RealCallError(_told(tried[-1]))
        return sendto(self, data, *rest)

    return guarded


def _looking_up(look_up: Callable[..., Any], tried: list[str]) -> Callable[..., Any]:
    def guarded(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name is not None and not _here(name):
            tried.append(":".join(map(str, (name, *args[:1]))))
            raise RealCallError(_told(tried[-1]))
        return look_up(host, *args, **kwargs)

    return guarded


def _here(host: str) -> bool:
    if host in {"", "localhost"}:
        return True
    try:
        return ipaddress.ip_address(host.split("%", maxsplit=1)[0]).is_loopback
    except ValueError:
        return False


def _told(where: str) -> str:
    return (
        f"the test tried to reach {where}: give it a scripted model or a ScriptedServer, "
        "or mark it with @pytest.mark.real_calls"
    )
