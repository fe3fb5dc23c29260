"""The head on words: what it learns, and that its sparse solver solves what it says."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from confroute.errors import CalibrationError, PolicyError
from confroute.heads import Ridge, WordRidge, encoder, load_head, save_head

WORDS = [f"word{at}" for at in range(40)]


def made(n=300, seed=0):
    """Prompts of six words, with labels that depend on the first five of forty."""
    generator = np.random.default_rng(seed)
    drawn = [generator.choice(40, 6, replace=False) for _ in range(n)]
    chance = np.array([0.1 + 0.8 * (min(words) < 5) for words in drawn])
    return (
        [" ".join(WORDS[at] for at in words) for words in drawn],
        (generator.random(n) < chance).astype(float),
        chance,
    )


def test_words_that_matter_are_learnt():
    """On new prompts the head ranks by the true chance, inside [0, 1]."""
    head = WordRidge.fit(*made()[:2], penalty=3.0)
    texts, _, chance = made(seed=1)
    found = head.estimate(texts)
    assert np.corrcoef(found.cloud_wins, chance)[0, 1] > 0.7
    assert 0 <= found.cloud_wins.min() <= found.cloud_wins.max() <= 1


def test_weights_are_those_of_the_normal_equations():
    """Conjugate gradients give the solution of the dense system, built from the definition of TF-IDF."""
    texts, y, _ = made(n=60)
    head = WordRidge.fit(texts, y, penalty=2.0)
    x = np.zeros((60, len(head.vocabulary)))
    for row, text in enumerate(texts):
        words = text.split()
        for term in (*words, *map(" ".join, pairwise(words))):
            if term in head.vocabulary:
                x[row, head.vocabulary[term]] = head.idf[head.vocabulary[term]]
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    dense = np.linalg.solve(x.T @ x + 2.0 * np.eye(x.shape[1]), x.T @ (y - y.mean()))
    assert head.weights == pytest.approx(dense, abs=1e-3)
    assert head.seen == pytest.approx((x**2).sum(axis=0))
    assert head.estimate(texts).cloud_wins == pytest.approx(np.clip(x @ dense + y.mean(), 0, 1), abs=1e-3)


def test_two_words_by_hand():
    """Columns of four 1s: weights 4 * 0.5 / (4 + 1) = 0.4 either way, residuals of 0.1, seen 4."""
    head = WordRidge.fit(["aa", "bb"] * 4, [1, 0] * 4, penalty=1.0)
    assert head.idf == pytest.approx([1 + np.log(9 / 5)] * 2)
    assert (head.noise, head.seen.tolist()) == (pytest.approx(0.1), pytest.approx([4, 4]))
    # Two thirds of "aa zz" is new: aa, zz and their pair. Half of "aa aa bb" is, whose known values are 1 + ln 2 and 1 before
    # they are scaled by 1.9664: 0.5 + 0.4 * 0.6931 / 1.9664.
    found = head.estimate(["aa", "zz", "aa zz", "aa aa bb"])
    assert found.cloud_wins == pytest.approx([0.9, 0.5, 0.9, 0.6410], abs=1e-4)
    assert found.spread == pytest.approx(
        0.1 * np.sqrt([1 / 5, 1, 1 / 3 / 5 + 2 / 3, 1 / 2 / 5 + 1 / 2]), abs=1e-6
    )
    assert replace(head, noise=1.0).estimate(["zz"]).spread == [0.5]


def test_unknown_words_are_doubted():
    """A prompt of words that no training prompt had gets the mean label and the largest spread; so does an empty one."""
    texts, y, _ = made()
    head = WordRidge.fit(texts, y)
    found = head.estimate(["never seen before", "", texts[0]])
    assert found.cloud_wins[:2] == pytest.approx(y.mean())
    assert found.spread[0] == found.spread[1] > found.spread[2] > 0


@pytest.mark.parametrize(
    ("texts", "labels", "penalty"),
    [
        (["a b"] * 9, [0, 1] * 4, 1.0),
        (["same words"] * 9, [0] * 9, 1.0),
        (["one"] * 9, [0] * 8 + [1], 0.0),
        ([f"only{at}" for at in range(9)], [0] * 8 + [1], 1.0),
        (["one"] * 9, [0] * 8 + [2], 1.0),
        (["one"] * 9, [0] * 8 + [-1], 1.0),
        (["one"] * 7, [0] * 6 + [1], 1.0),
    ],
)
def test_texts_that_teach_nothing_are_refused(texts, labels, penalty):
    """Another number of labels, equal, impossible or few labels, no penalty, and no term twice."""
    with pytest.raises(CalibrationError, match="expected"):
        WordRidge.fit(texts, labels, penalty=penalty)


def test_a_saved_head_comes_back_whole(tmp_path):
    """A head that was written and read says exactly what it said, also of words beyond ASCII; the vocabulary is JSON."""
    texts, y, _ = made()
    texts = [f"größe {text}" for text in texts]
    head = WordRidge.fit(texts, y)
    again = load_head(save_head(head, tmp_path))
    new = [*made(seed=1)[0], "Größe word1", ""]
    for name in ("cloud_wins", "spread"):
        assert np.array_equal(getattr(again.estimate(new), name), getattr(head.estimate(new), name))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["head.json", "head.safetensors"]
    assert "größe" in json.loads((tmp_path / "head.json").read_text())["settings"]["vocabulary"]


def test_an_encoder_goes_with_vectors_alone(tmp_path):
    """A head on texts refuses an encoder, one on vectors needs its own: when it is saved and when it is loaded."""
    texts, y, _ = made()
    embed = encoder(lambda texts: [[len(text), text.count("1")] for text in texts], name="mine")
    words, vectors = WordRidge.fit(texts, y), Ridge.fit(embed(texts), y)
    with pytest.raises(PolicyError, match="leave the encoder out"):
        save_head(words, tmp_path, identity=embed.identity())
    with pytest.raises(PolicyError, match="give the encoder"):
        save_head(vectors, tmp_path)
    with pytest.raises(PolicyError, match="leave the encoder out"):
        load_head(save_head(words, tmp_path / "words"), embed)
    with pytest.raises(PolicyError, match="give the encoder"):
        load_head(save_head(vectors, tmp_path / "vectors", identity=embed.identity()))


def test_a_vocabulary_that_does_not_fit_is_refused(tmp_path):
    """One term less than there are weights is no whole head."""
    save_head(WordRidge.fit(*made()[:2]), tmp_path)
    about = json.loads((tmp_path / "head.json").read_text())
    about["settings"]["vocabulary"].pop()
    (tmp_path / "head.json").write_text(json.dumps(about))
    with pytest.raises(PolicyError, match="no whole head"):
        load_head(tmp_path)
