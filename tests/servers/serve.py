"""Serves a small model on a free port of 127.0.0.1 until standard input is closed, so that no server outlives its tests.

python serve.py llamacpp FILE.gguf TEMPLATE NAME
python serve.py transformers
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

# Fewer than `SelfConsistency` draws: how many answers one request may ask for.
SLOTS = 2


def serve_llamacpp(file: str, template: str, name: str) -> None:
    """llama.cpp's own server; it prints its address."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = file
    params.model_alias = {name}
    params.chat_template = Path(template).read_text()
    params.hostnames = ["127.0.0.1"]
    params.n_ctx = 2048 * SLOTS
    params.n_parallel = SLOTS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    print(f"running on {server.listening_address}", flush=True)
    sys.stdin.read()


def serve_transformers() -> None:
    """The command `transformers serve`; it logs its address, and models are named by their folders."""
    from transformers.cli.transformers import main

    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    sys.argv = ["transformers", "serve", "--host", "127.0.0.1", "--port", "0", "--device", "cpu"]
    main()


if __name__ == "__main__":
    {"llamacpp": serve_llamacpp, "transformers": serve_transformers}[sys.argv[1]](*sys.argv[2:])
