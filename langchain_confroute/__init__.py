"""confroute in LangChain: chat models and chains that are routed by measured uncertainty."""

try:
    import langchain_core  # noqa: F401  asked for, not used
except ImportError as error:
    from confroute.errors import MissingExtraError

    raise MissingExtraError(extra="langchain", needed_for="langchain_confroute") from error

from langchain_confroute.chat import ChatConfRoute
from langchain_confroute.local import ChatLocal
from langchain_confroute.messages import extract_token_logprobs, extract_tokens
from langchain_confroute.options import RoutingContext
from langchain_confroute.runnable import ConfidenceRouter
from langchain_confroute.with_context import WithContext

__all__ = [
    "ChatConfRoute",
    "ChatLocal",
    "ConfidenceRouter",
    "RoutingContext",
    "WithContext",
    "extract_token_logprobs",
    "extract_tokens",
]
