"""Send the demo's requests through both hosts under one policy."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confroute.decision import Decision
from confroute.demo.backends import Backend, switched_off
from confroute.demo.calibrate import is_right
from confroute.demo.questions import SYSTEM, DemoRequest
from confroute.errors import PolicyError
from confroute.models.resilience import Limits
from confroute.observe.trace import record
from confroute.policy import Cascade

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable
    from llama_index.core.base.base_query_engine import BaseQueryEngine

    from llamaindex_confroute import ConfRouteLLM


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """One request with its answer and the decision behind it."""

    request: DemoRequest
    answer: str
    decision: Decision
    latency_s: float

    @property
    def right(self) -> bool | None:
        """Whether the answer is right; None where no word tells."""
        return is_right(self.answer, self.request.accepted) if self.request.accepted else None


@dataclass(slots=True, kw_only=True)
class Session:
    """Routers of both hosts over the same two models and the same policy object."""

    edge: Backend
    cloud: Backend
    policy: Cascade
    folder: Path
    _built: dict[str, Any] = field(default_factory=dict)

    def send(self, request: DemoRequest) -> DemoResult:
        """Send one request."""
        start = time.perf_counter()
        with record() as decisions:
            answer = self._send(request)
        # A query engine may call more than once; the last call gave the answer.
        return DemoResult(
            request=request, answer=answer, decision=decisions[-1], latency_s=time.perf_counter() - start
        )

    def _send(self, request: DemoRequest) -> str:
        if request.kind == "documents":
            return str(self._engine().query(request.turns[-1].text)).strip()
        if request.host == "llamaindex":
            return self._send_llamaindex(request)
        messages = [("system", SYSTEM), *((m.role, m.text) for m in request.turns)]
        router = self._chat_cloud_off() if request.kind == "cloud off" else self._chat()
        return str(router.invoke(messages).text).strip()

    def _send_llamaindex(self, request: DemoRequest) -> str:
        from llama_index.core.llms import ChatMessage

        messages = [ChatMessage(role="system", content=SYSTEM)]
        messages += [ChatMessage(role=m.role, content=m.text) for m in request.turns]
        return (self._llm().chat(messages).message.content or "").strip()

    def _once(self, name: str, build: Callable[[], Any]) -> Any:
        if name not in self._built:
            self._built[name] = build()
        return self._built[name]

    def _chat(self) -> Runnable[Any, Any]:
        from langchain_confroute import ChatConfRoute

        router: Runnable[Any, Any] = self._once(
            "chat",
            lambda: ChatConfRoute(
                edge=self.edge.langchain(), cloud=self.cloud.langchain(), policy=self.policy
            ),
        )
        return router

    def _chat_cloud_off(self) -> Runnable[Any, Any]:
        from langchain_confroute import ChatConfRoute

        # One attempt: to retry what was switched off on purpose only takes time.
        return ChatConfRoute(
            edge=self.edge.langchain(),
            cloud=switched_off(),
            policy=replace(self.policy, on_cloud_error="edge"),
            cloud_limits=Limits(attempts=1),
        )

    def _llm(self) -> ConfRouteLLM:
        from llamaindex_confroute import ConfRouteLLM

        llm: ConfRouteLLM = self._once(
            "llm",
            lambda: ConfRouteLLM(
                edge=self.edge.llamaindex(), cloud=self.cloud.llamaindex(), policy=self.policy
            ),
        )
        return llm

    def _engine(self) -> BaseQueryEngine:
        engine: BaseQueryEngine = self._once("engine", self._build_engine)
        return engine

    def _build_engine(self) -> BaseQueryEngine:
        from llama_index.core import Document, VectorStoreIndex

        from llamaindex_confroute import LocalEmbedding

        texts = [path.read_text(encoding="utf-8") for path in sorted(self.folder.glob("*.txt"))]
        if not texts:
            msg = f"no .txt file in {self.folder}: give a folder of text files with --folder"
            raise PolicyError(msg)
        index = VectorStoreIndex.from_documents(
            [Document(text=text) for text in texts], embed_model=LocalEmbedding()
        )
        return index.as_query_engine(llm=self._llm(), similarity_top_k=1)
