"""What every part of the router shares: its fields, its metadata and how a call's facts are gathered."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from llama_index.core.base.llms.types import LLMMetadata
from llama_index.core.bridge.pydantic import Field, PrivateAttr, field_serializer
from llama_index.core.callbacks import CallbackManager
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM

from confroute.errors import PolicyError
from confroute.flow import Policy
from confroute.models.resilience import Limits
from confroute.policy import Cascade
from confroute.policy.files import refuse_path
from confroute.text_extraction import texts_in
from confroute.types import Request, Tier
from llamaindex_confroute import _compat
from llamaindex_confroute._lineage import Lineage
from llamaindex_confroute._messages import core_messages, estimated_tokens, has_attachments
from llamaindex_confroute._models import Facts, can_sample, facts_of, reads_text_only, same_model
from llamaindex_confroute._overrides import Overrides
from llamaindex_confroute._prompts import NOTHING, Asked
from llamaindex_confroute._refusals import Refusals
from llamaindex_confroute._retrieved import RETRIEVING, context_of
from llamaindex_confroute._routing import Routing
from llamaindex_confroute._work import Work

TIERS = ("edge", "cloud")


class RouterBase(FunctionCallingLLM):
    """Fields and facts of a router; see `ConfRouteLLM`."""

    edge: LLM = Field(description="The cheap model, asked first.")
    cloud: LLM = Field(description="The model that answers what the edge may not.")
    policy: Policy = Field(default_factory=Cascade, exclude=True)
    edge_limits: Limits = Field(default_factory=Limits, exclude=True)
    cloud_limits: Limits = Field(default_factory=Limits, exclude=True)
    members: dict[str, LLM] = Field(default_factory=dict, exclude=True, description="Models of an ensemble.")
    edge_in_thread: bool = Field(default=False, description="Run async calls of a blocking edge in threads.")

    # By id, with the model itself so that the id stays its own.
    _known: dict[int, tuple[LLM, Facts]] = PrivateAttr(default_factory=dict)
    _lineage: Lineage = PrivateAttr(default_factory=Lineage)
    _refusals: Refusals = PrivateAttr(default_factory=Refusals)

    def __init__(
        self,
        edge: LLM,
        cloud: LLM,
        *,
        policy: Policy | None = None,
        edge_limits: Limits | None = None,
        cloud_limits: Limits | None = None,
        members: Mapping[str, LLM] | None = None,
        edge_in_thread: bool = False,
        system_prompt: str | None = None,
        callback_manager: CallbackManager | None = None,
        **kwargs: Any,
    ) -> None:
        unknown = sorted(set(kwargs) - set(type(self).model_fields))
        if unknown:
            # pydantic would drop it: a misspelt `policy` must not leave the default one in its place.
            msg = f"{', '.join(unknown)}: expected edge, cloud, policy, edge_limits, cloud_limits or a field of LLM"
            raise TypeError(msg)
        policy = Cascade() if policy is None else policy
        _check(edge, cloud, policy)
        _check_members(members or {})
        super().__init__(
            edge=edge,
            cloud=cloud,
            policy=policy,
            edge_limits=edge_limits or Limits(),
            cloud_limits=cloud_limits or Limits(),
            members=dict(members or {}),
            edge_in_thread=edge_in_thread,
            system_prompt=system_prompt,
            callback_manager=callback_manager or CallbackManager([]),
            **kwargs,
        )
        self._warn_of_limiter()
        if callback_manager is not None and callback_manager.handlers:
            self._hand_down(callback_manager)
        _compat.listen(RETRIEVING)

    def _warn_of_limiter(self) -> None:
        if self.rate_limiter is not None:
            warnings.warn(
                "rate_limiter is read by the models, and this object makes no call itself: give one to edge and to cloud",
                stacklevel=3,
            )

    @classmethod
    def class_name(cls) -> str:
        """Stable name of this class."""
        return "ConfRouteLLM"

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        # `Settings`, query engines and agents set it on the outermost LLM only, and the calls are the children's.
        if name == "callback_manager" and value is not None:
            self._hand_down(value)

    def _hand_down(self, manager: CallbackManager) -> None:
        for child in (self.edge, self.cloud, *self.members.values()):
            child.callback_manager = manager

    @field_serializer("edge", "cloud")
    def _redacted(self, child: LLM) -> dict[str, Any]:
        # Children hold keys. Names are enough to tell two routers apart in a cache of ingested nodes.
        return {"class_name": child.class_name(), "model_name": self._facts(child).model}

    @property
    def metadata(self) -> LLMMetadata:
        """What holds for both models, without I/O and before any route is known.

        The context window is the larger one, since the policy sends what the edge cannot hold to the cloud.
        """
        edge, cloud = self._facts(self.edge), self._facts(self.cloud)
        windows = [facts.window for facts in (edge, cloud) if facts.window is not None]
        outputs = [facts.num_output for facts in (edge, cloud) if facts.num_output is not None]
        return LLMMetadata(
            context_window=max(windows, default=DEFAULT_CONTEXT_WINDOW),
            num_output=max(outputs, default=-1),
            is_chat_model=True,
            is_function_calling_model=edge.calls_functions or cloud.calls_functions,
            model_name=f"confroute({edge.model}->{cloud.model})",
            system_role=cloud.system_role,
        )

    def _prepare_chat_with_tools(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        # Tool specifications are in the provider's format, and the provider is not known before the route is.
        msg = "ConfRouteLLM has no request of its own: call chat_with_tools, which leaves it to the model that answers"
        raise NotImplementedError(msg)

    def _facts(self, child: LLM) -> Facts:
        known = self._known.get(id(child))
        if known is not None and known[0] is child:
            return known[1]
        facts = facts_of(child)
        # Ollama learns its window from its first answer: what is not known yet is asked again.
        if facts.window is not None:
            self._known[id(child)] = (child, facts)
        return facts

    def _routing(self, work: Work[Any], given: Overrides, asked: Asked = NOTHING) -> Routing:
        """Everything to route `work`, with this call's facts."""
        messages = core_messages(work.messages)
        attachments = has_attachments(work.messages)
        tokens = estimated_tokens(messages, extra=work.extra_text)
        models = {"edge": self.edge, "cloud": self.cloud}
        request = Request(
            messages=messages,
            tiers={
                name: self._tier(name, llm, work, tokens=tokens, attachments=attachments)
                for name, llm in models.items()
            },
            route=given.route,
            threshold=given.threshold,
            tags=given.tags,
            tools=work.tool_names,
            beside=texts_in(work.extra_text, work.kwargs, keys=True),
            attachments=attachments,
            whole=work.whole,
            question=asked.question,
            context=context_of(asked),
            purpose=given.purpose or asked.purpose,
            begun_on=self._lineage.tier_of(asked.question, asked.existing_answer),
        )
        return Routing(
            policy=self.policy,
            models={**models, **self.members},
            limits={"edge": self.edge_limits, "cloud": self.cloud_limits},
            in_thread=frozenset({"edge"} if self.edge_in_thread else ()),
            request=request,
            lineage=self._lineage,
            refusals=self._refusals,
            span_id=_compat.span_id(),
        )

    def _tier(self, name: str, llm: LLM, work: Work[Any], *, tokens: int, attachments: bool) -> Tier:
        facts = self._facts(llm)
        lacks = "images and files" if attachments and reads_text_only(llm) else None
        if work.needs_tools and not facts.calls_functions:
            lacks = "tool calls"
        return Tier(
            name=name,
            model=facts.model,
            context_window=_room(facts, work.kwargs),
            input_tokens=tokens,
            lacks=lacks,
            can_sample=can_sample(llm),
        )


def _room(facts: Facts, kwargs: Mapping[str, Any]) -> int | None:
    """Tokens left for the prompt once those of the answer are set aside: a cut-off answer is no answer."""
    if facts.window is None:
        return None
    answer = kwargs.get("max_tokens") or facts.num_output or 0
    return facts.window - answer if 0 < answer < facts.window else facts.window


def _check_members(members: Mapping[str, object]) -> None:
    for name, member in members.items():
        if name in TIERS or not isinstance(member, LLM):
            msg = f"member {name!r} is a {type(member).__name__}: expected an LLM object under a name that is not a tier's"
            raise PolicyError(msg)


def _check(edge: object, cloud: object, policy: object) -> None:
    for name, child in (("edge", edge), ("cloud", cloud)):
        if not isinstance(child, LLM):
            msg = f"{name} is a {type(child).__name__}: expected a LlamaIndex LLM object, such as OpenAILike(model=...)"
            raise PolicyError(msg)
        if child.system_prompt:
            warnings.warn(
                f"the {name} model has a system_prompt, which LlamaIndex reads from the outermost LLM only: "
                "give it to ConfRouteLLM(system_prompt=...)",
                stacklevel=3,
            )
    if isinstance(edge, LLM) and isinstance(cloud, LLM) and same_model(edge, cloud):
        msg = f"edge and cloud are the same model ({edge.class_name()}): expected two that differ, the cheaper one as edge"
        raise PolicyError(msg)
    refuse_path(policy)
    if not isinstance(policy, Policy):
        msg = f"policy is a {type(policy).__name__}: expected Cascade(...) or an object with a flow(request) method"
        raise PolicyError(msg)
    unknown = set(getattr(policy, "tiers", TIERS)) - set(TIERS)
    if unknown:
        msg = f"the policy has the tiers {', '.join(sorted(unknown))}: ConfRouteLLM has {' and '.join(TIERS)}"
        raise PolicyError(msg)
