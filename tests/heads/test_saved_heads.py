"""Heads that an earlier confroute saved still load, and give the same estimates."""

import json
from pathlib import Path

import pytest

from confroute.heads import encoder, load_head
from confroute.heads.files import _KINDS

SAVED = Path(__file__).parent / "saved"
EXPECTED = json.loads((SAVED / "expected.json").read_text(encoding="utf-8"))


def test_there_is_a_file_of_every_kind():
    """A new kind of head needs a saved example here."""
    assert {folder.name for folder in SAVED.iterdir() if folder.is_dir()} == {*_KINDS}


@pytest.mark.parametrize("kind", sorted(_KINDS))
def test_a_head_saved_by_an_earlier_release_loads(kind):
    """It is of the same class, and its probabilities and spreads are those that were recorded with it."""
    letters = encoder(
        lambda texts: [[float(len(text)), text.count("a"), 1.0] for text in texts], name="letters"
    )
    if kind == "words":
        head = load_head(SAVED / kind)
        estimate = head.estimate(EXPECTED["texts"])
    else:
        head = load_head(SAVED / kind, letters)
        estimate = head.estimate(EXPECTED["queries"])
    cloud_wins, spread = EXPECTED["estimates"][kind]
    assert type(head) is _KINDS[kind]
    assert estimate.cloud_wins == pytest.approx(cloud_wins, abs=1e-6)
    assert estimate.spread == pytest.approx(spread, abs=1e-6)
