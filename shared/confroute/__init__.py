"""Route each LLM call to an edge or a cloud model by measured uncertainty."""

from typing import TYPE_CHECKING, Any

from confroute.decision import Decision, Measurement, Routed, Step
from confroute.errors import ConfrouteError
from confroute.models.breaker import Breaker
from confroute.models.deadline import deadline
from confroute.models.resilience import Limits
from confroute.models.retry_budget import RetryBudget
from confroute.observe.trace import record
from confroute.policy import (
    Cascade,
    Gate,
    KeepPrivate,
    Prefix,
    SendTo,
    Threshold,
    load_policy,
    save_policy,
)
from confroute.signals import (
    ContextLacks,
    ContextSupport,
    Ensemble,
    McDropout,
    Probe,
    RetrievalScore,
    SameEmbedding,
    SameEntailment,
    SameText,
    SelfConsistency,
    SemanticEntropy,
    TokenLogprob,
    semantic_entropy,
)
from confroute.types import Context, Generation, Message, Request, Tier, Usage

__all__ = [
    "Breaker",
    "Cascade",
    "ConfrouteError",
    "Context",
    "ContextLacks",
    "ContextSupport",
    "Decision",
    "Ensemble",
    "Gate",
    "Generation",
    "KeepPrivate",
    "Limits",
    "McDropout",
    "Measurement",
    "Message",
    "Prefix",
    "Probe",
    "Request",
    "RetrievalScore",
    "RetryBudget",
    "Routed",
    "Router",
    "SameEmbedding",
    "SameEntailment",
    "SameText",
    "SelfConsistency",
    "SemanticEntropy",
    "SendTo",
    "Step",
    "Threshold",
    "Tier",
    "TokenLogprob",
    "Usage",
    "deadline",
    "load_policy",
    "record",
    "save_policy",
    "semantic_entropy",
]


if TYPE_CHECKING:
    from confroute.hosts.router import Router


def __getattr__(name: str) -> Any:
    # Policies alone need nothing of what asks models.
    if name == "Router":
        from confroute.hosts.router import Router

        return Router
    if name == "__version__":
        from importlib.metadata import version

        return version("confroute")
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
