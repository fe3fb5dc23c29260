"""Load a GGUF file, and keep its dequantised weights beside it.

Reading a quantised file costs 16 s for 135 M and 70 s for 1.5 B parameters, the converted folder about one second, so the
first load writes `<file>.gguf.<dtype>/` (safetensors, 2 or 4 bytes a parameter) when the disk has room for it.
"""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confroute.errors import ModelError

STAMP = "confroute.json"


def load_gguf(path: Path, dtype: str) -> tuple[Any, Any]:
    """Return (network, tokenizer) of a GGUF file.

    Parameters
    ----------
    path : Path
    dtype : {"float32", "bfloat16", "float16"}
        Type of the dequantised weights.

    Raises
    ------
    ModelError
        Not a GGUF file, cut short, or of an architecture that transformers cannot read.
    """
    from transformers import AutoModelForCausalLM

    from confroute.models._load import load_network, load_tokenizer

    _check_magic(path)
    folder = path.with_name(f"{path.name}.{dtype}")
    if _is_current(folder, path):
        try:
            return load_network(AutoModelForCausalLM, str(folder), dtype), load_tokenizer(str(folder))
        except ModelError:
            # Only a copy: the file itself is still there to convert again.
            shutil.rmtree(folder, ignore_errors=True)
    network, tokenizer = _dequantise(path, dtype)
    _keep(network, tokenizer, folder, path)
    return network, tokenizer


def _check_magic(path: Path) -> None:
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        msg = f"{path}: expected a GGUF file (it starts with {magic!r}); pass a GGUF file or a folder with config.json"
        raise ModelError(msg)


def _dequantise(path: Path, dtype: str) -> tuple[Any, Any]:
    # Not `from_pretrained(gguf_file=)`: it insists on `accelerate`, which it then does not use.
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, modeling_gguf_pytorch_utils

    from confroute.models._load import brief, torch_dtype

    # Neither is annotated.
    causal: Any = AutoModelForCausalLM
    read_gguf: Any = modeling_gguf_pytorch_utils.load_gguf_checkpoint
    where: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True}
    try:
        with _no_bar():
            config = AutoConfig.from_pretrained(str(path.parent), **where)
            with torch.device("meta"):
                shell = causal.from_config(config)
            read = read_gguf(
                str(path), return_tensors=True, model_to_load=shell, torch_dtype=torch_dtype(dtype)
            )
            network = type(shell).from_pretrained(
                None, config=config, state_dict=read["tensors"], dtype=torch_dtype(dtype)
            )
            tokenizer = AutoTokenizer.from_pretrained(str(path.parent), **where)
    except Exception as error:
        msg = f"{path}: damaged, incomplete or unsupported GGUF file ({brief(error)}); delete it and fetch it again (`confroute pull NAME` checks the hash)"
        raise ModelError(msg) from error
    _check_complete(network, read["tensors"], path)
    return network, tokenizer


def _check_complete(network: Any, tensors: dict[str, Any], path: Path) -> None:
    """Missing tensors would be filled at random, which no later check could notice."""
    tied = set(getattr(network, "all_tied_weights_keys", None) or ())
    missing = sorted({name for name, _ in network.named_parameters()} - set(tensors) - tied)
    if missing:
        msg = f"{path}: {len(missing)} weights are missing, the first is {missing[0]}; fetch the file again"
        raise ModelError(msg)


@contextmanager
def _no_bar() -> Iterator[None]:
    """That module draws its bar with tqdm itself, past transformers' own switch."""
    from transformers import modeling_gguf_pytorch_utils

    module: Any = modeling_gguf_pytorch_utils  # exports no tqdm officially
    drawn = module.tqdm
    module.tqdm = functools.partial(drawn, disable=True)
    try:
        yield
    finally:
        module.tqdm = drawn


def _stamp(path: Path) -> dict[str, object]:
    import transformers

    stat = path.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "transformers": transformers.__version__}


def _is_current(folder: Path, path: Path) -> bool:
    try:
        return bool(json.loads((folder / STAMP).read_text(encoding="utf-8")) == _stamp(path))
    except (OSError, ValueError):
        return False


def _keep(network: Any, tokenizer: Any, folder: Path, path: Path) -> None:
    """Write the converted folder in one move, or not at all: it only saves time."""
    needed = sum(p.numel() * p.element_size() for p in network.parameters())
    temporary: Path | None = None
    try:
        if shutil.disk_usage(path.parent).free < 2 * needed:
            return
        # Readable by this user only, marker included: another one converts for themselves.
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=path.parent))
        network.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        (temporary / STAMP).write_text(json.dumps(_stamp(path)), encoding="utf-8")
        if folder.exists() and not _is_current(folder, path):
            shutil.rmtree(folder)
        temporary.rename(folder)
    except OSError:
        # A read-only or full disk, or another process that was quicker.
        pass
    finally:
        if temporary is not None and temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
