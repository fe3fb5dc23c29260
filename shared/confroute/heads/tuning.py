"""Trains an embedding model further on labelled prompts, so that its vectors separate what a head has to separate."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from confroute.errors import CalibrationError, ModelError, PolicyError
from confroute.heads.encoder import DEFAULT_MODEL
from confroute.models.embed import check_modules, unit_means
from confroute.models.loading import chosen_dtype, load_network, load_tokenizer, locate, quiet, require_torch
from confroute.tensors import disk_errors

if TYPE_CHECKING:
    import torch

_WARM_UP = 0.1
_DECAY = 0.01
_OUTPUT_RATE = 1e-3
_MAX_GRADIENT_NORM = 1.0
# Batches drawn together, so that texts of similar length share a batch and need little padding.
_BUCKET = 8
_WEIGHTS = ("*.safetensors", "*.bin", "*.onnx", "*.h5", "*.msgpack", "onnx", "openvino")


def tune_encoder(
    texts: Sequence[str],
    qualities: npt.ArrayLike,
    folder: str | Path,
    *,
    base: str | Path = DEFAULT_MODEL,
    epochs: int = 2,
    rate: float = 5e-5,
    batch: int = 16,
    max_tokens: int = 128,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Path:
    """Train a local embedding model to predict the quality of models' answers from the prompt, and save it to `folder`.

    `encoder(folder)` then makes vectors for any head. A head stores the hash of the weights and refuses any others.

    Parameters
    ----------
    texts : sequence of str
        At least 8.
    qualities : array of float in [0, 1], shape (n,) or (n, columns)
        What to predict for each text: one column for the edge's quality and one for the cloud's, or one for each of
        several recorded models. More models show better what makes a prompt hard.
    folder : str or Path
        A new or empty folder.
    base : str or Path
        A local model by name, or a sentence-transformers folder with mean pooling.
    epochs, batch, max_tokens : int
        Passes over the texts, texts per step, and the length to which texts are cut in training (not in use).
    rate : float
        Largest learning rate, reached after a tenth of the steps and then falling to 0.
    seed : int
        Seed of order and dropout; torch's global generator is left as it was.
    progress : callable
        Called with one line of text after each epoch.

    Returns
    -------
    Path
        `folder`.

    Raises
    ------
    CalibrationError
        Fewer than 8 texts, qualities that do not match them or lie outside [0, 1], constant columns, or settings below 1.
    PolicyError
        The folder is not empty.
    ModelError, MissingExtraError
        The base cannot be loaded, or torch is not installed.

    Notes
    -----
    Minimises the cross-entropy of one linear output per column over the mean-pooled unit vector, by AdamW. Word
    embeddings are frozen: few prompts could only make them forget. The outputs are thrown away, as a head is fitted to
    the vectors. The default model takes about 0.06 s of one processor core per text and epoch where the processor
    multiplies bfloat16, half as long again elsewhere; the weights differ between the two.

    Examples
    --------
    ::

        folder = tune_encoder(prompts, np.stack([edge_right, cloud_right], axis=1), "tuned")
        embed = encoder(folder)
        head = Ridge.fit(embed(prompts), (1 + cloud_right - edge_right) / 2)
        save_head(head, "head", identity=embed.identity())
    """
    y = _check_qualities(texts, qualities, least=min(epochs, batch, max_tokens))
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        msg = f"{target} is not empty: expected a new or empty folder for the tuned model"
        raise PolicyError(msg)
    require_torch("tune_encoder")
    import torch
    from transformers import AutoModel

    _, path, hub = locate(base)
    if path is None:
        msg = f"{hub}: expected a catalogue name or a sentence-transformers folder; download the model and pass its folder"
        raise ModelError(msg)
    check_modules(path)
    settings = _Training(epochs=epochs, rate=rate, batch=batch, seed=seed)
    # transformers draws dropout and the initial weights of a new layer from torch's global generator.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with quiet():
            network, tokenizer = load_network(AutoModel, str(path), "float32"), load_tokenizer(str(path))
        ids = tokenizer(list(texts), truncation=True, max_length=max_tokens)["input_ids"]
        _train(network, [torch.tensor(row) for row in ids], torch.from_numpy(y), settings, progress)
    metadata = {"base": path.name, "texts": len(texts), "max_tokens": max_tokens, **asdict(settings)}
    _write(network, path, target, metadata)
    return target


@dataclass(frozen=True, slots=True, kw_only=True)
class _Training:
    epochs: int
    rate: float
    batch: int
    seed: int


def _check_qualities(
    texts: Sequence[str], qualities: npt.ArrayLike, *, least: int
) -> npt.NDArray[np.float32]:
    """Qualities as a matrix with one column per model, once they are fit to train on."""
    y = np.asarray(qualities, dtype=np.float32)
    y = y[:, None] if y.ndim == 1 else y
    if y.ndim != 2 or len(y) != len(texts) or len(y) < 8 or not y.shape[1]:
        msg = f"{len(texts)} texts and qualities of shape {y.shape}: expected one row per text, and 8 texts or more"
        raise CalibrationError(msg)
    if not (np.isfinite(y) & (y >= 0) & (y <= 1)).all():
        msg = f"qualities from {y.min():g} to {y.max():g}: expected numbers in [0, 1]"
        raise CalibrationError(msg)
    if constant := np.flatnonzero(y.min(axis=0) == y.max(axis=0)).tolist():
        msg = f"columns {constant} of the qualities are constant: expected texts of both kinds, or leave these columns out"
        raise CalibrationError(msg)
    if least < 1:
        msg = f"the smallest of epochs, batch and max_tokens is {least}: expected 1 or more"
        raise CalibrationError(msg)
    return y


def _train(
    network: Any,
    rows: list[torch.Tensor],
    y: torch.Tensor,
    settings: _Training,
    progress: Callable[[str], None],
) -> None:
    """Train the network in place."""
    import torch

    network.embeddings.requires_grad_(requires_grad=False)
    output = torch.nn.Linear(network.config.hidden_size, y.shape[1])
    torch.nn.init.zeros_(output.weight)
    output.bias.data = torch.logit(y.mean(dim=0))
    layers = [weights for weights in network.parameters() if weights.requires_grad]
    groups = [{"params": layers, "lr": settings.rate}, {"params": output.parameters(), "lr": _OUTPUT_RATE}]
    optimiser = torch.optim.AdamW(groups, weight_decay=_DECAY)
    steps = settings.epochs * -(-len(rows) // settings.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min((step + 1) / (_WARM_UP * steps), (steps - step) / ((1 - _WARM_UP) * steps)),
    )
    fast = chosen_dtype("auto") == "bfloat16"
    generator = np.random.default_rng(settings.seed)
    network.train()
    for epoch in range(settings.epochs):
        losses = []
        for batch in _batches(rows, settings.batch, generator):
            ids, mask = _pad([rows[index] for index in batch])
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=fast):
                states = network(input_ids=ids, attention_mask=mask).last_hidden_state
            # The coordinates of unit vectors are small: scaled to about 1, the outputs learn at the usual rate.
            vectors = unit_means(states.float(), mask) * states.shape[2] ** 0.5
            loss = torch.nn.functional.binary_cross_entropy_with_logits(output(vectors), y[batch])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
            torch.nn.utils.clip_grad_norm_([*layers, *output.parameters()], _MAX_GRADIENT_NORM)
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        progress(f"epoch {epoch + 1} of {settings.epochs}: loss {np.mean(losses):.4f} nats")


def _batches(rows: list[torch.Tensor], size: int, generator: np.random.Generator) -> Iterator[list[int]]:
    """Yield row indices in random order, texts of similar length in one batch."""
    order = generator.permutation(len(rows))
    lengths = np.array([len(row) for row in rows])
    batches = []
    for start in range(0, len(order), _BUCKET * size):
        bucket = order[start : start + _BUCKET * size]
        bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
        batches += [bucket[at : at + size].tolist() for at in range(0, len(bucket), size)]
    yield from (batches[at] for at in generator.permutation(len(batches)))


def _pad(rows: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask of one batch."""
    import torch

    pad = torch.nn.utils.rnn.pad_sequence
    return pad(rows, batch_first=True), pad([torch.ones_like(row) for row in rows], batch_first=True)


def _write(network: Any, base: Path, target: Path, metadata: dict[str, Any]) -> None:
    """Write the base's folder with the new weights, completely or not at all."""
    from safetensors.torch import save_model

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
        part = Path(temporary) / target.name
        shutil.copytree(base, part, ignore=shutil.ignore_patterns(*_WEIGHTS, "confroute-pull.json"))
        with disk_errors():
            save_model(network, str(part / "model.safetensors"))
        (part / "confroute-tuned.json").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
        part.replace(target)
