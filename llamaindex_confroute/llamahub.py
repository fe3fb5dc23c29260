"""`llama_index.llms.confroute`, where LlamaIndex's own integrations are imported from: the wheel holds this file there."""

from llamaindex_confroute import ConfRouteLLM, LocalLLM

__all__ = ["ConfRouteLLM", "LocalLLM"]
