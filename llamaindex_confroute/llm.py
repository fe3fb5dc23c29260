"""`ConfRouteLLM`: an edge and a cloud model as one LlamaIndex LLM."""

from __future__ import annotations

from llamaindex_confroute._structured import StructuredRouter


class ConfRouteLLM(StructuredRouter):
    """Answers each call on `edge` when its answer can be trusted, and on `cloud` when it cannot.

    Stands wherever an LLM of LlamaIndex stands: `Settings.llm`, query engines, chat engines, agents.

    Parameters
    ----------
    edge, cloud : LLM
        Two different models of any kind. Never changed, but for `callback_manager`: what is set on this object, as
        `Settings` and query engines do, is set on them, since the calls and their events are theirs. Rate limiters
        and retries of a provider belong to them as well.
    policy : Policy
        Decides; `Cascade()` if not given. Use a `Cascade` with a threshold fitted to your models.
    edge_limits, cloud_limits : Limits
        Time limit and retries of each. Give the edge model itself `max_retries=0` and a short time-out.
    members : mapping of str to LLM, optional
        Further models that an `Ensemble` in the policy asks by these names; none of their answers is ever returned.
    edge_in_thread : bool
        Run the edge's async calls in threads, for models whose `achat` blocks (`CustomLLM`, HuggingFaceLLM).
    system_prompt : str, optional
        For both; LlamaIndex reads it from the outermost LLM only.
    callback_manager : CallbackManager, optional
    **kwargs
        The other fields of a LlamaIndex `LLM`, such as `output_parser`.

    Raises
    ------
    PolicyError
        A child that is no LLM, two children that are the same model, or a policy that cannot be used.

    Notes
    -----
    The decision of each call stands in `response.additional_kwargs["confroute"]` (of a stream: of its last chunk),
    in a `ConfRouteDecisionEvent`, and in `with confroute.record() as decisions:`, which also sees calls whose
    response a query engine or agent throws away.

    One call is routed otherwise by `chat(..., confroute_route="cloud", confroute_threshold=0.1)`; all calls inside
    `with instrument_tags({"confroute": {"route": ..., "threshold": ..., "tags": [...]}}):` likewise, and rules see
    the tags.

    A stream shows a draft only once it is kept, cut into words, or from the moment a `Prefix` of the policy commits to it;
    an answer of the cloud, or of a route that was settled before any model was asked, is streamed as it comes.

    A prompt is taken to fit the edge if its estimated tokens and the edge's `num_output` do.

    Examples
    --------
    >>> from confroute import Cascade, TokenLogprob
    >>> from confroute.testing import Reply, ScriptedModel
    >>> from llamaindex_confroute.testing import ScriptedLLM
    >>> edge = ScriptedLLM(model=ScriptedModel([Reply(text="Lyon", logprob=-1.2)], name="small"))
    >>> cloud = ScriptedLLM(model=ScriptedModel(["Paris"], name="large"))
    >>> llm = ConfRouteLLM(edge=edge, cloud=cloud, policy=Cascade.of(TokenLogprob(), 0.3))
    >>> response = llm.complete("What is the capital of France?")
    >>> response.text, response.additional_kwargs["confroute"]["route"]
    ('Paris', 'cloud')
    """
