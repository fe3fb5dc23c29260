"""Monte Carlo dropout on decoder language models, which have no dropout of their own.

During a forward pass, hooks apply dropout to the outputs of the attention and feed-forward modules of the top layers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from confroute.asks import DropoutPasses, Layers, dropout_fault
from confroute.errors import ModelError, RequestError
from confroute.models import prompts
from confroute.models.local import LocalModel
from confroute.models.prompt_cache import cached_reading, held_in
from confroute.types import Message

if TYPE_CHECKING:
    import torch

__all__ = ["DropoutPasses", "dropout_passes"]

Pair: TypeAlias = "tuple[torch.nn.Module, torch.nn.Module]"
Site: TypeAlias = "tuple[torch.nn.Module, torch.Tensor]"
_ATTENTION = ("self_attn", "attn", "attention")
_FEED_FORWARD = ("mlp", "feed_forward", "block_sparse_moe")
# Tokens times rows of one forward pass over the prompt; bounds memory and how long other threads wait.
_PROMPT_TOKENS = 4096
# Logits of one forward pass over the answer: 128 MiB in float32.
_MAX_LOGITS = 2**25
# Tokens whose distributions are computed at a time: those of one token fit into the processor's cache.
_BLOCK = 1


def dropout_passes(
    model: LocalModel,
    messages: Sequence[Message],
    answer: str,
    *,
    passes: int = 10,
    rate: float = 0.01,
    layers: Layers = "top-third",
    prompt: bool = False,
    seed: int = 0,
) -> DropoutPasses:
    """Score `answer` after `messages` several times, each time with different features dropped.

    Parameters
    ----------
    model : LocalModel
        Llama, Mistral, Qwen, Gemma, Phi, GPT-2, GPT-J, GPT-NeoX and others whose layers have an attention and a
        feed-forward module.
    messages : sequence of Message
    answer : str
        Tokenized as it is, without an end token.
    passes : int
        2 or more, all in one batch.
    rate : float
        Probability that a feature is dropped, in [0, 1). With 0 all passes are exactly the model's own likelihood.
    layers : {"top-third", "all"} or int
        How many layers are perturbed, counted from the top. The layers below are computed once for all passes.
    prompt : bool
        True perturbs the prompt as well, as if the pass's weights were the model's. False perturbs from the position
        that predicts the answer's first token; everything before it is computed once for all passes.
    seed : int
        0 or more. The same seed gives the same masks. The masks of a pass do not depend on the number of passes, nor
        those of a layer on the number of perturbed layers. The global random state is left alone.

    Returns
    -------
    DropoutPasses

    Raises
    ------
    RequestError
        A parameter out of range, an empty answer, or more tokens than the context window.
    ModelError
        The network has no layers with attention and feed-forward modules.

    Notes
    -----
    Variational dropout after Gal & Ghahramani (arXiv 1506.02142, 1512.05287): a mask over features is drawn once per
    pass and applied at every position, as if rows of the output projection were missing. The remaining features
    are divided by 1 - rate, so that the expected output is the unperturbed one.

    The effect of a rate depends on the model: a few features can be huge, and a pass that drops one of them is far off.
    For SmolLM2-135M, six right and wrong answers differ in variance at rate 0.01, but no longer at 0.03 and 0.1.

    Holds `model.lock` and hooks the network during single forward passes only, so other threads can generate in between.
    A network in training mode is run in evaluation mode and set back afterwards.
    """
    problem = dropout_fault(passes, rate, layers, seed)
    if problem:
        raise RequestError(problem)
    prompt_ids, answer_ids = _tokenize(model, messages, answer)
    available = decoder_layers(model.network)
    top = _top(available, layers)
    if rate == 0:
        # Rows of one batch may differ by rounding errors, so the common value is computed once.
        once = _score(model, prompt_ids, answer_ids, _Perturbation())
        logprobs = np.repeat(once.logprobs, passes, axis=0)
        return DropoutPasses(logprobs=logprobs, total=once.total, expected=once.total.copy())
    width = model.network.config.get_text_config().hidden_size
    sites = _sites(top, masks(passes, len(top), width, rate=rate, seed=seed))
    lowest = len(available) - len(top)
    perturbation = _Perturbation(sites=sites, rows=passes, lowest_layer=lowest, prompt=prompt)
    return _score(model, prompt_ids, answer_ids, perturbation)


def decoder_layers(network: Any) -> list[Pair]:
    """The attention and feed-forward module of each decoder layer, lowest first; ModelError where there are none."""
    import torch

    layers: list[Pair] = []
    for module in network.modules():
        if isinstance(module, torch.nn.ModuleList):
            pairs = [(_part(layer, _ATTENTION), _part(layer, _FEED_FORWARD)) for layer in module]
            whole = [(a, f) for a, f in pairs if a is not None and f is not None]
            if len(whole) == len(pairs) > len(layers):
                layers = whole
    if not layers:
        msg = (
            f"{type(network).__name__}: expected a list of layers with attention ({', '.join(_ATTENTION)}) and "
            f"feed-forward ({', '.join(_FEED_FORWARD)}) modules to apply dropout to; use another signal or model"
        )
        raise ModelError(msg)
    return layers


def _part(layer: torch.nn.Module, names: Sequence[str]) -> torch.nn.Module | None:
    import torch

    parts = (getattr(layer, name, None) for name in names)
    part = next((part for part in parts if isinstance(part, torch.nn.Module)), None)
    # BLOOM and MPT add the residual inside the module: dropout on the sum would cut the residual stream itself.
    if part is None or "residual" in inspect.signature(part.forward).parameters:
        return None
    return part


def _top(available: list[Pair], layers: Layers) -> list[Pair]:
    """The layers to perturb, highest first."""
    count = {"all": len(available), "top-third": -(-len(available) // 3)}.get(str(layers), layers)
    assert isinstance(count, int)
    if count > len(available):
        msg = f"layers is {count}: expected 1 to {len(available)}, the layers of this model, or 'all'"
        raise RequestError(msg)
    return available[::-1][:count]


def _tokenize(model: LocalModel, messages: Sequence[Message], answer: str) -> tuple[list[int], list[int]]:
    """Token ids of prompt and answer; RequestError where the answer is empty or both exceed the context window."""
    prompt_ids = prompts.prompt_ids(model.tokenizer, messages)
    answer_ids = prompts.encode(model.tokenizer, answer, special=False)
    if not answer_ids:
        msg = "answer is empty: expected a text of at least one token"
        raise RequestError(msg)
    if len(prompt_ids) + len(answer_ids) > model.context_window:
        msg = f"prompt ({len(prompt_ids)} tokens) and answer ({len(answer_ids)}) exceed the context window of {model.context_window}; shorten them"
        raise RequestError(msg)
    return prompt_ids, answer_ids


def masks(passes: int, layers: int, width: int, *, rate: float, seed: int) -> npt.NDArray[np.float32]:
    """Draw Bernoulli masks, with values 0 and 1 / (1 - rate), of shape (passes, layers, 2, width).

    Layers count from the top; the two masks of a layer are for attention and feed-forward. Each pass has its own random
    stream.

    Examples
    --------
    >>> two = masks(2, 1, 4, rate=0.5, seed=0)
    >>> two.shape, sorted(set(two.ravel().tolist()))
    ((2, 1, 2, 4), [0.0, 2.0])
    """
    streams = [np.random.default_rng([seed, number]) for number in range(passes)]
    kept = np.stack([stream.random((layers, 2, width)) >= rate for stream in streams])
    return np.where(kept, 1 / (1 - rate), 0.0).astype(np.float32)


def _sites(layers: Sequence[Pair], layer_masks: npt.NDArray[np.float32]) -> list[Site]:
    """Pair each module with its masks."""
    import torch

    values = torch.from_numpy(layer_masks)[:, :, :, None]
    pairs = enumerate(layers)
    return [(part, values[:, depth, which]) for depth, pair in pairs for which, part in enumerate(pair)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Perturbation:
    """The modules to mask and their masks, the number of passes, and whether the prompt is perturbed as well."""

    sites: Sequence[Site] = ()
    rows: int = 1
    lowest_layer: int = 0
    prompt: bool = False


@contextmanager
def perturbed(
    model: LocalModel, sites: Sequence[Site]
) -> Iterator[Callable[[Sequence[int]], dict[str, Any]]]:
    """Hold the lock and mask the sites' outputs, in evaluation mode; yields a function from token ids to inputs."""
    import torch

    with model.lock, ExitStack() as undo:
        for module in model.network.modules():
            if module.training:
                undo.callback(setattr, module, "training", True)
                module.training = False
        for module, mask in sites:
            undo.callback(module.register_forward_hook(partial(_drop, mask)).remove)
        yield lambda ids: {"input_ids": torch.tensor([list(ids)], device=model.network.device)}


def _drop(mask: torch.Tensor, _module: Any, _args: Any, output: Any) -> Any:
    # The product with several masks turns one row into several, in this and all later layers; layers below the first mask
    # are computed for one row only.
    state, *rest = output if isinstance(output, tuple) else (output,)
    state = state * mask.to(device=state.device, dtype=state.dtype)
    return (state, *rest) if isinstance(output, tuple) else state


def _score(
    model: LocalModel, prompt_ids: Sequence[int], answer_ids: Sequence[int], perturbation: _Perturbation
) -> DropoutPasses:
    """Process the prompt without its last token, then predict the answer from that token on."""
    import torch
    from transformers.cache_utils import DynamicCache

    network, before, rows = model.network, prompt_ids[:-1], perturbation.rows
    reading = (
        None if perturbation.prompt and perturbation.sites else cached_reading(model.weights, prompt_ids)
    )
    cache: Any = DynamicCache(config=network.config) if reading is None else reading.copy_cache(drop_last=1)
    prompt_rows, prompt_sites = (rows, perturbation.sites) if perturbation.prompt else (1, ())
    numbers = list[Any]()
    with torch.inference_mode():
        for part in _parts(before if reading is None else (), _PROMPT_TOKENS // prompt_rows):
            with perturbed(model, prompt_sites) as inputs:
                # The network without its head: these positions need no projection onto the vocabulary.
                network.base_model(**inputs(part), **held_in(network, cache))
        if prompt_rows < rows and before:
            # In the lowest perturbed layer, keys and values are computed before its first mask.
            for layer in cache.layers[perturbation.lowest_layer + 1 :]:
                layer.batch_repeat_interleave(rows)
        size = _MAX_LOGITS // (rows * network.config.get_text_config().vocab_size)
        answer_inputs = [prompt_ids[-1], *answer_ids[:-1]]
        for part, targets in zip(_parts(answer_inputs, size), _parts(answer_ids, size), strict=True):
            with perturbed(model, perturbation.sites) as inputs:
                out = network(**inputs(part), **held_in(network, cache))
            numbers += _measure(out.logits, targets)
        parts = [torch.cat(part, -1).double().cpu() for part in zip(*numbers, strict=True)]
    logprobs, total, expected = (part.numpy() for part in parts)
    return DropoutPasses(logprobs=logprobs, total=total, expected=expected)


def _parts(ids: Sequence[int], size: int) -> list[Sequence[int]]:
    size = max(1, size)
    return [ids[start : start + size] for start in range(0, len(ids), size)]


def _measure(
    logits: torch.Tensor, targets: Sequence[int]
) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """`entropies` of each block of tokens."""
    import torch

    ids = torch.tensor(list(targets), device=logits.device)
    blocks = [slice(start, start + _BLOCK) for start in range(0, len(targets), _BLOCK)]
    return [entropies(logits[:, block].float(), ids[block]) for block in blocks]


def entropies(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probabilities of `targets`, entropy of the rows' mean distribution, and mean of the rows' entropies, in nats.

    `logits` are float32 of shape (rows, tokens, vocabulary), `targets` of shape (tokens,). The results have shapes
    (rows, tokens), (tokens,) and (tokens,).

    Examples
    --------
    >>> import torch
    >>> chosen, total, expected = entropies(torch.zeros(3, 1, 4), torch.tensor([2]))
    >>> chosen.exp().tolist(), bool(torch.isclose(total, torch.tensor(4.0).log()))
    ([[0.25], [0.25], [0.25]], True)
    """
    import torch

    # Below this, probabilities are 0 in float32 anyway; minus infinity would lead to 0 * inf.
    shifted = (logits - logits.amax(-1, keepdim=True)).clamp_(min=-1e4)
    weights = shifted.exp()
    mass = weights.sum(-1, keepdim=True)
    weights /= mass
    norm = mass[..., 0].log()
    chosen = shifted.gather(-1, targets.expand(len(logits), -1)[..., None])[..., 0] - norm
    row_entropies = norm - torch.einsum("rtv,rtv->rt", weights, shifted)
    total = torch.special.entr(weights.mean(0)).sum(-1)
    return chosen.clamp_(max=0.0), total.clamp_(min=0.0), row_entropies.mean(0).clamp_(min=0.0)
