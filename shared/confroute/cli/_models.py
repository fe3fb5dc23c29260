"""Models named on the command line, as they are recorded: `local:NAME`, `openai:MODEL`, `module:object`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from confroute.errors import PolicyError
from confroute.executor import Call
from confroute.models.named import imported
from confroute.signals.answers import options_in
from confroute.signals.option_probability import letter_logprobs
from confroute.types import Generation, Message

PROVIDERS = ("local", "openai", "ollama")
_ROLES = {"system": "system", "user": "human", "assistant": "ai", "tool": "human"}


@dataclass(slots=True, kw_only=True)
class ChatSpeaker:
    """A LangChain chat model to be recorded; see `confroute.recording.runner.Recorded`.

    Attributes
    ----------
    source : chat model
        Or a binding of one.
    """

    source: Any

    @property
    def model(self) -> str:
        """The model's own name."""
        from langchain_confroute._tiers import model_name

        return model_name(self.source)

    def call(self, messages: tuple[Message, ...], tier: str) -> Call:
        """What answers asks of `tier` behind these messages."""
        from langchain_confroute._calls import ChatCalls
        from langchain_confroute._tiers import TierModel

        model = TierModel(name=tier, source=self.source)
        return ChatCalls(tiers={tier: model}, messages=_chat(messages), opened=None).call

    def options(self, messages: tuple[Message, ...], draft: Generation) -> Mapping[str, float] | None:
        """Log-probability of each option letter that the last user message lists, as the answer's first token."""
        from confroute.models.inside import option_logprobs
        from langchain_confroute import ChatLocal

        asked = next((m.text for m in reversed(messages) if m.role == "user"), "")
        letters = options_in(asked)
        if not letters:
            return None
        if isinstance(self.source, ChatLocal):
            return option_logprobs(self.source.loaded(), messages, letters)
        return letter_logprobs(draft.top_logprobs[0], letters) or None if draft.top_logprobs else None


def _chat(messages: tuple[Message, ...]) -> list[Any]:
    from langchain_core.messages.utils import convert_to_messages

    return convert_to_messages([(_ROLES[m.role], m.text) for m in messages])


def speaker(spec: str, *, base_url: str | None, max_tokens: int, dtype: str | None) -> ChatSpeaker:
    """The model of one name.

    Raises
    ------
    PolicyError
        No such module or object, or one that is no LangChain chat model.
    MissingExtraError, ModelError
        What the model needs is not there.
    """
    from confroute.demo.backends import Backend
    from langchain_confroute import ChatLocal

    if spec.partition(":")[0] in PROVIDERS:
        backend = Backend(spec=spec, base_url=base_url, max_tokens=max_tokens, dtype=dtype)
        source: Any = backend.langchain()
    else:
        source = _imported(spec)
    if isinstance(source, ChatLocal):
        source.loaded()  # a missing model ends the command here, not in the first row
        source = source.model_copy(update={"logprobs": True})
    return ChatSpeaker(source=source)


def _imported(spec: str) -> Any:
    from langchain_confroute._tiers import chat_of

    found: Any = imported(spec)
    if chat_of(found) is None:
        msg = f"{spec} is a {type(found).__name__}: expected a LangChain chat model object"
        raise PolicyError(msg)
    return found
