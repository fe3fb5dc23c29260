"""Loopback servers that answer as providers document it: each writes one `Said` in its own JSON, whole and streamed."""

import json
from dataclasses import dataclass, replace
from typing import ClassVar

from confroute.models import chat_format
from confroute.testing import wire

CHOSEN = (("Paris", -0.03), (" it", -0.01), (" is", -0.02))
MEAN = 0.02
CALLED = (('{"word', -0.05), ('":"x', -0.04), ('"}', -0.03))
CALLED_MEAN = 0.04


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a model said, of which each provider tells its part.

    Attributes
    ----------
    tokens : tuple of (str, float)
    thoughts : tuple of (str, float)
        Reasoning before the answer.
    calls : bool
        Whether it calls the first tool with `tokens` as arguments.
    end : str
        Why it ended, in the provider's own word.
    """

    tokens: tuple = CHOSEN
    thoughts: tuple = ()
    calls: bool = False
    end: str = "stop"
    input_tokens: int = 50
    cached: int = 0
    written: int = 0
    kept: str | None = None
    reasoning: int = 0

    @property
    def text(self):
        return "".join(token for token, _ in self.tokens)

    @property
    def thought(self):
        return "".join(token for token, _ in self.thoughts)

    @property
    def output_tokens(self):
        return len(self.tokens)


def entry(token, value, tops):
    """One scored token as OpenAI's chat and those that follow it write it; its alternatives are less likely."""
    others = [{"token": f"{token}{at}", "logprob": value - at, "bytes": None} for at in range(1, tops)]
    own = {"token": token, "logprob": value, "bytes": [*token.encode()]}
    return {**own, "top_logprobs": [own, *others] if tops else []}


class Handler(wire.RequestHandler):
    """Refuses what its provider refuses, and answers the rest."""

    # Keeps no connection open, which a client that is only collected would leave behind.
    protocol_version = "HTTP/1.0"

    def respond(self, body):
        served = self.served
        refusal = served.refuses(body)
        if refusal is not None:
            self.send_json(refusal[1], code=refusal[0])
            return
        if not served.streams(body):
            self.send_json(served.whole(body, served.said_to(body)))
            return
        self.send_response(200)
        self.send_header("content-type", served.stream_type)
        self.end_headers()
        for name, event in served.events(body, served.said_to(body)):
            self.wfile.write(served.framed(name, event).encode())
        self.wfile.write(served.last_words.encode())


class Format(wire.LoopbackServer):
    """A provider's server. `said` is what it says from now on, `refused` what it refuses: by name, as `refusals` has them."""

    handler = Handler
    stream_type, last_words = "text/event-stream", ""
    # Documented refusals: name -> (whether a request has it, status, body).
    refusals: ClassVar = {}
    # Why an answer ends, in the words of the provider.
    ends = ()
    ordinary_end = "stop"
    tools_end = "tool_calls"

    def __init__(self, said=None, *, refused=None):
        super().__init__()
        self.said = Said() if said is None else said
        self.refused = refused

    @property
    def root(self):
        return self.url.removesuffix("/v1")

    def streams(self, body):
        return bool(body.get("stream"))

    def framed(self, name, event):
        head = f"event: {name}\n" if name else ""
        return f"{head}data: {json.dumps(event)}\n\n"

    def refuses(self, body):
        if self.refused is None:
            return None
        asks, status, error = self.refusals[self.refused]
        return (status, error) if asks(body) else None

    def said_to(self, body):
        said = self.said if self.said.end != "stop" else replace(self.said, end=self.ordinary_end)
        if body.get("tools") and said.tokens is CHOSEN:
            return replace(said, tokens=CALLED, calls=True, end=self.tools_end)
        return said


def asks(body):
    """Whether a request is for log-probabilities."""
    return bool(body.get("logprobs"))


def many(limit):
    """Whether a request is for more alternatives than a limit."""
    return lambda body: (body.get("top_logprobs") or 0) > limit


def tool_name(body):
    tool = body["tools"][0]
    return (tool.get("function") or tool)["name"]


class Chat(Format):
    """OpenAI's chat: https://platform.openai.com/docs/api-reference/chat/object."""

    last_words = "data: [DONE]\n\n"
    ends = ("stop", "length", "tool_calls", "content_filter")
    refusals: ClassVar = {
        "reasoning models": (
            asks,
            403,
            {
                "error": {
                    "message": "This model gives no logprobs, and you may not request them",
                    "code": None,
                }
            },
        )
    }

    def scored(self, said, body):
        """The value of "logprobs" of these tokens; None where they were not asked for."""
        if not body.get("logprobs"):
            return None
        tops = body.get("top_logprobs") or 0
        return {"content": [entry(*one, tops) for one in said.tokens], "refusal": None}

    def message(self, said, body):
        if not said.calls:
            return {"role": "assistant", "content": said.text}
        function = {"name": tool_name(body), "arguments": said.text}
        call = {"id": "call_1", "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [call]}

    def usage(self, said):
        return {
            "prompt_tokens": said.input_tokens,
            "completion_tokens": said.output_tokens + said.reasoning,
            "total_tokens": said.input_tokens + said.output_tokens + said.reasoning,
            "prompt_tokens_details": {"cached_tokens": said.cached},
            "completion_tokens_details": {"reasoning_tokens": said.reasoning},
        }

    def whole(self, body, said):
        choice = {
            "index": 0,
            "message": self.message(said, body),
            "finish_reason": said.end,
            "logprobs": self.scored(said, body),
        }
        return {**chat_format.base(body, "chat.completion"), "choices": [choice], "usage": self.usage(said)}

    def events(self, body, said):
        for delta, part in self.deltas(said, body):
            yield None, chat_format.delta(body, delta, logprobs=self.scored(part, body))
        yield None, chat_format.delta(body, {}, finish=said.end)
        yield (
            None,
            {**chat_format.base(body, "chat.completion.chunk"), "choices": [], "usage": self.usage(said)},
        )

    def deltas(self, said, body):
        """Each part of a stream: its delta, and what was said in it."""
        for at, one in enumerate(said.tokens):
            part = replace(said, tokens=(one,))
            delta = self.message(part, body)
            if said.calls:
                call = {**delta["tool_calls"][0], "index": 0}
                delta = {
                    **delta,
                    "tool_calls": [call if not at else {"index": 0, "function": {"arguments": one[0]}}],
                }
            yield delta, part


class VLLM(Chat):
    """https://docs.vllm.ai/en/latest/serving/online_serving/openai_compatible_server/, with `--return-tokens-as-token-ids`.

    The flag: https://docs.vllm.ai/en/latest/cli/serve/. A token is named by its number; its bytes are those of its text, those
    of an alternative the bytes of that name. The limit of alternatives is `--max-logprobs`.
    """

    ends = ("stop", "length", "tool_calls", "abort")
    refusals: ClassVar = {
        "more alternatives than its limit": (
            many(5),
            400,
            {
                "error": {
                    "message": "Requested sample logprobs of 20, which is greater than max allowed: 5",
                    "type": "BadRequestError",
                    "param": None,
                    "code": 400,
                }
            },
        )
    }

    def scored(self, said, body):
        scored = super().scored(said, body)
        for at, one in enumerate(scored["content"] if scored else ()):
            one["token"] = f"token_id:{100 + at}"
            for rank, other in enumerate(one["top_logprobs"]):
                name = f"token_id:{100 + at + rank}"
                one["top_logprobs"][rank] = {**other, "token": name, "bytes": [*name.encode()]}
        return scored

    def usage(self, said):
        counts = super().usage(said)
        del counts["completion_tokens_details"]
        return counts

    def whole(self, body, said):
        answer = super().whole(body, said)
        answer["choices"][0]["stop_reason"] = None
        place = {"7": {"logprob": -9.5, "rank": 3, "decoded_token": "Capital"}}
        return {**answer, "prompt_logprobs": [None, place] if body.get("prompt_logprobs") else None}


class DeepSeek(Chat):
    """https://api-docs.deepseek.com/api/create-chat-completion and https://api-docs.deepseek.com/guides/reasoning_model."""

    ends = ("stop", "length", "tool_calls", "content_filter", "insufficient_system_resource")
    refusals: ClassVar = {
        "reasoning models": (
            asks,
            400,
            {
                "error": {
                    "message": "This model does not support the parameter logprobs",
                    "type": "invalid_request_error",
                    "param": None,
                    "code": "invalid_request_error",
                }
            },
        )
    }

    def scored(self, said, body):
        if not body.get("logprobs"):
            return None
        tops = body.get("top_logprobs") or 0
        return {
            "content": [entry(*one, tops) for one in said.tokens] or None,
            "reasoning_content": [entry(*one, tops) for one in said.thoughts] or None,
        }

    def message(self, said, body):
        message = super().message(said, body)
        return {**message, "reasoning_content": said.thought} if said.thoughts else message

    def deltas(self, said, body):
        for one in said.thoughts:
            delta = {"role": "assistant", "content": None, "reasoning_content": one[0]}
            yield delta, replace(said, tokens=(), thoughts=(one,))
        yield from super().deltas(replace(said, thoughts=()), body)

    def usage(self, said):
        return {
            "prompt_tokens": said.input_tokens,
            "completion_tokens": said.output_tokens + said.reasoning,
            "total_tokens": said.input_tokens + said.output_tokens + said.reasoning,
            "prompt_cache_hit_tokens": said.cached,
            "prompt_cache_miss_tokens": said.input_tokens - said.cached,
            "completion_tokens_details": {"reasoning_tokens": said.reasoning},
        }


class Ollama(Format):
    """https://docs.ollama.com/api/chat. Its parts are lines; with a tool call, tokens come scored while the call is held back."""

    stream_type = "application/x-ndjson"
    ends = ("stop", "length")
    tools_end = "stop"
    refusals: ClassVar = {
        "more than 20 alternatives": (many(20), 400, {"error": "top_logprobs must be between 0 and 20"}),
    }

    def streams(self, body):
        return body.get("stream", True)

    def framed(self, name, event):
        return json.dumps(event) + "\n"

    def part(self, body, message, scored=(), **more):
        head = {"model": body["model"], "created_at": "2026-01-01T00:00:00Z"}
        tops = body.get("top_logprobs") or 0
        entries = [entry(*one, tops) for one in scored]
        logprobs = {"logprobs": entries} if entries and body.get("logprobs") else {}
        return {**head, "message": {"role": "assistant", "content": "", **message}, **logprobs, **more}

    def ending(self, said):
        return {
            "done": True,
            "done_reason": said.end,
            "total_duration": 4_000_000,
            "load_duration": 1_000_000,
            "prompt_eval_count": said.input_tokens,
            "prompt_eval_duration": 1_000_000,
            "eval_count": said.output_tokens + len(said.thoughts),
            "eval_duration": 2_000_000,
        }

    def called(self, body, said):
        function = {"name": tool_name(body), "arguments": json.loads(said.text)}
        return {"tool_calls": [{"id": "call_1", "function": function}]}

    def whole(self, body, said):
        message = self.called(body, said) if said.calls else {"content": said.text}
        thinking = {"thinking": said.thought} if said.thoughts else {}
        return self.part(body, {**message, **thinking}, (*said.thoughts, *said.tokens), **self.ending(said))

    def events(self, body, said):
        for one in said.thoughts:
            yield None, self.part(body, {"thinking": one[0]}, (one,), done=False)
        for one in said.tokens:
            yield None, self.part(body, {"content": "" if said.calls else one[0]}, (one,), done=False)
        if said.calls:
            yield None, self.part(body, self.called(body, said), done=False)
        yield None, self.part(body, {}, **self.ending(said))


class Anthropic(Format):
    """https://platform.claude.com/docs/en/api/messages and https://platform.claude.com/docs/en/build-with-claude/streaming."""

    ends = (
        *("end_turn", "stop_sequence", "max_tokens", "model_context_window_exceeded", "pause_turn"),
        *("tool_use", "refusal"),
    )
    ordinary_end, tools_end = "end_turn", "tool_use"

    def refuses(self, body):
        """What its reference does not list is refused."""
        extra = {"logprobs", "top_logprobs"} & set(body)
        if not extra:
            return None
        message = f"{extra.pop()}: Extra inputs are not permitted"
        return 400, {"type": "error", "error": {"type": "invalid_request_error", "message": message}}

    def block(self, body, said):
        if said.calls:
            return {
                "type": "tool_use",
                "id": "toolu_1",
                "name": tool_name(body),
                "input": json.loads(said.text),
            }
        return {"type": "text", "text": said.text}

    def usage(self, said):
        """What was read from the cache counts beside the input, as what was written to it."""
        return {
            "input_tokens": said.input_tokens - said.cached - said.written,
            "cache_creation_input_tokens": said.written,
            **({"cache_creation": self.by_time(said)} if said.kept else {}),
            "cache_read_input_tokens": said.cached,
            "output_tokens": said.output_tokens + said.reasoning,
            "output_tokens_details": {"thinking_tokens": said.reasoning},
        }

    def by_time(self, said):
        return {f"ephemeral_{time}_input_tokens": said.written * (time == said.kept) for time in ("5m", "1h")}

    def head(self, body):
        return {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"]}

    def whole(self, body, said):
        ending = {"stop_reason": said.end, "stop_sequence": None, "usage": self.usage(said)}
        return {**self.head(body), "content": [self.block(body, said)], **ending}

    def events(self, body, said):
        begun = {
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {**self.usage(said), "output_tokens": 1},
        }
        events = [{"type": "message_start", "message": {**self.head(body), "content": [], **begun}}]
        block = self.block(body, said)
        empty = {**block, "input": {}} if said.calls else {**block, "text": ""}
        events.append({"type": "content_block_start", "index": 0, "content_block": empty})
        for token, _ in said.tokens:
            json_part = {"type": "input_json_delta", "partial_json": token}
            delta = json_part if said.calls else {"type": "text_delta", "text": token}
            events.append({"type": "content_block_delta", "index": 0, "delta": delta})
        ending = {"stop_reason": said.end, "stop_sequence": None}
        events += [
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": ending, "usage": self.usage(said)},
            {"type": "message_stop"},
        ]
        return ((event["type"], event) for event in events)


class Responses(Format):
    """https://platform.openai.com/docs/api-reference/responses/object and .../responses-streaming."""

    ends = ("completed", "max_output_tokens", "content_filter")
    ordinary_end = tools_end = "completed"
    asked = "message.output_text.logprobs"
    refusals: ClassVar = {
        "reasoning models": (
            lambda body: Responses.asked in (body.get("include") or ()),
            400,
            {
                "error": {
                    "message": "logprobs cannot be had of models that reason: they are not supported",
                    "type": "invalid_request_error",
                    "param": "include",
                    "code": "unsupported_parameter",
                }
            },
        )
    }

    def scored(self, said, body):
        tops = body.get("top_logprobs") or 0
        return [entry(*one, tops) for one in said.tokens] if self.asked in (body.get("include") or ()) else []

    def item(self, body, said):
        if said.calls:
            call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "status": "completed"}
            return {**call, "name": tool_name(body), "arguments": said.text}
        return {**self.empty(), "status": "completed", "content": [self.block(body, said)]}

    def empty(self):
        return {"type": "message", "id": "msg_1", "role": "assistant", "status": "in_progress", "content": []}

    def block(self, body, said):
        text = {"type": "output_text", "text": said.text, "annotations": []}
        return {**text, "logprobs": self.scored(said, body)}

    def response(self, body, **more):
        settings = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
        head = {"id": "resp_1", "object": "response", "created_at": 1_767_225_600, "model": body["model"]}
        rest = {"error": None, "incomplete_details": None, "instructions": None, "metadata": {}}
        return {**head, **rest, **settings, "status": "in_progress", "output": [], "usage": None, **more}

    def whole(self, body, said):
        whole = said.end == "completed"
        thought = [{"type": "reasoning", "id": "rs_1", "summary": []}] if said.reasoning else []
        return self.response(
            body,
            status="completed" if whole else "incomplete",
            incomplete_details=None if whole else {"reason": said.end},
            output=[*thought, self.item(body, said)],
            usage={
                "input_tokens": said.input_tokens,
                "input_tokens_details": {"cached_tokens": said.cached},
                "output_tokens": said.output_tokens + said.reasoning,
                "output_tokens_details": {"reasoning_tokens": said.reasoning},
                "total_tokens": said.input_tokens + said.output_tokens + said.reasoning,
            },
        )

    def events(self, body, said):
        for number, (name, event) in enumerate(self.unnumbered(body, said)):
            yield name, {"type": name, "sequence_number": number, **event}

    def unnumbered(self, body, said):
        yield "response.created", {"response": self.response(body)}
        item, at = self.item(body, said), {"output_index": 0}
        if said.calls:
            yield "response.output_item.added", {**at, "item": {**item, "arguments": ""}}
            for token, _ in said.tokens:
                yield "response.function_call_arguments.delta", {**at, "item_id": "fc_1", "delta": token}
            end = {**at, "item_id": "fc_1", "name": item["name"], "arguments": said.text}
            yield "response.function_call_arguments.done", end
        else:
            yield "response.output_item.added", {**at, "item": self.empty()}
            place = {**at, "item_id": "msg_1", "content_index": 0}
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            yield "response.content_part.added", {**place, "part": part}
            for one in said.tokens:
                scored = self.scored(replace(said, tokens=(one,)), body)
                yield "response.output_text.delta", {**place, "delta": one[0], "logprobs": scored}
            done = {**place, "text": said.text, "logprobs": self.scored(said, body)}
            yield "response.output_text.done", done
            yield "response.content_part.done", {**place, "part": self.block(body, said)}
        yield "response.output_item.done", {**at, "item": item}
        name = "response.completed" if said.end == "completed" else "response.incomplete"
        yield name, {"response": self.whole(body, said)}


class Gemini:
    """https://ai.google.dev/api/generate-content, and the same of Vertex AI. No client of it is installed: its JSON is read as it is."""

    ends = (
        *(
            "STOP",
            "MAX_TOKENS",
            "SAFETY",
            "RECITATION",
            "LANGUAGE",
            "BLOCKLIST",
            "PROHIBITED_CONTENT",
            "SPII",
        ),
        *("MALFORMED_FUNCTION_CALL", "OTHER"),
    )
    refusal: ClassVar = {
        "error": {
            "code": 400,
            "message": "Logprobs is not enabled for models/gemini-x",
            "status": "INVALID_ARGUMENT",
        }
    }

    @staticmethod
    def answer(said, *, scored=True, tops=0):
        """The JSON of a whole answer."""
        candidate = {
            "content": {"role": "model", "parts": [{"text": said.text}]},
            "finishReason": "STOP" if said.end == "stop" else said.end,
            "index": 0,
            "avgLogprobs": sum(value for _, value in said.tokens) / len(said.tokens),
        }
        if scored:
            candidate["logprobsResult"] = {"chosenCandidates": [Gemini.token(*one) for one in said.tokens]}
        if scored and tops:
            candidate["logprobsResult"]["topCandidates"] = [
                {
                    "candidates": [
                        Gemini.token(*one),
                        *(Gemini.token(f"{one[0]}{at}", one[1] - at) for at in range(1, tops)),
                    ]
                }
                for one in said.tokens
            ]
        usage = {"promptTokenCount": said.input_tokens, "candidatesTokenCount": said.output_tokens}
        usage |= {"cachedContentTokenCount": said.cached} if said.cached else {}
        usage |= {"thoughtsTokenCount": said.reasoning} if said.reasoning else {}
        total = said.input_tokens + said.output_tokens + said.reasoning
        return {
            "candidates": [candidate],
            "usageMetadata": {**usage, "totalTokenCount": total},
            "modelVersion": "gemini-x",
        }

    @staticmethod
    def token(token, value):
        return {"token": token, "tokenId": 7, "logProbability": value}
