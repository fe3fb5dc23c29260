"""Policy files: readable, versioned JSON that holds every policy that ships, and registered classes only."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confroute.errors import FormatError, PolicyError
from confroute.reading import file_text, is_version, line_of, read_json
from confroute.registry import PlainError, from_plain, register, to_plain
from confroute.writing import write_whole

if TYPE_CHECKING:
    from confroute.flow import Policy

__all__ = ["from_json", "load_policy", "refuse_path", "register", "save_policy", "to_json"]

FORMAT = "confroute-policy"
VERSION = 1
_WRITTEN_BY = "policy files are written by `confroute fit --out` and save_policy"


def save_policy(policy: Policy, path: str | Path) -> None:
    """Write a policy, with its wrappers and all of its parts, to a file that `load_policy` reads.

    Parameters
    ----------
    policy : Policy
        Any policy that ships (`Cascade`, `Paced`, `HeadFirst`, `Hedged`, `DraftReuse`, `Audited`, `LearnOnline`, `Sticky`), nested in
        any allowed order, or a registered class of your own.
    path : str or Path
        The JSON file. The head of a `HeadFirst` is written into a folder beside it ("policy.json.head"), and the file
        holds its hash.

    Raises
    ------
    PolicyError
        The policy holds a class or function that is not registered, or an open store. The message says which field holds
        it and what to do. Nothing is written then.

    Examples
    --------
    >>> import tempfile
    >>> from confroute import Cascade, TokenLogprob
    >>> from confroute.policy import Hedged
    >>> path = Path(tempfile.mkdtemp()) / "policy.json"
    >>> policy = Hedged(policy=Cascade.of(TokenLogprob(), 0.3))
    >>> save_policy(policy, path)
    >>> load_policy(path) == policy
    True
    """
    path = Path(path)
    # First without writing anything, so that a policy that is refused leaves no head behind.
    to_plain(policy)
    write_whole(path, _text(to_plain(policy, beside=path)))


def load_policy(path: str | Path, *, encoder: object = None) -> Policy:
    """Read a policy that `save_policy` wrote.

    Parameters
    ----------
    path : str or Path
    encoder : Encoder, optional
        The encoder of a `HeadFirst`, needed if it is a function or a host's embedding, which no file can hold. An encoder
        that was made from a local model is made again.

    Raises
    ------
    PolicyError
        There is no file, it is not a policy file, it has another version, it holds classes that are not registered or
        values that they refuse, or the head beside it is not the one that was saved.
    """
    path = Path(path)
    try:
        text = file_text(path, PolicyError)
    except PolicyError as error:
        msg = f"{error}; expected a policy file: {_WRITTEN_BY}"
        raise PolicyError(msg) from error
    policy = _policy_in(text, path, encoder)
    if not hasattr(policy, "flow"):
        msg = f"{path} holds a {type(policy).__name__}: expected a policy"
        raise PolicyError(msg)
    loaded: Policy = policy
    return loaded


def refuse_path(policy: object) -> None:
    """Refuse a path in place of a policy, and say how to load the file.

    Raises
    ------
    PolicyError
    """
    if isinstance(policy, (str, os.PathLike)):
        path = os.fspath(policy)
        msg = f"policy is a {type(policy).__name__}, {path!r}: load a file with load_policy({path!r})"
        raise PolicyError(msg)


def to_json(policy: object) -> str:
    """Convert a policy to the text of a policy file, without the files that `save_policy` writes beside it.

    Raises
    ------
    PolicyError
        It holds an object of a class that is not registered.
    """
    return _text(to_plain(policy))


def from_json(text: str) -> object:
    """Make the policy of the text of a policy file.

    Raises
    ------
    PolicyError
        The text is not a policy file, has another version, or holds values that no policy may have.
    """
    return _policy_in(text, None, None)


def _text(plain: object) -> str:
    return json.dumps({"format": FORMAT, "version": VERSION, "policy": plain}, indent=2) + "\n"


def _policy_in(text: str | bytes, beside: Path | None, encoder: object) -> Any:
    where = "" if beside is None else f"{beside}, "
    try:
        data = read_json(text)
    except FormatError as error:
        msg = f"{where}line {error.line}: this is not a policy file: {error}; {_WRITTEN_BY}"
        raise PolicyError(msg) from error
    where = "" if beside is None else f"{beside}: "
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        msg = f'{where}this is not a policy file: expected an object with "format": "{FORMAT}"; {_WRITTEN_BY}'
        raise PolicyError(msg)
    if not is_version(data.get("version"), VERSION):
        msg = (
            f"{where}this policy file has version {data.get('version')!r}, this confroute reads version {VERSION}: "
            "update confroute, or fit and save the policy again"
        )
        raise PolicyError(msg)
    try:
        return from_plain(data.get("policy"), beside=beside, place=("policy",), encoder=encoder)
    except PlainError as error:
        read = text.decode() if isinstance(text, bytes) else text
        where = "" if beside is None else f"{beside}, line {line_of(read, error.place)}: "
        msg = f"{where}{error}"
        raise PolicyError(msg) from error
