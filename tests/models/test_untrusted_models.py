"""A model folder of a stranger's runs none of its code, and says what to do instead."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from confroute.errors import ModelError
from confroute.heads.tuning import tune_encoder
from confroute.models.embed import LocalEmbedder
from confroute.models.local import LocalModel
from confroute.models.nli import LocalNLI

pytestmark = pytest.mark.local

LOADERS = {
    "model": LocalModel.load,
    "embedder": LocalEmbedder.load,
    "classifier": LocalNLI.load,
    "tuning": lambda folder: tune_encoder(
        ["a text"] * 8, [0.0, 1.0] * 4, folder.with_name("tuned"), base=folder, epochs=1
    ),
}
EACH = pytest.mark.parametrize("kind", LOADERS)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that appears if any of the code runs."""
    return tmp_path / "ran"


@pytest.fixture
def folder(
    tiny_folder: Path, encoder_folder: Path, make_bert: Callable[..., Path], tmp_path: Path
) -> Callable[[str], Path]:
    """A folder of its own for each loader."""

    def make(kind: str) -> Path:
        source = tiny_folder if kind == "model" else encoder_folder
        if kind == "classifier":
            source = make_bert(tmp_path / "classes", labels=("entailment", "neutral"))
        target = tmp_path / f"of a stranger, {kind}"
        shutil.copytree(source, target)
        return target

    return make


class Trap:
    """What a pickle runs when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self.marker), "w")


@EACH
def test_a_sound_folder_is_loaded(kind: str, folder: Callable[[str], Path]) -> None:
    """What is refused below is what was done to it."""
    assert LOADERS[kind](folder(kind)) is not None


@EACH
@pytest.mark.parametrize(
    "name",
    [
        "pytorch_model.bin",
        "model.pt",
        "model.pth",
        "last.ckpt",
        "w.pickle",
        "pytorch_model-00001-of-00002.bin",
    ],
)
def test_pickled_weights_are_not_read(
    kind: str, name: str, folder: Callable[[str], Path], marker: Path
) -> None:
    """The error says which file, why, and what to do."""
    where = folder(kind)
    for path in where.glob("*.safetensors"):
        path.unlink()
    (where / name).write_bytes(pickle.dumps(Trap(marker)))
    with pytest.raises(
        ModelError,
        match=rf"expected weights as safetensors, found {name}, which can run code .*; use a release",
    ):
        LOADERS[kind](where)
    assert not marker.exists()


BESIDE = ["pytorch_model.bin", "training_args.bin", "optimizer.pt", "rng_state.pth", "last.ckpt"]


@EACH
def test_pickles_beside_safetensors_are_left_alone(
    kind: str, folder: Callable[[str], Path], marker: Path
) -> None:
    """Many models come with both, and a training run leaves its own."""
    where = folder(kind)
    for name in BESIDE:
        (where / name).write_bytes(pickle.dumps(Trap(marker)))
    LOADERS[kind](where)
    assert not marker.exists()


@EACH
@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt"])
def test_a_pickled_adapter_is_not_read(
    kind: str, name: str, folder: Callable[[str], Path], marker: Path
) -> None:
    """Beside the model's own safetensors too, where `peft` would read it; one that has safetensors is not refused for it."""
    where = folder(kind)
    (where / name).write_bytes(pickle.dumps(Trap(marker)))
    with pytest.raises(ModelError, match=rf"found {name}, which can run code"):
        LOADERS[kind](where)
    (where / "adapter_model.safetensors").write_bytes(b"")
    if kind == "model":
        LOADERS[kind](where)
    assert not marker.exists()


def test_what_training_leaves_is_no_model(folder: Callable[[str], Path], marker: Path) -> None:
    """Every file is named: the first by its letters may be none of the weights."""
    where = folder("model")
    (where / "model.safetensors").unlink()
    for name in BESIDE:
        (where / name).write_bytes(pickle.dumps(Trap(marker)))
    with pytest.raises(ModelError, match=f"found {', '.join(sorted(BESIDE))}, which"):
        LocalModel.load(where)
    assert not marker.exists()


def test_an_index_names_safetensors_alone(folder: Callable[[str], Path], marker: Path) -> None:
    """Another kind of file may stand in it."""
    where = folder("model")
    (where / "model.safetensors").rename(where / "model-00001-of-00002.safetensors")
    (where / "weights.bin").write_bytes(pickle.dumps(Trap(marker)))
    index = where / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"lm_head.weight": "weights.bin"}}))
    with pytest.raises(ModelError, match=r"weights\.bin, which can run code"):
        LocalModel.load(where)
    index.write_text('{"weight_map": 3}')
    with pytest.raises(ModelError, match=r"index\.json: weight_map is 3"):
        LocalModel.load(where)
    assert not marker.exists()


@pytest.fixture
def nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal at which a question fails the test."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)


def with_own_code(where: Path, file: str, marker: Path, **changes: Any) -> Path:
    """A folder whose configuration names code that came with it."""
    (where / "own.py").write_text(f"open({str(marker)!r}, 'w')\n")
    (where / file).write_text(json.dumps(json.loads((where / file).read_text()) | changes))
    return where


@EACH
@pytest.mark.usefixtures("nobody_is_asked")
def test_code_that_comes_with_a_model_is_not_run(
    kind: str, folder: Callable[[str], Path], marker: Path
) -> None:
    """Nor is anybody asked on the terminal whether to run it."""
    names = ("AutoModel", "AutoModelForCausalLM", "AutoModelForSequenceClassification")
    owned = {"AutoConfig": "own.Own", **dict.fromkeys(names, "own.OwnModel")}
    changes = {"model_type": "of-a-stranger", "architectures": ["OwnModel"], "auto_map": owned}
    with pytest.raises(ModelError, match=r"code of its own .*openai:MODEL"):
        LOADERS[kind](with_own_code(folder(kind), "config.json", marker, **changes))
    assert not marker.exists()


@EACH
@pytest.mark.usefixtures("nobody_is_asked")
def test_code_that_comes_with_a_tokenizer_is_not_run(
    kind: str, folder: Callable[[str], Path], marker: Path
) -> None:
    """Where transformers knows a tokenizer for the model it takes that one, else the model is refused."""
    owned = {"AutoTokenizer": ["own.OwnTokenizer", None]}
    where = with_own_code(
        folder(kind), "tokenizer_config.json", marker, tokenizer_class="OwnTokenizer", auto_map=owned
    )
    if kind == "model":
        with pytest.raises(ModelError, match=r"code of its own .*openai:MODEL"):
            LOADERS[kind](where)
    else:
        assert LOADERS[kind](where) is not None
    assert not marker.exists()
