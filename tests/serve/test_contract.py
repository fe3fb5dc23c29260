"""The promises of every host, kept through the server: by LangChain's and LlamaIndex's own OpenAI clients."""

from __future__ import annotations

import asyncio
import json

import httpx
import openai
from langchain_openai import ChatOpenAI
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

from confroute import Limits, Router, errors
from confroute.serve import make_app
from confroute.testing import AdapterAnswer, AdapterContract
from tests.serve.conftest import serving

ONCE = Limits(attempts=1)


class _Kept(httpx.SyncByteStream, httpx.AsyncByteStream):
    """Keeps what passes through: the decision of a stream stands in its last event, which these clients drop."""

    def __init__(self, stream, kept):
        self.stream, self.kept = stream, kept

    def __iter__(self):
        for chunk in self.stream:
            self.kept.append(chunk)
            yield chunk

    async def __aiter__(self):
        async for chunk in self.stream:
            self.kept.append(chunk)
            yield chunk

    def close(self):
        self.stream.close()

    async def aclose(self):
        await self.stream.aclose()


class _Transport(httpx.HTTPTransport):
    def __init__(self, kept):
        super().__init__()
        self.kept = kept

    def handle_request(self, request):
        response = super().handle_request(request)
        response.stream = _Kept(response.stream, self.kept)
        return response


class _AsyncTransport(httpx.AsyncHTTPTransport):
    def __init__(self, kept):
        super().__init__()
        self.kept = kept

    async def handle_async_request(self, request):
        response = await super().handle_async_request(request)
        response.stream = _Kept(response.stream, self.kept)
        return response


def decision_in(kept):
    """The decision in the bytes of an answer."""
    text = b"".join(kept).decode()
    events = [line[6:] for line in text.splitlines() if line.startswith("data: {")] or [text]
    return next(told["confroute"] for one in events if (told := json.loads(one).get("metadata")))


def raised(error):
    """The router's own error, which the server names: clients know but their own."""
    body = error.body if isinstance(error.body, dict) else {}
    kind = getattr(errors, str(body.get("code")), None)
    assert kind is not None, error
    made = kind.__new__(kind)
    made.args = (body["message"],)
    return made


class _OverHTTP(AdapterContract):
    forms = ("invoke", "ainvoke", "stream", "astream")

    def send(self, form, question, *, edge, cloud, policy, route=None):
        router = Router(edge=edge, cloud=cloud, policy=policy, edge_limits=ONCE, cloud_limits=ONCE)
        kept = []
        with serving(make_app(router)) as url:
            try:
                if form in ("invoke", "stream"):
                    with httpx.Client(transport=_Transport(kept)) as client:
                        chunks = [*getattr(self, form)(self.model(f"{url}/v1", route, client), question)]
                else:
                    chunks = asyncio.run(self.in_loop(form, question, f"{url}/v1", route, kept))
            except openai.APIError as error:
                raise raised(error) from error
        streamed = chunks if "stream" in form else ()
        return AdapterAnswer(text="".join(chunks), decision=decision_in(kept), chunks=streamed)

    async def in_loop(self, form, question, url, route, kept):
        """The chunks of an async form, whose client is closed in the loop that it was opened in."""
        async with httpx.AsyncClient(transport=_AsyncTransport(kept)) as client:
            model = self.model(url, route, client)
            return [chunk async for chunk in getattr(self, form)(model, question)]


class TestThroughLangChain(_OverHTTP):
    """`ChatOpenAI`, which knows nothing of the router; the route is forced by a header."""

    @staticmethod
    def model(url, route, client):
        """The client."""
        headers = {} if route is None else {"x-confroute-route": route}
        name = "http_client" if isinstance(client, httpx.Client) else "http_async_client"
        own = {"model": "confroute", "base_url": url, "api_key": "none", "max_retries": 0}
        return ChatOpenAI(**own, default_headers=headers, **{name: client})

    @staticmethod
    def invoke(model, question):
        """A whole answer."""
        yield model.invoke(question).text

    @staticmethod
    def stream(model, question):
        """A stream."""
        for chunk in model.stream(question):
            yield chunk.text

    @staticmethod
    async def ainvoke(model, question):
        """A whole answer."""
        yield (await model.ainvoke(question)).text

    @staticmethod
    async def astream(model, question):
        """A stream."""
        async for chunk in model.astream(question):
            yield chunk.text


class TestThroughLlamaIndex(_OverHTTP):
    """`OpenAILike`, the same; the route is forced in the body."""

    @staticmethod
    def model(url, route, client):
        """The client."""
        body = {} if route is None else {"extra_body": {"confroute_route": route}}
        name = "http_client" if isinstance(client, httpx.Client) else "async_http_client"
        own = {"model": "confroute", "api_base": url, "api_key": "none", "max_retries": 0}
        return OpenAILike(**own, is_chat_model=True, additional_kwargs=body, **{name: client})

    @staticmethod
    def invoke(model, question):
        """A whole answer."""
        yield model.chat(asked(question)).message.content

    @staticmethod
    def stream(model, question):
        """A stream."""
        for chunk in model.stream_chat(asked(question)):
            yield chunk.delta

    @staticmethod
    async def ainvoke(model, question):
        """A whole answer."""
        yield (await model.achat(asked(question))).message.content

    @staticmethod
    async def astream(model, question):
        """A stream."""
        async for chunk in await model.astream_chat(asked(question)):
            yield chunk.delta


def asked(question):
    """LlamaIndex's form of it."""
    return [ChatMessage(role="user", content=question)]
