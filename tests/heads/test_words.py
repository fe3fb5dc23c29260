"""The head on words: what it learns, and that its sparse solver agrees with the dense one."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from confroute.errors import CalibrationError, PolicyError
from confroute.heads import Ridge, WordRidge, encoder, load_head, save_head

WORDS = [f"word{at}" for at in range(40)]


def prompts(n=300, seed=0):
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
    """On new prompts the estimates correlate with the true probability and lie in [0, 1]."""
    head = WordRidge.fit(*prompts()[:2], penalty=3.0)
    texts, _, chance = prompts(seed=1)
    estimate = head.estimate(texts)
    assert np.corrcoef(estimate.cloud_wins, chance)[0, 1] > 0.7
    assert 0 <= estimate.cloud_wins.min() <= estimate.cloud_wins.max() <= 1


def test_weights_are_those_of_the_normal_equations():
    """Conjugate gradients give the solution of the dense system, built from the definition of TF-IDF."""
    texts, y, _ = prompts(n=60)
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
    """Columns of four 1s: weights of 4 * 0.5 / (4 + 1) = 0.4 up and down, residuals of 0.1, `seen` of 4."""
    head = WordRidge.fit(["aa", "bb"] * 4, [1, 0] * 4, penalty=1.0)
    assert head.idf == pytest.approx([1 + np.log(9 / 5)] * 2)
    assert (head.noise, head.seen.tolist()) == (pytest.approx(0.1), pytest.approx([4, 4]))
    # Of the terms aa, zz and their pair in "aa zz", two thirds are unknown. Of "aa aa bb" it is half; its known values are
    # 1 + ln 2 and 1 before they are scaled by 1.9664: 0.5 + 0.4 * 0.6931 / 1.9664.
    estimate = head.estimate(["aa", "zz", "aa zz", "aa aa bb"])
    assert estimate.cloud_wins == pytest.approx([0.9, 0.5, 0.9, 0.6410], abs=1e-4)
    assert estimate.spread == pytest.approx(
        0.1 * np.sqrt([1 / 5, 1, 1 / 3 / 5 + 2 / 3, 1 / 2 / 5 + 1 / 2]), abs=1e-6
    )
    assert replace(head, noise=1.0).estimate(["zz"]).spread == [0.5]


def test_unknown_words_get_the_largest_spread():
    """A prompt of words that no training prompt had gets the mean label and the largest spread; so does an empty one."""
    texts, y, _ = prompts()
    head = WordRidge.fit(texts, y)
    estimate = head.estimate(["never seen before", "", texts[0]])
    assert estimate.cloud_wins[:2] == pytest.approx(y.mean())
    assert estimate.spread[0] == estimate.spread[1] > estimate.spread[2] > 0


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
def test_unusable_training_data_are_refused(texts, labels, penalty):
    """Another number of labels, equal, impossible or too few labels, a penalty of 0, and no term that occurs twice."""
    with pytest.raises(CalibrationError, match="expected"):
        WordRidge.fit(texts, labels, penalty=penalty)


def test_a_saved_head_comes_back_whole(tmp_path):
    """A saved and loaded head gives the same estimates, also for words beyond ASCII; its vocabulary is in the JSON file."""
    texts, y, _ = prompts()
    texts = [f"größe {text}" for text in texts]
    head = WordRidge.fit(texts, y)
    again = load_head(save_head(head, tmp_path))
    new = [*prompts(seed=1)[0], "Größe word1", ""]
    for name in ("cloud_wins", "spread"):
        assert np.array_equal(getattr(again.estimate(new), name), getattr(head.estimate(new), name))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["head.json", "head.safetensors"]
    assert "größe" in json.loads((tmp_path / "head.json").read_text())["settings"]["vocabulary"]


def test_only_heads_on_vectors_take_an_encoder(tmp_path):
    """A head on texts refuses an encoder and a head on vectors needs its own, both on saving and on loading."""
    texts, y, _ = prompts()
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
    """A head with fewer terms than weights is refused."""
    save_head(WordRidge.fit(*prompts()[:2]), tmp_path)
    about = json.loads((tmp_path / "head.json").read_text())
    about["settings"]["vocabulary"].pop()
    (tmp_path / "head.json").write_text(json.dumps(about))
    with pytest.raises(PolicyError, match="incomplete or damaged"):
        load_head(tmp_path)
