"""Evidence that only a model in this process provides: dropout passes over an answer, hidden states of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from confroute.asks import Evidence, Hidden, InsideAsk
from confroute.errors import RequestError, SignalUnavailableError
from confroute.types import Alternatives, Message

if TYPE_CHECKING:
    from confroute.models.local import LocalModel
    from confroute.models.prompt_cache import Reading


def look_inside(ask: InsideAsk, model: LocalModel, messages: Sequence[Message]) -> Evidence:
    """Answer a `Score` or a `Hidden` with a local model.

    Raises
    ------
    RequestError
        The prompt is longer than the context window, or the model does not have a requested layer.
    ModelError
        For a `Score`, the network has no layers that dropout can be applied to.
    """
    if isinstance(ask, Hidden):
        return Evidence(numbers=hidden_states(model, messages, ask.layers))
    from confroute.models.dropout import dropout_passes

    passes = dropout_passes(
        model,
        messages,
        ask.answer,
        passes=ask.passes,
        rate=ask.rate,
        layers=ask.layers,
        prompt=ask.prompt,
        seed=ask.seed,
    )
    return Evidence(passes=passes)


def elsewhere(ask: InsideAsk, model: str) -> SignalUnavailableError:
    """The error for a model that is not in this process."""
    evidence = "hidden states" if isinstance(ask, Hidden) else "dropout passes"
    return SignalUnavailableError(f"{model} is not in this process: no {evidence}")


def hidden_states(
    model: LocalModel, messages: Sequence[Message], layers: Sequence[int]
) -> npt.NDArray[np.float32]:
    """Hidden states of the prompt's last token, before any answer.

    Parameters
    ----------
    model : LocalModel
    messages : sequence of Message
    layers : sequence of int
        0 for the embeddings, k for the output of the k-th layer; the last layer's is taken after the final norm.

    Returns
    -------
    ndarray of float32, shape (layers, width)

    Raises
    ------
    RequestError
        There are no messages, the prompt is longer than the context window, or the model does not have a layer.
    """
    count = model.network.config.get_text_config().num_hidden_layers
    if not layers or any(not 0 <= layer <= count for layer in layers):
        msg = f"layers are {tuple(layers)}: expected one or more of 0 to {count}, the layers of {model.name}"
        raise RequestError(msg)
    reading = _reading(model, messages)
    return np.asarray(reading.states[list(layers)].cpu().numpy(), dtype=np.float32)


def option_alternatives(
    model: LocalModel, messages: Sequence[Message], letters: Sequence[str]
) -> Alternatives:
    """Log-probabilities, in nats, of every token that spells a letter as the answer's first, with or without a space before it.

    Raises
    ------
    RequestError
        See `hidden_states`.
    """
    reading = _reading(model, messages)
    logs = reading.logits.log_softmax(-1)
    spellings = [text for letter in letters for text in (letter, f" {letter}")]
    tokens = [model.tokenizer.encode(text, add_special_tokens=False) for text in spellings]
    # Two spellings may be the same token, which must not count twice.
    single = {ids[0]: text for ids, text in zip(tokens, spellings, strict=True) if len(ids) == 1}
    return tuple((text, float(logs[token])) for token, text in single.items())


def _reading(model: LocalModel, messages: Sequence[Message]) -> Reading:
    from confroute.models import prompts
    from confroute.models.prompt_cache import cached_reading, read

    ids = prompts.prompt_ids(model.tokenizer, messages)
    if len(ids) > model.context_window:
        msg = f"the prompt has {len(ids)} tokens: expected at most {model.context_window}, the context window of {model.name}"
        raise RequestError(msg)
    return cached_reading(model.weights, ids) or read(model.weights, ids)
