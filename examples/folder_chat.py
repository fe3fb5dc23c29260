"""A chat engine over a folder: a local edge, and a cloud behind an OpenAI-compatible server on loopback.

A second local model (`--cloud-model`) takes the place of a real provider, so that everything runs offline:
`python examples/folder_chat.py "What does a bicycle cost?" "And when does the last boat leave?"`
`--stream prefix` shows a good draft while it is written, and cuts a hopeless one off.
"""

import argparse
import time
from pathlib import Path

from llama_index.core import Settings, SimpleDirectoryReader, VectorStoreIndex
from llama_index.llms.openai_like import OpenAILike

from confroute import Cascade, Prefix, SendTo, Threshold, TokenLogprob, record
from confroute.testing import ModelServer
from llamaindex_confroute import ConfRouteLLM, LocalEmbedding, LocalLLM

FOLDER = Path(__file__).parent / "ferry"


def policy(threshold: float, stream: str) -> Cascade:
    """Condensing the question stays on the edge; answers go by their log-probabilities."""
    gates = Cascade.of(TokenLogprob(), threshold).gates
    rules = (SendTo(tier="edge", purposes=("condense",)),)
    commit, cut = Threshold(value=threshold), Threshold(value=2 * threshold)
    prefix = Prefix(commit=commit, cut=cut, tokens=4, least=2)
    return Cascade(gates=gates, rules=rules, prefix=prefix if stream == "prefix" else None)


def main() -> None:
    """Ask each question, the answers streamed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("questions", nargs="+")
    parser.add_argument("--cloud-model", default="qwen2.5-coder-1.5b")
    parser.add_argument("--threshold", type=float, default=0.25, help="nats per token")
    parser.add_argument("--stream", choices=("verify", "prefix"), default="verify")
    args = parser.parse_args()
    Settings.tokenizer = str.split
    Settings.embed_model = LocalEmbedding()
    index = VectorStoreIndex.from_documents(SimpleDirectoryReader(FOLDER).load_data())
    with ModelServer(args.cloud_model, max_tokens=24) as server:
        cloud = OpenAILike(
            model=args.cloud_model,
            api_base=server.url,
            api_key="none",
            is_chat_model=True,
            timeout=300,
            max_retries=0,
        )
        edge = LocalLLM(model="qwen2.5-coder-0.5b", max_tokens=256)
        llm = ConfRouteLLM(edge=edge, cloud=cloud, policy=policy(args.threshold, args.stream))
        engine = index.as_chat_engine(chat_mode="condense_plus_context", llm=llm, similarity_top_k=1)
        for question in args.questions:
            print(f"\n> {question}")
            start, first = time.perf_counter(), None
            with record() as decisions:
                for token in engine.stream_chat(question).response_gen:
                    first = first or time.perf_counter()
                    print(token, end="", flush=True)
            end = time.perf_counter()
            print(f"\n  first word after {(first or end) - start:.1f} s, all of it after {end - start:.1f} s")
            for decision in decisions:
                print(f"  {decision.route}: {decision.reason}")
        print(f"\n{len(server.bodies)} requests reached the cloud")


if __name__ == "__main__":
    main()
