"""Two models whose answers depend on prompt and seed only, in every process; importable as MODULE:OBJECT."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from pathlib import Path

from confroute.types import Generation


def _answer(messages, seed, width):
    """One of `width` answers, with log-probabilities."""
    digest = hashlib.sha256(f"{messages[-1].text}{seed}".encode()).digest()
    return Generation(text=f"Answer {digest[0] % width}.", logprobs=(-0.1 - digest[1] / 256, -0.2))


def edge(messages, seed):
    """One of four answers."""
    time.sleep(float(os.environ.get("SLOWLY_S", "0")))
    return _answer(messages, seed, 4)


def cloud(messages, seed):
    """One of two answers; kills its own process once, if DIE_ONCE is set."""
    once = os.environ.get("DIE_ONCE")
    if once and "prompt 9" in messages[-1].text:
        try:
            with Path(once).open("x"):
                os.kill(os.getpid(), signal.SIGKILL)
        except FileExistsError:
            pass
    return _answer(messages, seed, 2)


def judge(messages):
    """Prefers the answer that is shown first, so that both orders give a tie."""
    return "Both are fine.\nVERDICT: A"
