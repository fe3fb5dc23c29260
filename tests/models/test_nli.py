"""`LocalNLI` reads which label means entailment, and never assumes it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from confroute.errors import ModelError
from confroute.models import nli
from confroute.models.nli import LocalNLI

pytestmark = pytest.mark.local
MakeBert = Callable[..., Path]
PAIRS = [("the cat sat", "a cat sat"), ("the mat", "the cat " * 30), ("a", "b"), ("on the mat", "")]
ORDERS = [
    ("contradiction", "entailment", "neutral"),
    ("ENTAILMENT", "NEUTRAL", "CONTRADICTION"),
    ("Neutral", "Contradiction", "Entailment"),
]


@pytest.mark.parametrize("labels", ORDERS)
def test_the_order_of_labels_does_not_matter(
    make_bert: MakeBert, tmp_path: Path, labels: tuple[str, ...]
) -> None:
    """The same weights with their outputs permuted give the same probability of entailment."""
    first = LocalNLI.load(make_bert(tmp_path / "first", labels=ORDERS[0]))
    other = LocalNLI.load(make_bert(tmp_path / "other", labels=labels))
    values = first(PAIRS)
    assert values.dtype == np.float32
    assert values.shape == (len(PAIRS),)
    np.testing.assert_allclose(other(PAIRS), values, atol=1e-6)
    assert len(set(values.round(4))) == len(PAIRS)


def test_it_is_the_models_own_softmax(make_bert: MakeBert, tmp_path: Path) -> None:
    """Each value is the softmax of one pair alone, unpadded, at the entailment label."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = make_bert(tmp_path, labels=ORDERS[2])
    network = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for pair, value in zip(PAIRS, LocalNLI.load(folder)(PAIRS), strict=True):
        with torch.inference_mode():
            logits = network(
                **tokenizer([pair[0]], [pair[1]], return_tensors="pt", truncation=True, max_length=64)
            ).logits
        assert value == pytest.approx(logits.softmax(1)[0, 2].item(), abs=1e-5)


def test_two_labels(make_bert: MakeBert, tmp_path: Path) -> None:
    """ "not_entailment" is not entailment."""
    model = LocalNLI.load(make_bert(tmp_path, labels=("entailment", "not_entailment")))
    assert nli.entailment_index(model._encoder.network.config, "x") == 0


@pytest.mark.parametrize(
    "labels", [("LABEL_0", "LABEL_1", "LABEL_2"), ("yes", "no"), ("entailment", "x-entailment")]
)
def test_labels_that_do_not_say(make_bert: MakeBert, tmp_path: Path, labels: tuple[str, ...]) -> None:
    """Unnamed or ambiguous labels are an error that lists them."""
    with pytest.raises(ModelError, match=f"{labels[0]}.*id2label"):
        LocalNLI.load(make_bert(tmp_path, labels=labels))


def test_pairs_are_cached(make_bert: MakeBert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pair is computed once, also within one call; the oldest leaves the cache first."""
    model = LocalNLI.load(make_bert(tmp_path, labels=ORDERS[0]))
    judged: list[tuple[str, str]] = []
    real = model._compute
    monkeypatch.setattr(model, "_compute", lambda pairs: judged.extend(pairs) or real(pairs))
    once = model([PAIRS[0], PAIRS[1], PAIRS[0]])
    again = model(PAIRS[:2])
    assert judged == PAIRS[:2]
    assert once[0] == once[2] == again[0]
    monkeypatch.setattr(nli, "CACHED_PAIRS", 2)
    model([PAIRS[2]])
    model([PAIRS[1], PAIRS[0]])
    assert judged == [*PAIRS[:3], PAIRS[0]]


def test_no_pairs(make_bert: MakeBert, tmp_path: Path) -> None:
    """No pairs give no values."""
    assert LocalNLI.load(make_bert(tmp_path, labels=ORDERS[0]))([]).shape == (0,)


def test_threads(make_bert: MakeBert, tmp_path: Path) -> None:
    """Several threads get the same as one."""
    folder = make_bert(tmp_path, labels=ORDERS[0])
    alone = LocalNLI.load(folder)(PAIRS)
    shared = LocalNLI.load(folder)
    with ThreadPoolExecutor(6) as pool:
        for values in pool.map(lambda _: shared(PAIRS), range(12)):
            np.testing.assert_allclose(values, alone, atol=1e-6)
