"""Hidden states and option scores of a local model, and prompts that are processed once for all of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from confroute.errors import RequestError
from confroute.models import prompts
from confroute.models.dropout import dropout_passes
from confroute.models.inside import hidden_states, option_alternatives
from confroute.models.local import LocalModel
from confroute.models.prompt_cache import prompt_caching
from confroute.types import Message

pytestmark = pytest.mark.local
ASK = [Message(role="user", text="Where did the cat sit?")]


def test_cached_prompts_change_no_number(tiny: LocalModel) -> None:
    """Draft, samples, dropout and states from one cached prompt equal those from four runs; the cache is never modified."""

    def everything() -> list[Any]:
        drafts = tiny.generate(ASK, max_tokens=6)
        samples = tiny.generate(ASK, max_tokens=6, n=3, temperature=1.0, seed=1)
        logprobs = [one.logprobs for one in (*drafts, *samples)]
        passes = [
            dropout_passes(tiny, ASK, "on the mat", passes=3, prompt=prompt).logprobs
            for prompt in (False, True)
        ]
        return [*logprobs, *passes, hidden_states(tiny, ASK, (0, 1, 2))]

    alone = everything()
    with prompt_caching():
        first, second = everything(), everything()
    for one, two, three in zip(alone, first, second, strict=True):
        assert np.asarray(two) == pytest.approx(np.asarray(one), abs=1e-5)
        assert np.asarray(three) == pytest.approx(np.asarray(two), abs=0)


def test_hidden_states_are_the_networks(tiny: LocalModel) -> None:
    """Those of one plain forward call, at the prompt's last token."""
    ids = torch.tensor([prompts.prompt_ids(tiny.tokenizer, ASK)])
    with torch.inference_mode():
        out = tiny.network(input_ids=ids, output_hidden_states=True)
    expected = np.stack([state[0, -1].numpy() for state in out.hidden_states])
    assert hidden_states(tiny, ASK, (0, 1, 2)) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(RequestError, match="expected one or more of 0 to 2"):
        hidden_states(tiny, ASK, (3,))
    logs = out.logits[0, -1].log_softmax(-1)
    letter = tiny.tokenizer.encode("A", add_special_tokens=False)[0]
    assert ("A", pytest.approx(float(logs[letter]), abs=1e-4)) in option_alternatives(tiny, ASK, ("A",))
