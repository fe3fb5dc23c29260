"""confroute for LlamaIndex: route each LLM call to an edge or a cloud model by measured uncertainty."""

try:
    import llama_index.core  # noqa: F401  asked for, not used
except ImportError as error:
    from confroute.errors import MissingExtraError

    raise MissingExtraError(extra="llamaindex", needed_for="llamaindex_confroute") from error

from llamaindex_confroute.embedding import LocalEmbedding
from llamaindex_confroute.events import ConfRouteDecisionEvent
from llamaindex_confroute.llm import ConfRouteLLM
from llamaindex_confroute.local import LocalLLM
from llamaindex_confroute.responses import extract_token_logprobs

__all__ = ["ConfRouteDecisionEvent", "ConfRouteLLM", "LocalEmbedding", "LocalLLM", "extract_token_logprobs"]
