"""Messages to prompt tokens, and tokens back to text as they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from confroute.errors import RequestError
from confroute.types import Alternatives, Finish, Message

UNFINISHED = "\ufffd"
# GGUF files name one end token; instruct models may use any of these, as llama.cpp also assumes.
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
    """Token ids of the prompt, ready for the assistant's turn.

    Models without a chat template get one "role: text" line a message and a last line "assistant:".

    Raises
    ------
    RequestError
        No messages, or a conversation that the model's template refuses.
    """
    if not messages:
        msg = "messages is empty: expected at least one Message, such as Message(role='user', text=...)"
        raise RequestError(msg)
    if not getattr(tokenizer, "chat_template", None):
        lines = "\n".join(f"{m.role}: {m.text}" for m in messages)
        return encode(tokenizer, f"{lines}\nassistant:", special=True)
    return encode(tokenizer, _rendered(tokenizer, messages), special=False)


def _rendered(tokenizer: Any, messages: Sequence[Message]) -> str:
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
        # Some templates raise on roles they do not know, others leave the turn out.
        return text if all(result in text for result in results) else render("user")
    except TemplateError as error:
        roles = ", ".join(m.role for m in messages)
        msg = f"the model's chat template refuses the roles ({roles}): {error}; start with user and alternate with assistant"
        raise RequestError(msg) from error


def encode(tokenizer: Any, text: str, *, special: bool) -> list[int]:
    """Token ids of `text`, with the model's own begin token if `special`."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=special)
    return ids


def end_ids(network: Any, tokenizer: Any) -> frozenset[int]:
    """Ids of the tokens that end an answer."""
    found: set[int] = set()
    for owner in (getattr(network, "generation_config", None), network.config, tokenizer):
        ids = getattr(owner, "eos_token_id", None)
        found.update([ids] if isinstance(ids, int) else ids or ())
    special = set(tokenizer.all_special_tokens)
    found.update(tokenizer.convert_tokens_to_ids(token) for token in END_TOKENS if token in special)
    return frozenset(found)


def decoder_of(tokenizer: Any) -> Callable[[list[int]], str]:
    """The fastest `ids -> text` of this tokenizer; special tokens have no text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return lambda ids: str(backend.decode(ids, skip_special_tokens=True))
    return lambda ids: str(
        tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    )


@dataclass(slots=True, kw_only=True)
class Row:
    """One answer as it grows: tokens, their texts and log-probabilities, the text, why it ended.

    A character whose bytes span several tokens belongs to the token that completes it; the others have no text.
    """

    decode: Callable[[list[int]], str]
    stop: tuple[str, ...] = ()
    ids: list[int] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    tops: list[Alternatives] = field(default_factory=list)
    text: str = ""
    finish: Finish | None = None
    billed: int = 0
    _prefix: int = 0
    _read: int = 0

    def push(self, token: int, logprob: float, top: Sequence[tuple[int, float]] = ()) -> None:
        """Take one more token that is not an end token, and the likeliest ones at its place."""
        self.billed += 1
        self.ids.append(token)
        self.logprobs.append(logprob)
        self.tops.append(tuple((self.decode([other]), value) for other, value in top))
        old, new = self._window()
        if len(new) > len(old) and not new.endswith(UNFINISHED):
            self._prefix, self._read = self._read, len(self.ids)
            self._append(new[len(old) :])
        else:
            self.tokens.append("")

    def end(self, finish: Finish) -> None:
        """Close the row; bytes that never became a character are shown as U+FFFD."""
        if self.finish is None:
            self.finish = finish
            old, new = self._window()
            if len(new) > len(old) and self.tokens:
                self.tokens.pop()
                self._append(new[len(old) :])

    def alternatives(self, start: int = 0, stop: int | None = None) -> tuple[Alternatives, ...] | None:
        """The likeliest tokens at each place; None where none were asked for."""
        found = tuple(self.tops[start:stop])
        return found if any(found) else None

    def settled(self) -> int:
        """How many tokens can be shown now: none whose text may turn out to begin a stop string."""
        if self.finish is not None:
            return len(self.tokens)
        safe = len(self.text) - max((_overlap(self.text, stop) for stop in self.stop), default=0)
        count = end = 0
        for position, piece in enumerate(self.tokens):
            end += len(piece)
            if end > safe:
                break
            # A token without text waits for the token that completes its character.
            count = position + 1 if piece else count
        return count

    def _window(self) -> tuple[str, str]:
        return self.decode(self.ids[self._prefix : self._read]), self.decode(self.ids[self._prefix :])

    def _append(self, piece: str) -> None:
        start = len(self.text)
        self.text += piece
        self.tokens.append(piece)
        hits = [self.text.find(stop, max(0, start - len(stop) + 1)) for stop in self.stop]
        if any(hit >= 0 for hit in hits):
            self._cut(min(hit for hit in hits if hit >= 0))
            self.finish = "stop"

    def _cut(self, length: int) -> None:
        """Keep `length` characters, and the tokens that hold them: of one that is cut through, the part before the cut."""
        self.text = self.text[:length]
        end = 0
        for position, piece in enumerate(self.tokens):
            if end >= length:
                for column in (self.tokens, self.logprobs, self.tops, self.ids):
                    del column[position:]
                break
            self.tokens[position] = piece[: length - end]
            end += len(piece)
        # Else an answer would look as if some of its tokens had no log-probability, which is no evidence.
        self.billed = len(self.tokens)


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`.

    Examples
    --------
    >>> _overlap("one, tw", "two"), _overlap("one", "two")
    (2, 0)
    """
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if stop.startswith(text[-size:])), 0)
