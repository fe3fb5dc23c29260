"""A server of a router on loopback, in a thread with an event loop of its own, and the clients that reach it."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager

import uvicorn

PATIENCE_S = 20


@contextmanager
def serving(app):
    """Serve an application until the block ends."""
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_level="warning", access_log=False, lifespan="off")
    )
    started = threading.Event()
    server.install_signal_handlers = lambda: None
    listen = server.startup

    async def startup(sockets=None):
        await listen(sockets=sockets)
        started.set()

    server.startup = startup
    thread = threading.Thread(target=lambda: asyncio.run(server._serve()), daemon=True)
    thread.start()
    assert started.wait(PATIENCE_S)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
