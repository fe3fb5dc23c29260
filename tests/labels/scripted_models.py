"""Two models that answer by what they are asked, the same in every process; importable as MODULE:OBJECT."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from pathlib import Path

from confroute.types import Generation


def _drawn(messages, seed, width):
    """An answer that depends on prompt and seed only, with a log-probability."""
    told = hashlib.sha256(f"{messages[-1].text}{seed}".encode()).digest()
    return Generation(text=f"Answer {told[0] % width}.", logprobs=(-0.1 - told[1] / 256, -0.2))


def edge(messages, seed):
    """Undecided."""
    time.sleep(float(os.environ.get("SLOWLY_S", "0")))
    return _drawn(messages, seed, 4)


def cloud(messages, seed):
    """Nearly always the same; kills its own process once, if told to."""
    once = os.environ.get("DIE_ONCE")
    if once and "prompt 9" in messages[-1].text:
        try:
            with Path(once).open("x"):
                os.kill(os.getpid(), signal.SIGKILL)
        except FileExistsError:
            pass
    return _drawn(messages, seed, 2)


def judge(messages):
    """Prefers what is shown first: undone by the swap."""
    return "Both are fine.\nVERDICT: A"
