"""Monte Carlo dropout on decoder language models, whose own dropout is 0.

Dropout is hooked behind the attention and the feed-forward part of the top layers for the time of a forward pass.
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

from confroute.asks import Layers
from confroute.errors import ModelError, RequestError
from confroute.models import prompts
from confroute.models.local import LocalModel
from confroute.models.prompt_cache import cached_reading
from confroute.signals.mc_dropout import DropoutPasses, fault
from confroute.types import Message

if TYPE_CHECKING:
    import torch

__all__ = ["DropoutPasses", "dropout_passes"]

Pair: TypeAlias = "tuple[torch.nn.Module, torch.nn.Module]"
Site: TypeAlias = "tuple[torch.nn.Module, torch.Tensor]"
_ATTENTION = ("self_attn", "attn", "attention")
_FEED_FORWARD = ("mlp", "feed_forward", "block_sparse_moe")
# Tokens times rows of one forward pass over the prompt: bounds memory, and how long other threads wait.
_READ = 4096
# Logits of one forward pass over the answer: 128 MiB in float32.
_LOGITS = 2**25
# Tokens whose distributions are computed at a time: one token's fit the processor's cache.
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
    """Read `answer` behind `messages` several times, each time with other features dropped.

    Parameters
    ----------
    model : LocalModel
        Llama, Mistral, Qwen, Gemma, Phi, GPT-2, GPT-J, GPT-NeoX and others built of layers with an attention and a
        feed-forward module.
    messages : sequence of Message
    answer : str
        Taken as the tokenizer splits it, without end token.
    passes : int
        2 or more, all in one batch.
    rate : float
        Probability that a feature is dropped, in [0, 1). 0 gives the model's own likelihood `passes` times, exactly.
    layers : {"top-third", "all"} or int
        How many layers are perturbed, counted from the top. Those below are computed once for all passes.
    prompt : bool
        True perturbs the prompt as well: the whole model with the pass's weights. False perturbs from the position
        that predicts the answer's first token; what comes before it is read once for all passes.
    seed : int
        0 or more. The same seed gives the same masks: a pass's do not depend on how many passes there are, nor a
        layer's on how many layers are perturbed. The global random state is never touched.

    Returns
    -------
    DropoutPasses

    Raises
    ------
    RequestError
        A parameter out of range, an empty answer, or more tokens than the context window.
    ModelError
        No layers with attention and feed-forward modules can be found in this network.

    Notes
    -----
    Variational dropout after Gal & Ghahramani (arXiv 1506.02142, 1512.05287): a mask over features is drawn once a
    pass and used at every position, as if rows of the output projection's weights were missing; features that stay
    are divided by 1 - rate, so that the expected output is the unperturbed one.

    What a rate does depends on the model: a few features can be huge, and a pass that drops one is far off. Six
    right and wrong answers of SmolLM2-135M differ in variance at 0.01, and no longer at 0.03 and 0.1.

    Holds `model.lock` for single forward passes, and hooks the network only then; other threads may generate at the
    same time. A network in training mode is read in evaluation mode and left as it was.
    """
    problem = fault(passes, rate, layers, seed)
    if problem:
        raise RequestError(problem)
    ids, said = _tokens(model, messages, answer)
    found = decoder_layers(model.network)
    chosen = _top(found, layers)
    if rate == 0:
        # Rows of one batch may differ by a rounding error, so equal passes are computed once.
        once = _read(model, ids, said, _Plan())
        logprobs = np.repeat(once.logprobs, passes, axis=0)
        return DropoutPasses(logprobs=logprobs, total=once.total, expected=once.total.copy())
    width = model.network.config.get_text_config().hidden_size
    sites = _sites(chosen, masks(passes, len(chosen), width, rate=rate, seed=seed))
    plan = _Plan(sites=sites, rows=passes, first=len(found) - len(chosen), prompt=prompt)
    return _read(model, ids, said, plan)


def decoder_layers(network: Any) -> list[Pair]:
    """Attention and feed-forward module of each decoder layer, lowest first; ModelError where there are none."""
    import torch

    found: list[Pair] = []
    for module in network.modules():
        if isinstance(module, torch.nn.ModuleList):
            pairs = [(_part(layer, _ATTENTION), _part(layer, _FEED_FORWARD)) for layer in module]
            whole = [(a, f) for a, f in pairs if a is not None and f is not None]
            if len(whole) == len(pairs) > len(found):
                found = whole
    if not found:
        msg = (
            f"{type(network).__name__}: expected a list of layers with attention ({', '.join(_ATTENTION)}) and "
            f"feed-forward ({', '.join(_FEED_FORWARD)}) modules to put dropout behind; use another signal or model"
        )
        raise ModelError(msg)
    return found


def _part(layer: torch.nn.Module, names: Sequence[str]) -> torch.nn.Module | None:
    import torch

    parts = (getattr(layer, name, None) for name in names)
    part = next((part for part in parts if isinstance(part, torch.nn.Module)), None)
    # BLOOM and MPT add the residual inside: dropping from the sum would cut the residual stream itself.
    if part is None or "residual" in inspect.signature(part.forward).parameters:
        return None
    return part


def _top(found: list[Pair], layers: Layers) -> list[Pair]:
    """The layers to perturb, highest first."""
    count = {"all": len(found), "top-third": -(-len(found) // 3)}.get(str(layers), layers)
    assert isinstance(count, int)
    if count > len(found):
        msg = f"layers is {count}: expected 1 to {len(found)}, the layers of this model, or 'all'"
        raise RequestError(msg)
    return found[::-1][:count]


def _tokens(model: LocalModel, messages: Sequence[Message], answer: str) -> tuple[list[int], list[int]]:
    ids = prompts.prompt_ids(model.tokenizer, messages)
    said = prompts.encode(model.tokenizer, answer, special=False)
    if not said:
        msg = "answer is empty: expected a text of at least one token"
        raise RequestError(msg)
    if len(ids) + len(said) > model.context_window:
        msg = f"prompt ({len(ids)} tokens) and answer ({len(said)}) exceed the context window of {model.context_window}; shorten them"
        raise RequestError(msg)
    return ids, said


def masks(passes: int, layers: int, width: int, *, rate: float, seed: int) -> npt.NDArray[np.float32]:
    """Bernoulli masks, either 0 or 1 / (1 - rate): shape (passes, layers, 2, width).

    Layers count from the top; of the two, the first is the attention's. Each pass has its own stream of numbers.

    Examples
    --------
    >>> drawn = masks(2, 1, 4, rate=0.5, seed=0)
    >>> drawn.shape, sorted(set(drawn.ravel().tolist()))
    ((2, 1, 2, 4), [0.0, 2.0])
    """
    streams = [np.random.default_rng([seed, number]) for number in range(passes)]
    kept = np.stack([stream.random((layers, 2, width)) >= rate for stream in streams])
    return np.where(kept, 1 / (1 - rate), 0.0).astype(np.float32)


def _sites(chosen: Sequence[Pair], drawn: npt.NDArray[np.float32]) -> list[Site]:
    import torch

    values = torch.from_numpy(drawn)[:, :, :, None]
    pairs = enumerate(chosen)
    return [(part, values[:, depth, which]) for depth, pair in pairs for which, part in enumerate(pair)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """Masked modules, passes, lowest perturbed layer, whether the prompt is perturbed."""

    sites: Sequence[Site] = ()
    rows: int = 1
    first: int = 0
    prompt: bool = False


@contextmanager
def perturbed(
    model: LocalModel, sites: Sequence[Site]
) -> Iterator[Callable[[Sequence[int]], dict[str, Any]]]:
    """Hold the lock; within, the sites' outputs are masked, in evaluation mode. Yields `token ids -> input`."""
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
    # A one-row output becomes as many rows as there are masks, and so does all that follows: the layers below the
    # first mask are computed once.
    state, *rest = output if isinstance(output, tuple) else (output,)
    state = state * mask.to(device=state.device, dtype=state.dtype)
    return (state, *rest) if isinstance(output, tuple) else state


def _read(model: LocalModel, ids: Sequence[int], said: Sequence[int], plan: _Plan) -> DropoutPasses:
    """Read the prompt without its last token, then predict the answer from that token on."""
    import torch
    from transformers.cache_utils import DynamicCache

    network, before = model.network, ids[:-1]
    reading = None if plan.prompt and plan.sites else cached_reading(model.weights, ids)
    cache: Any = DynamicCache(config=network.config) if reading is None else reading.copied(less=1)
    wide, sites = (plan.rows, plan.sites) if plan.prompt else (1, ())
    numbers = list[Any]()
    with torch.inference_mode():
        for part in _parts(before if reading is None else (), _READ // wide):
            with perturbed(model, sites) as inputs:
                # The network without its head: none of these positions is projected onto the vocabulary.
                network.base_model(**inputs(part), past_key_values=cache, use_cache=True)
        if wide < plan.rows and before:
            # The first perturbed layer's own keys and values come before its first mask.
            for layer in cache.layers[plan.first + 1 :]:
                layer.batch_repeat_interleave(plan.rows)
        room = _LOGITS // (plan.rows * network.config.get_text_config().vocab_size)
        for part, targets in zip(_parts([ids[-1], *said[:-1]], room), _parts(said, room), strict=True):
            with perturbed(model, plan.sites) as inputs:
                out = network(**inputs(part), past_key_values=cache, use_cache=True)
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
    """Per block of tokens: log-probabilities (rows, tokens), total and expected entropy (tokens,)."""
    import torch

    wanted = torch.tensor(list(targets), device=logits.device)
    places = [slice(start, start + _BLOCK) for start in range(0, len(targets), _BLOCK)]
    return [entropies(logits[:, place].float(), wanted[place]) for place in places]


def entropies(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probabilities of `targets`, entropy of the rows' mean distribution, mean of their entropies, in nats.

    For `logits` (rows, tokens, vocabulary) in float32 and `targets` (tokens,): shapes (rows, tokens), (tokens,) twice.

    Examples
    --------
    >>> import torch
    >>> chosen, total, expected = entropies(torch.zeros(3, 1, 4), torch.tensor([2]))
    >>> chosen.exp().tolist(), bool(torch.isclose(total, torch.tensor(4.0).log()))
    ([[0.25], [0.25], [0.25]], True)
    """
    import torch

    # Below this a probability is 0 in float32; an infinity would make 0 * inf.
    shifted = (logits - logits.amax(-1, keepdim=True)).clamp_(min=-1e4)
    weights = shifted.exp()
    mass = weights.sum(-1, keepdim=True)
    weights /= mass
    norm = mass[..., 0].log()
    chosen = shifted.gather(-1, targets.expand(len(logits), -1)[..., None])[..., 0] - norm
    own = norm - torch.einsum("rtv,rtv->rt", weights, shifted)
    total = torch.special.entr(weights.mean(0)).sum(-1)
    return chosen.clamp_(max=0.0), total.clamp_(min=0.0), own.mean(0).clamp_(min=0.0)
