"""A LlamaIndex query engine over a folder: the router is the engine's LLM, the embeddings are local."""

from pathlib import Path

from llama_index.core import SimpleDirectoryReader, VectorStoreIndex

from confroute import Cascade, TokenLogprob, record
from llamaindex_confroute import ConfRouteLLM, LocalEmbedding, LocalLLM

FOLDER = Path(__file__).parent / "ferry"
QUESTIONS = ("What does a return ticket to Holm cost?", "When does the last boat leave Holm in January?")

router = ConfRouteLLM(
    edge=LocalLLM(model="qwen2.5-coder-0.5b", max_tokens=256),
    cloud=LocalLLM(model="qwen2.5-coder-1.5b", max_tokens=32),
    policy=Cascade.of(TokenLogprob(), 0.3),
)

if __name__ == "__main__":
    documents = SimpleDirectoryReader(FOLDER).load_data()
    index = VectorStoreIndex.from_documents(documents, embed_model=LocalEmbedding())
    engine = index.as_query_engine(llm=router, similarity_top_k=2)
    for question in QUESTIONS:
        with record() as decisions:
            answer = engine.query(question)
        print(f"{question} {answer}")
        print(f"  {decisions[-1].route}: {decisions[-1].reason}")
