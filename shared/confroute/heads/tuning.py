"""An embedding model trained further on labelled prompts, so that its vectors tell apart what a head has to."""

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

if TYPE_CHECKING:
    import torch

_WARM_UP = 0.1
_DECAY = 0.01
_OUTPUT_RATE = 1e-3
_LARGEST_GRADIENT = 1.0
# Texts of one length side by side need little padding; batches are drawn from so many at a time.
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
    """Train a local embedding model to predict the quality of models' answers from the prompt, and write it to `folder`.

    `encoder(folder)` then makes vectors for any head. A head remembers the weights' hash, and refuses another model's.

    Parameters
    ----------
    texts : sequence of str
        At least 8.
    qualities : array of float in [0, 1], shape (n,) or (n, columns)
        What is predicted of each text: a column for the edge's quality and one for the cloud's, or one for each of several
        models that were recorded. More models tell more of what makes a prompt hard.
    folder : str or Path
        Must not hold anything yet.
    base : str or Path
        A local model by name, or a sentence-transformers folder with mean pooling.
    epochs, batch, max_tokens : int
        Passes over the texts, texts a step, and where texts are cut in training (not in use).
    rate : float
        Largest learning rate, reached after a tenth of the steps and falling to 0.
    seed : int
        Of order and dropout; torch's global generator is left as it was.
    progress : callable
        Told after each epoch.

    Returns
    -------
    Path
        `folder`.

    Raises
    ------
    CalibrationError
        Fewer than 8 texts, qualities that do not fit or lie outside [0, 1], columns that are constant, or settings below 1.
    PolicyError
        The folder holds something.
    ModelError, MissingExtraError
        A base that cannot be loaded, or torch is not installed.

    Notes
    -----
    Cross-entropy of one linear output a column over the mean-pooled unit vector, by AdamW; word embeddings stay as
    they are, which few prompts could only make forget. The outputs are thrown away: a head is fitted to the vectors.
    About 0.06 s of one processor core a text and epoch for the default model where the processor multiplies bfloat16, half as long again
    elsewhere; weights differ between the two.

    Examples
    --------
    ::

        folder = tune_encoder(prompts, np.stack([edge_right, cloud_right], axis=1), "tuned")
        embed = encoder(folder)
        head = Ridge.fit(embed(prompts), (1 + cloud_right - edge_right) / 2)
        save_head(head, "head", identity=embed.identity())
    """
    y = _checked(texts, qualities, least=min(epochs, batch, max_tokens))
    where = Path(folder)
    if where.exists() and (not where.is_dir() or any(where.iterdir())):
        msg = f"{where} holds something: expected a new or empty folder for the tuned model"
        raise PolicyError(msg)
    require_torch("tune_encoder")
    import torch
    from transformers import AutoModel

    _, path, hub = locate(base)
    if path is None:
        msg = f"{hub}: expected a catalogue name or a sentence-transformers folder; download the model and pass its folder"
        raise ModelError(msg)
    check_modules(path)
    plan = _Plan(epochs=epochs, rate=rate, batch=batch, seed=seed)
    # Dropout of transformers, and what a new layer starts from, are drawn from torch's global generator.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with quiet():
            network, tokenizer = load_network(AutoModel, str(path), "float32"), load_tokenizer(str(path))
        ids = tokenizer(list(texts), truncation=True, max_length=max_tokens)["input_ids"]
        _train(network, [torch.tensor(row) for row in ids], torch.from_numpy(y), plan, progress)
    about = {"base": path.name, "texts": len(texts), "max_tokens": max_tokens, **asdict(plan)}
    _write(network, path, where, about)
    return where


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    epochs: int
    rate: float
    batch: int
    seed: int


def _checked(texts: Sequence[str], qualities: npt.ArrayLike, *, least: int) -> npt.NDArray[np.float32]:
    y = np.asarray(qualities, dtype=np.float32)
    y = y[:, None] if y.ndim == 1 else y
    if y.ndim != 2 or len(y) != len(texts) or len(y) < 8 or not y.shape[1]:
        msg = f"{len(texts)} texts and qualities of shape {y.shape}: expected one row a text, of 8 texts or more"
        raise CalibrationError(msg)
    if not (np.isfinite(y) & (y >= 0) & (y <= 1)).all():
        msg = "qualities have to lie in [0, 1]"
        raise CalibrationError(msg)
    if constant := np.flatnonzero(y.min(axis=0) == y.max(axis=0)).tolist():
        msg = f"columns {constant} of the qualities are constant: expected texts of both kinds, or leave these columns out"
        raise CalibrationError(msg)
    if least < 1:
        msg = f"the least of epochs, batch and max_tokens is {least}: expected 1 or more"
        raise CalibrationError(msg)
    return y


def _train(
    network: Any,
    rows: list[torch.Tensor],
    y: torch.Tensor,
    plan: _Plan,
    progress: Callable[[str], None],
) -> None:
    """Change the network's weights."""
    import torch

    network.embeddings.requires_grad_(requires_grad=False)
    output = torch.nn.Linear(network.config.hidden_size, y.shape[1])
    torch.nn.init.zeros_(output.weight)
    output.bias.data = torch.logit(y.mean(dim=0))
    layers = [weights for weights in network.parameters() if weights.requires_grad]
    groups = [{"params": layers, "lr": plan.rate}, {"params": output.parameters(), "lr": _OUTPUT_RATE}]
    optimiser = torch.optim.AdamW(groups, weight_decay=_DECAY)
    steps = plan.epochs * -(-len(rows) // plan.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min((step + 1) / (_WARM_UP * steps), (steps - step) / ((1 - _WARM_UP) * steps)),
    )
    fast = chosen_dtype("auto") == "bfloat16"
    orders = np.random.default_rng(plan.seed)
    network.train()
    for epoch in range(plan.epochs):
        losses = []
        for chosen in _batches(rows, plan.batch, orders):
            ids, mask = _padded([rows[at] for at in chosen])
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=fast):
                states = network(input_ids=ids, attention_mask=mask).last_hidden_state
            # Unit vectors' coordinates are small: scaled to 1, outputs learn at the usual rate.
            vectors = unit_means(states.float(), mask) * states.shape[2] ** 0.5
            loss = torch.nn.functional.binary_cross_entropy_with_logits(output(vectors), y[chosen])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
            torch.nn.utils.clip_grad_norm_([*layers, *output.parameters()], _LARGEST_GRADIENT)
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        progress(f"epoch {epoch + 1} of {plan.epochs}: loss {np.mean(losses):.4f} nats")


def _batches(rows: list[torch.Tensor], size: int, orders: np.random.Generator) -> Iterator[list[int]]:
    """Places in random order, texts of one length side by side."""
    order = orders.permutation(len(rows))
    lengths = np.array([len(row) for row in rows])
    found = []
    for start in range(0, len(order), _BUCKET * size):
        bucket = order[start : start + _BUCKET * size]
        bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
        found += [bucket[at : at + size].tolist() for at in range(0, len(bucket), size)]
    yield from (found[at] for at in orders.permutation(len(found)))


def _padded(rows: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    pad = torch.nn.utils.rnn.pad_sequence
    return pad(
        rows,
        batch_first=True,
    ), pad([torch.ones_like(row) for row in rows], batch_first=True)


def _write(network: Any, base: Path, where: Path, about: dict[str, Any]) -> None:
    """The base's folder with the new weights: whole, or not at all."""
    from safetensors.torch import save_model

    where.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=where.parent, prefix=f".{where.name}-") as made:
        part = Path(made) / where.name
        shutil.copytree(base, part, ignore=shutil.ignore_patterns(*_WEIGHTS, "confroute-pull.json"))
        save_model(network, str(part / "model.safetensors"))
        (part / "confroute-tuned.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        part.replace(where)
