"""The replay's encoder, trained further on which of the recorded models were right."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from confroute.bench.replay.training import TrainingSet
from confroute.heads.encoder import DEFAULT_MODEL, Encoder, encoder
from confroute.heads.tuning import tune_encoder


def tuned_on(
    train: TrainingSet, *, cache: Path, base: str = DEFAULT_MODEL, say: Callable[[str], None] = lambda _: None
) -> Encoder:
    """Tune `base` to predict every recorded model's correctness, or take what was tuned on the same before.

    Parameters
    ----------
    train : TrainingSet
        Free of test prompts.
    cache : Path
        Folder of tuned models.
    base : str
        A local embedding model.
    say : callable
        Told of progress.
    """
    qualities = np.concatenate([train.weak, train.strong]).T
    digest = hashlib.sha256("\0".join([base, *train.prompts]).encode())
    digest.update(np.ascontiguousarray(qualities).tobytes())
    folder = cache / f"tuned-{digest.hexdigest()[:16]}"
    if not folder.is_dir():
        say(f"tuning {base} on {len(train.prompts)} prompts, minutes; kept in {folder}")
        tune_encoder(train.prompts, qualities, folder, base=base, progress=say)
    return encoder(str(folder), features=True)
