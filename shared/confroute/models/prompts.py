"""Between messages and tokens: prompts by a model's chat template, end tokens, and decoding back to text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from confroute.errors import RequestError
from confroute.types import Message

# GGUF files name a single end token; like llama.cpp, we assume that instruct models may use any of these.
END_TOKENS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<end_of_turn>",
    "</s>",
)


def prompt_ids(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Token ids of the prompt, up to the start of the assistant's turn.

    Models without a chat template get one "role: text" line per message and a last line "assistant:".

    Raises
    ------
    RequestError
        There are no messages, or the model's chat template refuses the conversation.
    """
    if not messages:
        msg = "messages is empty: expected at least one Message, such as Message(role='user', text=...)"
        raise RequestError(msg)
    if not getattr(tokenizer, "chat_template", None):
        lines = "\n".join(f"{m.role}: {m.text}" for m in messages)
        return encode(tokenizer, f"{lines}\nassistant:", special=True)
    return encode(tokenizer, _render(tokenizer, messages), special=False)


def _render(tokenizer: Any, messages: Sequence[Message]) -> str:
    from jinja2 import TemplateError

    def render(tool_role: str) -> str:
        turns = [{"role": tool_role if m.role == "tool" else m.role, "content": m.text} for m in messages]
        return str(tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))

    results = [m.text for m in messages if m.role == "tool"]
    try:
        if not results:
            return render("tool")
        try:
            text = render("tool")
        except TemplateError:
            return render("user")
        # Some templates raise on unknown roles, others leave the turn out.
        return text if all(result in text for result in results) else render("user")
    except TemplateError as error:
        roles = ", ".join(m.role for m in messages)
        msg = f"the model's chat template refuses the roles ({roles}): {error}; start with user and alternate with assistant"
        raise RequestError(msg) from error


def encode(tokenizer: Any, text: str, *, special: bool) -> list[int]:
    """Token ids of `text`, with the model's begin token if `special`."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=special)
    return ids


def end_ids(network: Any, tokenizer: Any) -> frozenset[int]:
    """Ids of all tokens that end an answer."""
    end_tokens: set[int] = set()
    for owner in (getattr(network, "generation_config", None), network.config, tokenizer):
        ids = getattr(owner, "eos_token_id", None)
        end_tokens.update([ids] if isinstance(ids, int) else ids or ())
    special = set(tokenizer.all_special_tokens)
    end_tokens.update(tokenizer.convert_tokens_to_ids(token) for token in END_TOKENS if token in special)
    return frozenset(end_tokens)


def decoder_of(tokenizer: Any) -> Callable[[list[int]], str]:
    """The tokenizer's fastest function from token ids to text; special tokens have no text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return lambda ids: str(backend.decode(ids, skip_special_tokens=True))
    return lambda ids: str(
        tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    )
