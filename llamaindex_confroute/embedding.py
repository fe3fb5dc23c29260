"""A local embedding model for LlamaIndex indexes."""

from __future__ import annotations

import asyncio
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding


class LocalEmbedding(BaseEmbedding):
    """Embeddings by a model in this process: a catalogue name or a folder.

    Parameters
    ----------
    model_name : str
        Such as "all-minilm-l6-v2", which `confroute pull all-minilm-l6-v2` fetches.

    Raises
    ------
    MissingExtraError
        At the first text, if torch or transformers is missing.
    DownloadError
        At the first text, if the weights are not there; the message holds the command that fetches them.
    """

    model_name: str = "all-minilm-l6-v2"

    def __init__(self, model_name: str = "all-minilm-l6-v2", **kwargs: Any) -> None:
        unknown = sorted(set(kwargs) - set(type(self).model_fields))
        if unknown:
            # pydantic would drop it, and embed with the default model.
            msg = f"{', '.join(unknown)}: expected model_name or a field of BaseEmbedding"
            raise TypeError(msg)
        super().__init__(model_name=model_name, **kwargs)

    @classmethod
    def class_name(cls) -> str:
        """Name in serialised pipelines."""
        return "ConfRouteLocalEmbedding"

    def _embed(self, texts: list[str]) -> list[Embedding]:
        from confroute.models.embed import LocalEmbedder

        vectors: list[Embedding] = LocalEmbedder.load(self.model_name)(texts).tolist()
        return vectors

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._embed([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return self._embed(texts)

    def _get_query_embedding(self, query: str) -> Embedding:
        return self._embed([query])[0]

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return await asyncio.to_thread(self._get_text_embedding, text)
