"""One of the router's models: what is known of it before it is called, and how it is asked in each role."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from llama_index.core.base.llms.types import MessageRole
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms.custom import CustomLLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM

from confroute.hosts.model import ModelCall, ModelFacts
from confroute.hosts.requests import own_retries
from llamaindex_confroute.local import LocalLLM
from llamaindex_confroute.messages import integrations_of

# Their request is built once, so a copy with another temperature would answer at the old one: samples that agree
# because they cannot differ are no evidence.
_FIXED_AT_BIRTH = ("google_genai", "gemini", "vertex", "bedrock", "oci_genai", "watsonx")

# What OpenAI's Responses API is asked for log-probabilities by.
_SCORES = "message.output_text.logprobs"


class ChildModel:
    """A model of the router's user, never changed; what has to differ for one call is set on copies or in the call.

    Parameters
    ----------
    llm : LLM
    in_thread : bool
        Its async calls block, and so are to run in threads.
    keeps_logprobs : bool
        Its final answers are asked for log-probabilities too.
    """

    def __init__(self, llm: LLM, *, in_thread: bool = False, keeps_logprobs: bool = False) -> None:
        self.llm = llm
        self._keeps_logprobs = keeps_logprobs
        self.in_thread = in_thread
        self.calls_functions = False
        self.system_role = MessageRole.SYSTEM
        # OpenAI's class and all that derive from it take these as arguments of a call.
        self._openai_like = {"logprobs", "top_logprobs", "temperature"} <= set(type(llm).model_fields)
        self._responses = {"include", "track_previous_responses"} <= set(type(llm).model_fields)
        self._completes = getattr(llm, "is_chat_model", True) is False
        self._following: LLM | None = None
        # What refusals are remembered by: of this object, since a copy of the router keeps its own.
        self._identity = object()
        self._facts = self._read_facts()

    @property
    def facts(self) -> ModelFacts:
        """What the model says of itself, without a call to its server."""
        # Ollama learns its window from its first answer: what is not known yet is asked again.
        if self._facts.context_window is None:
            self._facts = self._read_facts()
        return self._facts

    @property
    def reads_text_only(self) -> bool:
        """Whether anything but text in a message would be lost or refused."""
        return isinstance(self.llm, (CustomLLM, LocalLLM))

    def prepared(self, call: ModelCall, given: Mapping[str, Any]) -> tuple[LLM, dict[str, Any]]:
        """Return what to call, and the keyword arguments that the call adds to those of the caller."""
        extra = self._logprob_arguments(call, given) if call.logprobs else {}
        if call.temperature is not None:
            return self._at_temperature(call.temperature, call.drawn, given, extra)
        if call.role == "final":
            return self.llm, extra
        llm = self._follower()
        if call.max_tokens is not None:
            if self._openai_like or isinstance(llm, LocalLLM):
                extra["max_tokens"] = call.max_tokens
            else:
                names = {"max_tokens", "max_output_tokens"} & set(type(llm).model_fields)
                llm = llm.model_copy(update=dict.fromkeys(names, call.max_tokens)) if names else llm
        return llm, extra

    def _read_facts(self) -> ModelFacts:
        llm = self.llm
        known = ModelFacts(
            model=llm.class_name(),
            named=False,
            answer_limit=self._answer_limit(),
            identity=self._identity,
            can_sample=can_sample(llm),
            answers_per_call=bool(getattr(type(llm), "samples_in_one_call", False)),
            # A class of the user's own often holds a model that is not made for several threads.
            thread_safe=getattr(type(llm), "thread_safe", not isinstance(llm, CustomLLM)),
            blocking=self.in_thread,
            retries=own_retries(llm),
            keeps_logprobs=self._keeps_logprobs,
            asks_logprobs=self._openai_like or self._responses or isinstance(llm, LocalLLM),
            alternatives=self._own_alternatives(),
        )
        quiet, window = llm, getattr(llm, "context_window", 1)
        if not _positive(window):
            # Ollama asks its server for the size then, and a dead edge would break every query engine at its start.
            quiet = llm.model_copy(update={"context_window": 1})
        try:
            said = quiet.metadata
        except Exception:  # noqa: BLE001  what a model cannot say is unknown; its calls will tell what is wrong
            name = getattr(llm, "model", None)
            return replace(known, model=name, named=True) if isinstance(name, str) else known
        self.calls_functions = said.is_function_calling_model and isinstance(llm, FunctionCallingLLM)
        self.system_role = said.system_role
        return replace(
            known,
            model=said.model_name if said.model_name != "unknown" else known.model,
            named=said.model_name not in {"unknown", known.model},
            context_window=said.context_window if _positive(said.context_window) and quiet is llm else None,
            max_output=said.num_output if _positive(said.num_output) else None,
        )

    def _answer_limit(self) -> int | None:
        # Not of its metadata: where nobody set a limit, these hold a number all the same.
        limits = (getattr(self.llm, name, None) for name in ("max_tokens", "max_output_tokens"))
        return next((limit for limit in limits if isinstance(limit, int) and _positive(limit)), None)

    def _own_alternatives(self) -> int:
        own = getattr(self.llm, "top_logprobs", 0)
        if isinstance(self.llm, LocalLLM):
            return int(own)
        # Without any, the response's own `logprobs` would be empty.
        return (own or 1) if self._openai_like and not self._completes else 0

    def _logprob_arguments(self, call: ModelCall, given: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments that ask for log-probabilities, where the model can be asked for them; the caller may want more."""
        if self._openai_like and self._completes:
            return {"logprobs": max(1, call.top_logprobs)}
        wanted: dict[str, Any] = {"logprobs": True} if self._openai_like else {}
        if self._responses:
            # Instead of the user's own, and so with it.
            own = given.get("include") or getattr(self.llm, "include", None) or ()
            wanted["include"] = [*dict.fromkeys((*own, _SCORES))]
        if call.top_logprobs and self.facts.asks_logprobs:
            wanted["top_logprobs"] = max(call.top_logprobs, given.get("top_logprobs") or 0)
        return wanted

    def _follower(self) -> LLM:
        """The model, or a copy that follows its call where the model's own `logprobs=True` would send its own alternatives.

        A router keeps the log-probabilities of whichever of its models answers. Made once: each copy may open connections of
        its own.
        """
        if self._following is None:
            self._following = self._made_to_follow()
        return self._following

    def _made_to_follow(self) -> LLM:
        keeping: Callable[[], LLM] | None = getattr(self.llm, "keeping_logprobs", None)
        if keeping is not None:
            return keeping()
        if not self._openai_like or self._completes or getattr(self.llm, "logprobs", None) is not True:
            return self.llm
        return self.llm.model_copy(update={"logprobs": None})

    def _at_temperature(
        self, temperature: float, number: int, given: Mapping[str, Any], extra: dict[str, Any]
    ) -> tuple[LLM, dict[str, Any]]:
        """For sample `number`, 0 for the first. A fixed seed moves on by it: with one seed all samples would be one."""
        if isinstance(given.get("seed"), int):
            extra["seed"] = given["seed"] + 1 + number
        changes: dict[str, Any] = {}
        if self._openai_like or "temperature" in given:
            extra["temperature"] = temperature
        if not self._openai_like:
            changes["temperature"] = temperature
        seed, fixed = getattr(self.llm, "seed", None), getattr(self.llm, "additional_kwargs", None)
        if isinstance(seed, int):
            changes["seed"] = seed + 1 + number
        # These win over everything in OpenAI-like models and Ollama alike.
        if isinstance(fixed, Mapping) and {"seed", "temperature"} & set(fixed):
            moved = {**fixed, "temperature": temperature} if "temperature" in fixed else dict(fixed)
            if isinstance(moved.get("seed"), int):
                moved["seed"] += 1 + number
            changes["additional_kwargs"] = moved
        return self.llm.model_copy(update=changes) if changes else self.llm, extra


def can_sample(llm: LLM) -> bool:
    """Whether several different answers can be drawn from it."""
    return integrations_of(type(llm)).isdisjoint(_FIXED_AT_BIRTH) and "temperature" in type(llm).model_fields


def same_model(one: LLM, other: LLM) -> bool:
    """Whether two objects would answer alike: one object, or one class with the same settings."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    shared = CallbackManager([])
    alike = [llm.model_copy(update={"callback_manager": shared}) for llm in (one, other)]
    return bool(alike[0] == alike[1])


def _positive(value: Any) -> bool:
    return isinstance(value, int) and value > 0
