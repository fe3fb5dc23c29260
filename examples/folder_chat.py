"""A chat engine over a folder: a local edge, and a cloud behind an OpenAI-compatible server on loopback.

Takes the place of a real provider with a second local model (`--cloud-model`), so that everything runs offline:
`python examples/folder_chat.py "What does a bicycle cost?" "And when does the last boat leave?"`
"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_index.core import Document, Settings, VectorStoreIndex
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

from confroute import Cascade, SendTo, TokenLogprob, record
from confroute.testing import Reply, ScriptedModel, ScriptedServer
from llamaindex_confroute import ConfRouteLLM, LocalEmbedding, LocalLLM

FOLDER = Path(__file__).parent / "ferry"


class ModelServer(ScriptedServer):
    """Serves a local model in OpenAI's format."""

    def __init__(self, model: str) -> None:
        super().__init__(ScriptedModel())
        self.llm = LocalLLM(model=model, max_tokens=24)

    def reply(self, body: Mapping[str, Any]) -> tuple[Reply, str]:
        """Ask the model."""
        messages = [ChatMessage(role=m["role"], content=m["content"]) for m in body["messages"]]
        text = self.llm.chat(messages).message.content or "..."
        return Reply(text=text, logprob=None), str(body["messages"])


def main() -> None:
    """Ask each question, the answers streamed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("questions", nargs="+")
    parser.add_argument("--cloud-model", default="qwen2.5-coder-1.5b")
    parser.add_argument("--threshold", type=float, default=0.25, help="nats a token")
    given = parser.parse_args()
    Settings.tokenizer = str.split
    Settings.embed_model = LocalEmbedding()
    documents = [Document(text=path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.txt"))]
    index = VectorStoreIndex.from_documents(documents)
    with ModelServer(given.cloud_model) as server:
        cloud = OpenAILike(
            model=given.cloud_model,
            api_base=server.url,
            api_key="none",
            is_chat_model=True,
            timeout=300,
            max_retries=0,
        )
        rules = (SendTo(tier="edge", purposes=("condense",)),)
        policy = Cascade.of(TokenLogprob(), given.threshold, rules=rules)
        llm = ConfRouteLLM(edge=LocalLLM(model="smollm2-135m", max_tokens=24), cloud=cloud, policy=policy)
        engine = index.as_chat_engine(chat_mode="condense_plus_context", llm=llm, similarity_top_k=1)
        for question in given.questions:
            start = time.perf_counter()
            with record() as decisions:
                print(f"\n> {question}")
                for token in engine.stream_chat(question).response_gen:
                    print(token, end="", flush=True)
            print(f"\n  {time.perf_counter() - start:.1f} s")
            for decision in decisions:
                print(f"  {decision.route}: {decision.reason}")
        print(f"\n{len(server.bodies)} requests reached the cloud")


if __name__ == "__main__":
    main()
