"""A tuned encoder separates the labels, is a model like any other, and leaves its base unchanged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from confroute.bench.training import TrainingSet, tuned_encoder
from confroute.errors import CalibrationError, ModelError, PolicyError
from confroute.heads import Ridge, encoder, load_head, save_head, tune_encoder

pytestmark = pytest.mark.local
WORDS = ["the", "sat", "on", "where", "other", "as", "well"]
FAST = {"epochs": 20, "rate": 2e-3, "batch": 8}


def labelled_texts(n: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Texts of six words, of which one is "cat" in half of the texts and "mat" in the others, as the labels say."""
    generator = np.random.default_rng(seed)
    labels = (np.arange(n) % 2).astype(float)
    drawn = [[*generator.choice(WORDS, 5), "cat" if label else "mat"] for label in labels]
    return [" ".join(generator.permutation(words)) for words in drawn], labels


def hashes(folder: Path) -> dict[str, bytes]:
    """Hashes of the files in a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def gap(folder: Path, texts: list[str], labels: np.ndarray) -> float:
    """Distance between the mean vectors of the two labels, in standard deviations."""
    vectors = encoder(folder)(texts)
    one, other = vectors[labels == 1], vectors[labels == 0]
    spread = np.sqrt((one.var(axis=0) + other.var(axis=0)).sum() / 2)
    return float(np.linalg.norm(one.mean(axis=0) - other.mean(axis=0)) / spread)


def test_vectors_tell_new_texts_apart(encoder_folder: Path, tmp_path: Path) -> None:
    """On new texts the labels lie further apart than before, and the base is unchanged."""
    before, lines = hashes(encoder_folder), []
    tuned = tune_encoder(
        *labelled_texts(96, 0), tmp_path / "tuned", base=encoder_folder, progress=lines.append, **FAST
    )
    assert tuned == tmp_path / "tuned"
    assert hashes(encoder_folder) == before
    assert [line.split(":")[0] for line in lines] == [f"epoch {at} of 20" for at in range(1, 21)]
    texts, labels = labelled_texts(64, 1)
    assert gap(tuned, texts, labels) > 1.5 * gap(encoder_folder, texts, labels)


def test_several_models_are_predicted_together(encoder_folder: Path, tmp_path: Path) -> None:
    """One column per model; a column that is the opposite of another one changes nothing."""
    texts, labels = labelled_texts(96, 0)
    both = np.stack([labels, 1 - labels], axis=1)
    tuned = tune_encoder(texts, both, tmp_path / "tuned", base=encoder_folder, **FAST)
    assert gap(tuned, *labelled_texts(64, 1)) > 1.5 * gap(encoder_folder, *labelled_texts(64, 1))
    about = json.loads((tuned / "confroute-tuned.json").read_text())
    assert (about["base"], about["texts"], about["epochs"]) == ("encoder", 96, 20)


def test_a_seed_gives_one_model_and_takes_none_of_torchs(encoder_folder: Path, tmp_path: Path) -> None:
    """The same seed gives the same weights, another seed others; the global generator is left as it was."""
    torch.manual_seed(7)
    expected = torch.rand(2)
    torch.manual_seed(7)
    weights = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        folder = tune_encoder(
            *labelled_texts(16, 0),
            tmp_path / name,
            base=encoder_folder,
            epochs=1,
            batch=4,
            rate=1e-3,
            seed=seed,
        )
        weights.append((folder / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]
    assert torch.equal(torch.rand(2), expected)


def test_a_head_knows_the_tuned_weights(encoder_folder: Path, tmp_path: Path) -> None:
    """A head on tuned vectors refuses the base, and another tuning of the same name."""
    texts, labels = labelled_texts(16, 0)
    folders = [
        tune_encoder(
            texts, labels, tmp_path / at / "tuned", base=encoder_folder, epochs=1, batch=4, seed=int(at)
        )
        for at in ("0", "1")
    ]
    embed, other = (encoder(folder) for folder in folders)
    head = Ridge.fit(embed(texts), labels)
    save_head(head, tmp_path / "head", identity=embed.identity())
    assert load_head(tmp_path / "head", encoder(str(folders[0]))).dim == head.dim
    for wrong in (other, encoder(encoder_folder)):
        with pytest.raises(PolicyError, match="use the same model or train again"):
            load_head(tmp_path / "head", wrong)


def test_an_interrupted_tuning_leaves_nothing(encoder_folder: Path, tmp_path: Path) -> None:
    """The folder is complete or does not exist."""

    def stop(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune_encoder(*labelled_texts(16, 0), tmp_path / "new" / "tuned", base=encoder_folder, progress=stop)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"texts": ["a"] * 7, "qualities": [0, 1] * 3 + [1]}, CalibrationError, "8 texts or more"),
        ({"qualities": [0, 1]}, CalibrationError, r"16 texts and qualities of shape \(2, 1\)"),
        ({"qualities": [0, 2] * 8}, CalibrationError, r"in \[0, 1\]"),
        (
            {"qualities": [[0, 1], [1, 1]] * 8},
            CalibrationError,
            r"columns \[1\] of the qualities are constant",
        ),
        ({"epochs": 0}, CalibrationError, "is 0: expected 1 or more"),
        ({"base": "some/encoder"}, ModelError, "download the model"),
    ],
)
def test_what_cannot_be_tuned_is_refused(
    change: dict[str, object],
    error: type[Exception],
    message: str,
    encoder_folder: Path,
    tmp_path: Path,
) -> None:
    """They are refused before anything is loaded or written."""
    texts, labels = labelled_texts(16, 0)
    given = {"texts": texts, "qualities": labels, "base": encoder_folder} | change
    with pytest.raises(error, match=message):
        tune_encoder(folder=tmp_path / "tuned", **given)
    assert not (tmp_path / "tuned").exists()


def test_what_stands_in_a_folder_stays(encoder_folder: Path, tmp_path: Path) -> None:
    """A process loads a model once: one that changed under its path would be taken for the old one."""
    with pytest.raises(PolicyError, match="expected a new or empty folder"):
        tune_encoder(*labelled_texts(16, 0), encoder_folder, base=encoder_folder)
    (tmp_path / "empty").mkdir()
    assert tune_encoder(*labelled_texts(16, 0), tmp_path / "empty", base=encoder_folder, epochs=1).is_dir()


def test_the_threads_of_the_process_change_nothing(encoder_folder: Path, tmp_path: Path) -> None:
    """The replay's encoder is tuned by one thread: equal weights whatever torch was set to, which it is afterwards."""
    labels = (np.arange(48) % 2).astype(float)
    train = TrainingSet(
        source="made",
        prompts=tuple(labelled_texts(48, 0)[0]),
        subjects=("made",) * 48,
        weak=labels[None, :],
        strong=1 - labels[None, :],
    )
    before, weights = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            embed = tuned_encoder(train, cache=tmp_path / str(threads), base=str(encoder_folder))
            assert torch.get_num_threads() == threads
            assert embed.features
            (folder,) = (tmp_path / str(threads)).glob("tuned-*")
            weights.append((folder / "model.safetensors").read_bytes())
    finally:
        torch.set_num_threads(before)
    assert weights[0] == weights[1]
