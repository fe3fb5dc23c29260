"""Load weights and tokenizer once per process, without console output, with errors that say what to do."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from confroute.clock import standing_still
from confroute.display import logger
from confroute.errors import MissingExtraError, ModelError
from confroute.reading import fields, json_file, refusing, text
from confroute.tensors import disk_errors

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w./-]+\.gguf)?")
STAMP = "confroute.json"
# Larger weights are loaded in the type that this processor is fast in. A quantised model of about 0.5 B parameters is this large.
LARGE_BYTES = 300_000_000
_PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack"})
# Without it transformers asks on the terminal whether to run code that came with the model.
_NO_CODE: Mapping[str, bool] = MappingProxyType({"trust_remote_code": False})
# What transformers names in that case.
_ASKS_FOR_CODE = "trust_remote_code"
_OWN_CODE = (
    "needs code of its own (auto_map in its configuration), which is not run: take a model of an architecture that transformers "
    "knows, or put this one behind a server and name it openai:MODEL with its base URL"
)


T = TypeVar("T")
_cache: dict[tuple[object, ...], Any] = {}
_locks: dict[tuple[object, ...], threading.Lock] = {}
_guard = threading.Lock()
# transformers' settings are process-wide: two loads must not restore each other's.
_quiet_lock = threading.RLock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A network, its tokenizer and the lock that serialises its forward passes."""

    network: Any
    tokenizer: Any
    lock: threading.Lock


def load_causal(source: str | Path, dtype: str | None) -> tuple[str, Weights]:
    """Load a causal language model and return its name and weights; the same source and dtype share one copy.

    Parameters
    ----------
    source : str or Path
    dtype : str or None
        None for the one that suits the size of its weights: `suited_dtype`.

    Raises
    ------
    ModelError
        The file is damaged or not a model, or there is no tokenizer.
    """
    require_torch("LocalModel")
    if dtype is not None:
        torch_dtype(chosen_dtype(dtype))
    name, path, hub = locate(source)
    chosen = chosen_dtype(dtype or suited_dtype(path))
    key = ("causal", os.path.realpath(path) if path else hub, chosen)
    return name, once(key, lambda: _load_causal(name, path, hub, chosen))


def suited_dtype(path: Path | None) -> str:
    """The type of a model's weights where nobody chose one: "auto" for more than 300 MB on disk, else "float32".

    What is large for a small machine is read in what its processor is fast in, where that is bfloat16 in half the memory; what is
    small keeps all digits of its log-probabilities.

    Parameters
    ----------
    path : Path or None
        A file or a folder of weights; None for a model of the hub, which is taken to be large.
    """
    if path is None:
        return "auto"
    files = [path] if path.is_file() else path.glob("*.safetensors")
    return "auto" if sum(file.stat().st_size for file in files) > LARGE_BYTES else "float32"


def _load_causal(name: str, path: Path | None, hub: str | None, dtype: str) -> Weights:
    from transformers import AutoModelForCausalLM

    logger().info("loading %s in %s", name, dtype)
    if hub and ":" in hub:
        path = _hub_file(*hub.split(":", 1))
    with quiet():
        if path is not None and path.is_file():
            network, tokenizer = load_gguf(path, dtype)
        else:
            where = str(path or hub)
            network = load_network(AutoModelForCausalLM, where, dtype)
            tokenizer = load_tokenizer(where)
    head = network.get_output_embeddings()
    if head is not None:
        head.register_forward_pre_hook(_contiguous)
    return freeze(network, tokenizer)


def _contiguous(_head: Any, states: tuple[Any, ...]) -> tuple[Any, ...]:
    """Copy the states that a head is to read.

    transformers hands over the last position as a slice of all, for which torch copies the head's whole matrix in bfloat16: half the
    time of reading a short prompt.
    """
    import torch

    return tuple(one.clone(memory_format=torch.contiguous_format) for one in states)


def locate(source: str | Path) -> tuple[str, Path | None, str | None]:
    """Resolve a source to its display name and to either a local path or a hub name.

    Parameters
    ----------
    source : str or Path
        An existing path, a hub name "org/name" or "org/name:file.gguf", or a catalogue name.

    Returns
    -------
    tuple of (str, Path or None, str or None)
        Name, local path, hub name; exactly one of the last two is None.

    Raises
    ------
    UnknownModelError
        Neither a path, nor a hub name, nor in the catalogue.
    """
    path = Path(source).expanduser()
    if path.exists():
        return path.resolve().name, path, None
    text = str(source)
    if isinstance(source, str) and HUB_NAME.fullmatch(text) and not text.startswith("."):
        return text, None, text
    if isinstance(source, Path):
        msg = f"{source}: no such file or folder; pass an existing GGUF file or model folder, or a catalogue name as a str"
        raise ModelError(msg)
    from confroute.models.catalog import resolve

    return text, resolve(text), None


def _hub_file(repo: str, filename: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo, filename))
    except Exception as error:
        msg = f"{repo}:{filename}: could not be loaded from the hub ({brief(error)}); check both names and the network, pass a local GGUF file, or use a model of `confroute models`, which needs no hub"
        raise ModelError(msg) from error


def load_network(auto: Any, where: str, dtype: str) -> Any:
    """Call `auto.from_pretrained` on a folder or hub name, for safetensors weights and transformers' own code alone.

    Raises
    ------
    ModelError
        Whatever went wrong; the message says what to do.
    """
    is_folder = Path(where).is_dir()
    if is_folder:
        _check_weights(Path(where))
    try:
        return auto.from_pretrained(
            where, dtype=torch_dtype(dtype), local_files_only=is_folder, use_safetensors=True, **_NO_CODE
        )
    except Exception as error:
        if _ASKS_FOR_CODE in str(error):
            msg = f"{where}: {_OWN_CODE}"
        elif is_folder:
            msg = f"{where}: expected a model folder with config.json and safetensors weights ({brief(error)}); copy the whole folder again"
        else:
            msg = f"{where}: could not be loaded from the hub ({brief(error)}); check the name and the network, pass a local folder, or use a model of `confroute models`, which needs no hub; only safetensors weights are read"
        raise ModelError(msg) from error


def _check_weights(folder: Path) -> None:
    """Refuse weights that are pickles, the model's or its adapter's: reading one runs whatever its author wrote into it."""
    found = sorted(path for path in folder.iterdir() if path.suffix in {*_PICKLES, ".safetensors"})
    listed = [shard for index in folder.glob("*.safetensors.index.json") for shard in _shards(index)]
    refused = sorted(shard for shard in listed if not shard.endswith(".safetensors"))
    # The adapter is read beside the model's own weights, so each needs its own.
    for of_adapter in (False, True):
        own = [path for path in found if path.stem.startswith("adapter_model") == of_adapter]
        if not any(path.suffix == ".safetensors" for path in own):
            refused += [path.name for path in own]
    if refused:
        msg = (
            f"{folder}: expected weights as safetensors, found {', '.join(refused)}, which can run code when read; use a release of "
            "the model that has safetensors, or convert it where it can do no harm (load it with transformers, then save_pretrained)"
        )
        raise ModelError(msg)


def _shards(index: Path) -> set[str]:
    """The files that an index of weights names."""
    with refusing(ModelError, str(index)):
        content = fields(json_file(index, ModelError), "the index")
        listed = fields(content.get("weight_map"), "weight_map")
        return {text(name, f"weight_map.{weight}") for weight, name in listed.items()}


def load_tokenizer(where: str) -> Any:
    """Call `AutoTokenizer.from_pretrained`; every error becomes a ModelError that says what to do."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(where, local_files_only=Path(where).is_dir(), **_NO_CODE)
    except Exception as error:
        if _ASKS_FOR_CODE in str(error):
            msg = f"{where}: {_OWN_CODE}"
            raise ModelError(msg) from error
        msg = f"{where}: the weights are there but no tokenizer could be loaded ({brief(error)}); put the model's tokenizer.json and tokenizer_config.json beside them"
        raise ModelError(msg) from error


def freeze(network: Any, tokenizer: Any) -> Weights:
    """Put a network into evaluation mode, without gradients, and wrap it with its tokenizer and a lock."""
    network.eval()
    network.requires_grad_(requires_grad=False)
    return Weights(network=network, tokenizer=tokenizer, lock=threading.Lock())


def brief(error: BaseException) -> str:
    """Type and first line of an error, to quote in another error's message."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


def once(key: tuple[object, ...], make: Callable[[], T]) -> T:
    """Return the value for `key`, made once per process even if several threads ask at the same time.

    While it is made, the clock of the calls that wait for it stands still.

    Examples
    --------
    >>> once(("doctest",), list) is once(("doctest",), list)
    True
    """
    with _guard:
        lock = _locks.setdefault(key, threading.Lock())
    with standing_still(), lock:
        if key not in _cache:
            _cache[key] = make()
        value: T = _cache[key]
        return value


def require_torch(needed_for: str) -> None:
    """Raise MissingExtraError unless torch and transformers can be imported."""
    try:
        import torch
        import transformers  # noqa: F401  imported to see whether it is installed
    except ImportError as error:
        raise MissingExtraError(extra="local", needed_for=needed_for) from error
    del torch


def chosen_dtype(dtype: str) -> str:
    """Resolve "auto" to the type that is fast on this processor: bfloat16 where it has instructions for it, else float32.

    Without such instructions bfloat16 is converted number by number: with AVX2 alone, eight times slower than float32.
    """
    if dtype != "auto":
        return dtype
    import torch

    # Private to torch and missing in some releases: then bfloat16 is taken to be slow.
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    fast = any(getattr(torch.cpu, name, bool)() for name in checks)
    return "bfloat16" if fast else "float32"


def torch_dtype(dtype: str) -> torch.dtype:
    """The torch type of a name; ModelError where there is none."""
    import torch

    if dtype not in DTYPES:
        msg = f"dtype {dtype!r}: expected 'auto' or one of {', '.join(DTYPES)}; bfloat16 halves memory and time on CPUs with avx512_bf16"
        raise ModelError(msg)
    resolved: torch.dtype = getattr(torch, dtype)
    return resolved


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers on stderr, and restore its settings afterwards."""
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging  # not annotated
    with _quiet_lock:
        level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(level)
            if bars:
                logging.enable_progress_bar()


def load_gguf(path: Path, dtype: str) -> tuple[Any, Any]:
    """Load network and tokenizer from a GGUF file; a dequantised copy is kept beside it.

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

    _check_magic(path)
    folder = path.with_name(f"{path.name}.{dtype}")
    if _is_current(folder, path):
        try:
            return load_network(AutoModelForCausalLM, str(folder), dtype), load_tokenizer(str(folder))
        except ModelError:
            # The folder is only a copy: convert the file again.
            shutil.rmtree(folder, ignore_errors=True)
    network, tokenizer = _dequantise(path, dtype, folder)
    _keep(network, tokenizer, folder, path)
    return network, tokenizer


def _check_magic(path: Path) -> None:
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        msg = f"{path}: expected a GGUF file (it starts with {magic!r}); pass a GGUF file or a folder with config.json"
        raise ModelError(msg)


def _dequantise(path: Path, dtype: str, folder: Path) -> tuple[Any, Any]:
    # Not `from_pretrained(gguf_file=)`: it insists on `accelerate`, which it then does not use.
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, modeling_gguf_pytorch_utils

    # Neither is annotated.
    causal: Any = AutoModelForCausalLM
    read_gguf: Any = modeling_gguf_pytorch_utils.load_gguf_checkpoint
    where: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True, **_NO_CODE}
    try:
        with _no_bar():
            config = AutoConfig.from_pretrained(str(path.parent), **where)
            with torch.device("meta"):
                shell = causal.from_config(config)
            _announce(path, shell, dtype, folder)
            read = read_gguf(
                str(path), return_tensors=True, model_to_load=shell, torch_dtype=torch_dtype(dtype)
            )
            network = type(shell).from_pretrained(
                None, config=config, state_dict=read["tensors"], dtype=torch_dtype(dtype)
            )
            tokenizer = AutoTokenizer.from_pretrained(str(path.parent), **where)
    except Exception as error:
        msg = f"{path}: damaged, incomplete or unsupported GGUF file ({brief(error)}); delete it and download it again (`confroute pull NAME` checks the hash)"
        raise ModelError(msg) from error
    _check_complete(network, read["tensors"], path)
    return network, tokenizer


def _announce(path: Path, shell: Any, dtype: str, folder: Path) -> None:
    """Say what takes minutes and gigabytes, at a level that Python prints where nobody has set up logging."""
    size = sum(p.numel() for p in shell.parameters()) * torch_dtype(dtype).itemsize
    logger().warning(
        "converting %s to %s, once: this can take minutes, and %.1f GB are written to %s",
        path.name,
        dtype,
        size / 1e9,
        folder,
    )


@contextmanager
def _no_bar() -> Iterator[None]:
    """Disable the progress bar of transformers' GGUF reader, which ignores transformers' own switch."""
    from transformers import modeling_gguf_pytorch_utils

    module: Any = modeling_gguf_pytorch_utils  # tqdm is not part of its public interface
    original = module.tqdm
    module.tqdm = functools.partial(original, disable=True)
    try:
        yield
    finally:
        module.tqdm = original


def _check_complete(network: Any, tensors: dict[str, Any], path: Path) -> None:
    """Raise ModelError for missing tensors: transformers would fill them at random, which no later check could detect."""
    tied = set(getattr(network, "all_tied_weights_keys", None) or ())
    missing = sorted({name for name, _ in network.named_parameters()} - set(tensors) - tied)
    if missing:
        msg = (
            f"{path}: {len(missing)} weights are missing, the first is {missing[0]}; download the file again"
        )
        raise ModelError(msg)


def _is_current(folder: Path, path: Path) -> bool:
    try:
        return json_file(folder / STAMP, ModelError) == _stamp(path)
    except ModelError:
        # There is no copy yet, or one that was not finished.
        return False


def _stamp(path: Path) -> dict[str, object]:
    import transformers

    stat = path.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "transformers": transformers.__version__}


def _not_kept(path: Path, folder: Path, why: str) -> None:
    logger().warning(
        "%s is converted again at every start: %s cannot be written (%s)", path.name, folder, why
    )


def _keep(network: Any, tokenizer: Any, folder: Path, path: Path) -> None:
    """Store the converted model in one move. Where that fails, say so: without the copy every start takes as long as this one."""
    needed = 2 * sum(p.numel() * p.element_size() for p in network.parameters())
    temporary: Path | None = None
    try:
        if (free := shutil.disk_usage(path.parent).free) < needed:
            _not_kept(path, folder, f"{free / 1e9:.1f} GB are free, and {needed / 1e9:.1f} GB must be")
            return
        # The folder, stamp included, is readable by this user only; other users convert their own copy.
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=path.parent))
        with disk_errors():
            network.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        (temporary / STAMP).write_text(json.dumps(_stamp(path)), encoding="utf-8")
        if folder.exists() and not _is_current(folder, path):
            shutil.rmtree(folder)
        temporary.rename(folder)
    except OSError as error:
        # Another process may have been faster.
        if not _is_current(folder, path):
            _not_kept(path, folder, brief(error))
    finally:
        if temporary is not None and temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
