"""Heads that an earlier confroute saved still load, and give the same estimates."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from confroute.errors import CalibrationError, RequestError
from confroute.heads import WordRidge, encoder, load_head
from confroute.heads.files import _KINDS
from confroute.policy import Cascade, HeadFirst
from confroute.signals import TokenLogprob
from confroute.views.policy import policy_html

SAVED = Path(__file__).parent / "saved"
EXPECTED = json.loads((SAVED / "expected.json").read_text(encoding="utf-8"))
LETTERS = encoder(lambda texts: [[float(len(text)), text.count("a"), 1.0] for text in texts], name="letters")


def _loaded(kind):
    return load_head(SAVED / kind) if kind == "words" else load_head(SAVED / kind, LETTERS)


def test_there_is_a_file_of_every_kind():
    """A new kind of head needs a saved example here."""
    assert {folder.name for folder in SAVED.iterdir() if folder.is_dir()} == {*_KINDS}


@pytest.mark.parametrize("kind", sorted(_KINDS))
def test_a_head_saved_by_an_earlier_release_loads(kind):
    """It is of the same class, and its probabilities and spreads are those that were recorded with it."""
    head = _loaded(kind)
    estimate = head.estimate(EXPECTED["texts" if kind == "words" else "queries"])
    cloud_wins, spread = EXPECTED["estimates"][kind]
    assert type(head) is _KINDS[kind]
    assert estimate.cloud_wins == pytest.approx(cloud_wins, abs=1e-6)
    assert estimate.spread == pytest.approx(spread, abs=1e-6)


@pytest.mark.parametrize("kind", sorted(_KINDS))
def test_a_head_is_shown_by_its_size(kind):
    """Its arrays are pages long, and its words are those of the users' prompts."""
    head = _loaded(kind)
    size = f"terms={len(head.vocabulary)}" if kind == "words" else "dim=3"
    assert repr(head) == f"{_KINDS[kind].__name__}({size})"


@pytest.mark.parametrize("kind", sorted(_KINDS))
def test_a_policy_shows_its_head_by_its_size(kind):
    """As text and in a notebook, with neither arrays nor words."""
    head = _loaded(kind)
    policy = HeadFirst(head=head, encoder=None if kind == "words" else LETTERS, cloud_above=0.6)
    page = policy._repr_html_()
    assert f"head={head!r}" in page
    assert "cloud_above=0.6" in page
    assert repr(head) in repr(policy)
    for shown in (page, repr(policy)):
        assert "array" not in shown


def test_a_wrapper_shows_an_array_by_its_shape():
    """An array equals its default in places, and a long one fills the page."""

    @dataclass(frozen=True, kw_only=True)
    class Weighted:
        policy: Cascade
        weights: object = None

    page = policy_html(Weighted(policy=Cascade.of(TokenLogprob(), 0.25), weights=np.zeros(3)))
    assert "(weights=array of shape (3,))" in page


@pytest.mark.parametrize("kind", sorted(set(_KINDS) - {"words"}))
def test_texts_in_place_of_vectors_are_refused_unread(kind):
    """The error names what is expected, and neither it nor its cause quotes a prompt."""
    texts = [f"secret {at}" for at in range(8)]
    for error, call in (
        (CalibrationError, lambda: _KINDS[kind].fit(texts, [0, 1] * 4)),
        (RequestError, lambda: _loaded(kind).estimate(texts)),
    ):
        with pytest.raises(error, match=r"embed\(texts\)") as caught:
            call()
        assert "secret" not in str(caught.value)
        assert caught.value.__context__ is None


@pytest.mark.parametrize("kind", sorted(_KINDS))
def test_texts_in_place_of_labels_are_refused_unread(kind):
    """The arguments may have been swapped."""
    given = ["a text"] * 8 if kind == "words" else [[0.0, 1.0, 2.0]] * 8
    with pytest.raises(CalibrationError, match="labels are not numbers") as caught:
        _KINDS[kind].fit(given, ["secret"] * 8)
    assert caught.value.__context__ is None


def test_one_text_in_place_of_a_list_is_refused():
    """Its letters would each be a prompt."""
    with pytest.raises(RequestError, match="list"):
        _loaded("words").estimate("secrets!")
    with pytest.raises(CalibrationError, match="list"):
        WordRidge.fit("secrets!", [0, 1] * 4)
