"""What is known of a child model before it is called, and how to ask it for evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llama_index.core.base.llms.types import MessageRole
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms.custom import CustomLLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM

from llamaindex_confroute.local import LocalLLM

# Their request is built once, so a copy with another temperature would answer at the old one: samples that agree
# because they cannot differ are no evidence.
_FIXED_AT_BIRTH = ("google_genai", "gemini", "vertex", "bedrock", "oci_genai", "watsonx")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a model says of itself.

    Attributes
    ----------
    model : str
        Its own name.
    window : int or None
        Tokens that prompt and answer may take; None when unknown.
    num_output : int or None
        Tokens reserved for the answer; None when unknown.
    calls_functions : bool
    system_role : MessageRole
    """

    model: str
    window: int | None = None
    num_output: int | None = None
    calls_functions: bool = False
    system_role: MessageRole = MessageRole.SYSTEM


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A model, and the keyword arguments that confroute adds to the caller's for one call of it."""

    llm: LLM
    kwargs: dict[str, Any] = field(default_factory=dict)


def facts_of(llm: LLM) -> Facts:
    """Read the model's metadata without a call to its server, if that can be had."""
    quiet = llm
    unknown_window = not _positive(getattr(llm, "context_window", 1))
    if unknown_window:
        # Ollama asks its server for the size then, and a dead edge would break every query engine at its start.
        quiet = llm.model_copy(update={"context_window": 1})
    try:
        said = quiet.metadata
    except Exception:  # noqa: BLE001  what a model cannot say is unknown; its calls will tell what is wrong
        name = getattr(llm, "model", None)
        return Facts(model=name if isinstance(name, str) else llm.class_name())
    return Facts(
        model=said.model_name if said.model_name != "unknown" else llm.class_name(),
        window=said.context_window if _positive(said.context_window) and not unknown_window else None,
        num_output=said.num_output if _positive(said.num_output) else None,
        calls_functions=said.is_function_calling_model and isinstance(llm, FunctionCallingLLM),
        system_role=said.system_role,
    )


def same_model(one: LLM, other: LLM) -> bool:
    """Whether two objects would answer alike: one object, or one class with the same settings."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    shared = CallbackManager([])
    alike = [llm.model_copy(update={"callback_manager": shared}) for llm in (one, other)]
    return bool(alike[0] == alike[1])


def reads_text_only(llm: LLM) -> bool:
    """Whether anything but text in a message would be lost or refused."""
    return isinstance(llm, (CustomLLM, LocalLLM))


def for_draft(llm: LLM, given: Mapping[str, Any], *, top_logprobs: int = 0) -> Prepared:
    """Return what to call for an answer with log-probabilities, where the model can be asked for them.

    `top_logprobs` is how many alternatives a token are wanted; the caller and the model may have set more.
    """
    if isinstance(llm, LocalLLM):
        wanted = max(top_logprobs, given.get("top_logprobs") or llm.top_logprobs)
        return Prepared(llm=llm, kwargs={"top_logprobs": wanted} if wanted else {})
    if not _openai_like(llm):
        return Prepared(llm=llm)
    if getattr(llm, "is_chat_model", True) is False:
        return Prepared(llm=llm, kwargs={"logprobs": max(1, top_logprobs)})
    wanted = max(top_logprobs, given.get("top_logprobs") or getattr(llm, "top_logprobs", 0) or 1)
    return Prepared(llm=llm, kwargs={"logprobs": True, "top_logprobs": wanted})


def for_prompt(llm: LLM, *, top_logprobs: int, max_tokens: int) -> Prepared:
    """Return what to call for a signal's own prompt: with log-probabilities, and short where it can be said."""
    asked = for_draft(llm, {}, top_logprobs=top_logprobs)
    if _openai_like(llm) or isinstance(llm, LocalLLM):
        return Prepared(llm=asked.llm, kwargs={**asked.kwargs, "max_tokens": max_tokens})
    if "max_tokens" in type(llm).model_fields:
        return Prepared(llm=llm.model_copy(update={"max_tokens": max_tokens}), kwargs=asked.kwargs)
    return asked


def can_sample(llm: LLM) -> bool:
    """Whether several different answers can be drawn from it."""
    if any(f".{name}." in f"{type(llm).__module__}." for name in _FIXED_AT_BIRTH):
        return False
    return "temperature" in type(llm).model_fields


def samples_in_one_call(llm: LLM) -> bool:
    """Whether `chat(..., n=k)` gives k answers under "choices" of `raw`."""
    return bool(getattr(type(llm), "samples_in_one_call", False))


def for_sample(llm: LLM, *, temperature: float, number: int, given: Mapping[str, Any]) -> Prepared:
    """Return what to call for sample `number` (0 for the first) at `temperature`; `llm` itself is not changed.

    A fixed seed is moved on by the sample's number: with one seed all samples would be one.
    """
    kwargs: dict[str, Any] = {}
    if isinstance(given.get("seed"), int):
        kwargs["seed"] = given["seed"] + 1 + number
    if _openai_like(llm) or "temperature" in given:
        kwargs["temperature"] = temperature
    changes: dict[str, Any] = {}
    if not _openai_like(llm):
        changes["temperature"] = temperature
    if isinstance(getattr(llm, "seed", None), int):
        changes["seed"] = llm.seed + 1 + number  # type: ignore[attr-defined]  # read above
    fixed = _moved(getattr(llm, "additional_kwargs", None), temperature, number)
    if fixed is not None:
        changes["additional_kwargs"] = fixed
    return Prepared(llm=llm.model_copy(update=changes) if changes else llm, kwargs=kwargs)


def _moved(fixed: Any, temperature: float, number: int) -> dict[str, Any] | None:
    """`additional_kwargs` win over everything in OpenAI-like models and Ollama alike."""
    if not isinstance(fixed, Mapping) or not {"seed", "temperature"} & set(fixed):
        return None
    moved = dict(fixed)
    if isinstance(moved.get("seed"), int):
        moved["seed"] += 1 + number
    if "temperature" in moved:
        moved["temperature"] = temperature
    return moved


def _openai_like(llm: LLM) -> bool:
    """OpenAI's class and all that derive from it take these as call arguments."""
    return {"logprobs", "top_logprobs", "temperature"} <= set(type(llm).model_fields)


def _positive(value: Any) -> bool:
    return isinstance(value, int) and value > 0
