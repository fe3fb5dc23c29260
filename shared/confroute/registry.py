"""Everything that has a name in files: signals, equivalences, similarities, rules, policies, wrappers and their parts.

One decorator, `register`, adds a class or a function, ours as well as yours. Policy files, ``confroute record --signals``,
``confroute signals --list`` and the tables of the documentation all read this one list, and nothing that is not in it is
ever made from a file.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType
from typing import Any, Literal, TypeAlias, TypeVar, get_args, get_type_hints, overload

from confroute.errors import PolicyError
from confroute.reading import Place, dotted, fits, shown

_NAMESPACES = re.compile(r"\b(?:[a-z_]+\.)+")
K = TypeVar("K", bound="type | Callable[..., object]")
Kind: TypeAlias = Literal[
    "signal", "equivalence", "similarity", "rule", "policy", "wrapper", "part", "function"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
Settings: TypeAlias = Mapping[str, object]

# Importing these registers everything that ships; a program that needs none of them does not import them.
_SHIPPED = ("signals", "policy", "budget", "drift", "learning", "prices", "certificate")
_BY_METHOD: tuple[tuple[str, Kind], ...] = (
    ("measure", "signal"),
    ("match", "equivalence"),
    ("between", "similarity"),
    ("__call__", "rule"),
)
_INNER = ("policy", "cascade")
_NOT_RECORDED: Mapping[Kind, str] = {
    "equivalence": "is recorded with the signal that it belongs to",
    "similarity": "is recorded with the signal that it belongs to",
    "rule": "decides before any model is asked, so there is no evidence to record",
    "policy": "is the result of a fit",
    "wrapper": "stands around a fitted policy",
    "part": "is recorded and fitted with what it belongs to",
    "function": "is recorded and fitted with what it belongs to",
}
_ADVICE = {
    "model": "give the name or the folder of a local model, or a function of a module that is registered "
    "(confroute.policy.register)",
    "store": "give the store's address as text instead of the open store: 'sqlite:PATH', 'redis://HOST:PORT/DB' or 'memory:NAME'",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One registered class or function.

    Attributes
    ----------
    name : str
        Its name in files.
    kind : str
        One of `KINDS`.
    known : type or callable
        The class or function itself.
    aliases : tuple of str
        Its names in files of earlier versions.
    needs : str
        For a signal, the evidence that it reads, in words.
    columns : mapping of str to mapping
        For a signal that can be measured from a recorded row alone, its columns in recorded runs, each with the settings
        that differ from the defaults.
    per_samples : tuple of str
        Settings that are set to the number of recorded samples.
    recorded : str
        How ``confroute record`` measures a signal that has no `columns`.
    why_not : str
        Why it cannot be recorded and fitted by itself; empty if it can.
    example : mapping of str to object
        Settings for an example, if it cannot be made without any.
    """

    name: str
    kind: Kind
    known: Any
    aliases: tuple[str, ...] = ()
    needs: str = ""
    columns: Mapping[str, Settings] = field(default_factory=dict)
    per_samples: tuple[str, ...] = ()
    recorded: str = ""
    why_not: str = ""
    example: Settings = field(default_factory=dict)

    def column(self, name: str, samples: int) -> Any:
        """Make the signal of one of its columns, for rows with this many samples."""
        return self.known(**self.columns[name], **dict.fromkeys(self.per_samples, samples))


_entries: dict[str, Entry] = {}
_by_object: dict[object, Entry] = {}


@overload
def register(known: K, /) -> K: ...
@overload
def register(
    *,
    name: str | None = None,
    kind: Kind | None = None,
    aliases: tuple[str, ...] = (),
    needs: str = "",
    columns: Mapping[str, Settings] | None = None,
    per_samples: tuple[str, ...] = (),
    recorded: str = "",
    why_not: str = "",
    example: Settings | None = None,
) -> Callable[[K], K]: ...
def register(
    known: Any = None,
    /,
    *,
    name: str | None = None,
    kind: Kind | None = None,
    aliases: tuple[str, ...] = (),
    **facts: Any,
) -> Any:
    """Register a frozen dataclass or a function, so that policy files can hold it.

    Parameters
    ----------
    known : type or function
        A dataclass whose fields are JSON values, tuples, or registered themselves.
    name : str, optional
        Its name in files; by default its own.
    kind : str, optional
        One of `KINDS`; by default read from its methods.
    aliases : tuple of str
        Its names in older files.
    **facts
        Further attributes of `Entry`.

    Raises
    ------
    PolicyError
        `known` is neither a dataclass nor a function, or a lambda without a name; or the name is taken.

    Examples
    --------
    >>> @register
    ... @dataclass(frozen=True)
    ... class MySignal:
    ...     weight: float = 1.0
    >>> to_plain(MySignal(weight=2.0))
    {'class': 'MySignal', 'weight': 2.0}
    """
    if known is None:
        return functools.partial(register, name=name, kind=kind, aliases=aliases, **facts)
    own = _name_of(known, name)
    facts = {key: value for key, value in facts.items() if value is not None}
    entry = Entry(name=own, kind=kind or _kind_of(known), known=known, aliases=aliases, **facts)
    for one in (own, *aliases):
        _check_free(one, known)
    for one in (own, *aliases):
        _entries[one] = entry
    _by_object[known] = entry
    columns.cache_clear()
    return known


def _name_of(known: Any, name: str | None) -> str:
    if not isinstance(known, FunctionType) and not (
        isinstance(known, type) and dataclasses.is_dataclass(known)
    ):
        msg = f"{known!r} is neither a dataclass nor a function: only those can be written to a policy file"
        raise PolicyError(msg)
    own: str = name or known.__name__
    if own == "<lambda>":
        msg = "a lambda has no name to find it by: write a function with `def`, or give name="
        raise PolicyError(msg)
    return own


def _kind_of(known: Any) -> Kind:
    if isinstance(known, FunctionType):
        return "function"
    if hasattr(known, "flow"):
        names = {one.name for one in dataclasses.fields(known)}
        return "wrapper" if names.intersection(_INNER) else "policy"
    for method, kind in _BY_METHOD:
        # Of the class itself: every type can be called.
        if any(method in vars(base) for base in known.__mro__):
            return kind
    return "part"


def _check_free(name: str, known: Any) -> None:
    other = _entries.get(name)
    if other is None or other.known is known:
        return
    # A notebook cell that is run again, or a module that is reloaded, defines the same class again.
    if (other.known.__module__, other.known.__qualname__) == (known.__module__, known.__qualname__):
        return
    msg = (
        f"the name {name!r} is taken by {other.known.__module__}.{other.known.__qualname__}: "
        "give register(name=...) another one"
    )
    raise PolicyError(msg)


@functools.cache
def _import_shipped() -> None:
    for module in _SHIPPED:
        importlib.import_module(f"confroute.{module}")


def entries(kind: Kind | None = None) -> tuple[Entry, ...]:
    """List all entries, or those of one kind, in the order of registration, in which signals are sorted by cost."""
    _import_shipped()
    found = dict.fromkeys(entry.name for entry in _entries.values())
    return tuple(_entries[name] for name in found if kind in {None, _entries[name].kind})


def entry_named(name: str) -> Entry | None:
    """Find an entry by its name or an alias; None if there is none."""
    if name not in _entries:
        _import_shipped()
    return _entries.get(name)


def entry_of(value: object) -> Entry | None:
    """Find the entry of an object's class, or of a function; None if it is not registered."""
    return _by_object.get(value if isinstance(value, FunctionType) else type(value))


@functools.cache
def columns() -> Mapping[str, Entry]:
    """The entries of signals that are measured from a recorded row alone, by column."""
    return {name: entry for entry in entries("signal") for name in entry.columns}


def not_recorded(entry: Entry) -> str:
    """Say why an entry is not recorded and fitted by itself; empty if it is."""
    return entry.why_not or _NOT_RECORDED.get(entry.kind, "")


def parts_of(value: object) -> Iterator[object]:
    """Iterate over a registered object and all of its parts, outermost first."""
    if isinstance(value, tuple):
        for item in value:
            yield from parts_of(item)
        return
    yield value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for one in dataclasses.fields(value):
            yield from parts_of(getattr(value, one.name))


def to_plain(value: object, *, beside: Path | None = None, where: str = "") -> Any:
    """Convert a registered object to JSON values, which `from_plain` reads.

    Parameters
    ----------
    value : object
    beside : Path, optional
        The policy file for which this is done: what does not fit into JSON, such as a trained head, is written beside it.
        Without it nothing is written, and the result describes such parts without holding them.
    where : str
        Class and field that hold the value, for error messages.

    Raises
    ------
    PolicyError
        The value is or holds an object that cannot be written; the message says where it is, why, and what to do.
    """
    if isinstance(value, (tuple, list)):
        return [to_plain(item, beside=beside, where=where) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    entry = entry_of(value)
    if entry is None:
        raise PolicyError(_unwritable(value, where))
    if entry.kind == "function":
        return {"function": entry.name}
    own = getattr(value, "to_fields", None)
    fields = _fields_of(value, beside) if own is None else own(beside)
    return {"class": entry.name, **fields}


def _fields_of(value: Any, beside: Path | None) -> dict[str, Any]:
    kind = type(value).__name__
    return {
        one.name: to_plain(getattr(value, one.name), beside=beside, where=f"{kind}.{one.name}")
        for one in dataclasses.fields(value)
        # What a class makes itself it makes again.
        if one.init
    }


def _unwritable(value: object, where: str) -> str:
    place = f"{where}: " if where else ""
    kind = f"{place}a {type(value).__name__} cannot be written to a policy file"
    advice = _ADVICE.get(where.rpartition(".")[2])
    if isinstance(value, FunctionType):
        kind = f"{place}the function {value.__qualname__} cannot be written to a policy file"
        advice = "put @confroute.policy.register above its `def`, in a module that is imported before the file is read"
    elif dataclasses.is_dataclass(value):
        advice = "put @confroute.policy.register above its class, in a module that is imported before the file is read"
    return f"{kind}: {advice or 'make it a registered frozen dataclass or a registered function'}"


class PlainError(PolicyError):
    """A value of a policy file that no object can be made of; `place` is where it stands."""

    def __init__(self, place: Place, problem: str) -> None:
        super().__init__(f"{dotted(place)}: {problem}" if place else problem)
        self.place, self.problem = place, problem


def from_plain(data: object, *, beside: Path | None = None, place: Place = (), **given: object) -> Any:
    """Make the object that `to_plain` converted to JSON values.

    Parameters
    ----------
    data : object
    beside : Path, optional
        The policy file that holds the data.
    place : tuple of str and int
        Where in the file the data stands, for error messages.
    **given
        Objects that a file cannot hold, for classes that need them.

    Raises
    ------
    PolicyError
        A class is not registered, or refuses its values, or a value is not of its field's type.
    """
    if isinstance(data, list):
        return tuple(
            from_plain(item, beside=beside, place=(*place, at), **given) for at, item in enumerate(data)
        )
    if not isinstance(data, dict):
        return data
    fields = dict(data)
    if set(fields) == {"float"}:
        return _infinity(fields["float"], place)
    function = fields.get("function") if set(fields) == {"function"} else None
    name = fields.pop("class", function)
    entry = entry_named(name) if isinstance(name, str) else None
    if entry is None or (entry.kind == "function") != (function is not None):
        names = ", ".join(sorted(one.name for one in entries()))
        msg = (
            f"unknown class {name!r} in the policy file: expected one of {names}; a class or function of your own is to be "
            "registered (confroute.policy.register) before the file is read"
        )
        raise PlainError(place, msg)
    if function is not None:
        return entry.known
    return _made(entry, fields, beside, place, given)


def _infinity(value: object, place: Place) -> float:
    if value not in ("inf", "-inf", "nan"):
        raise PlainError(place, f"float is {shown(value)}: expected 'inf' or '-inf'")
    return float(str(value))


def _made(
    entry: Entry, fields: dict[str, Any], beside: Path | None, place: Place, given: Mapping[str, object]
) -> Any:
    try:
        own = getattr(entry.known, "from_fields", None)
        if own is not None:
            return _made_by(entry, fields, place, functools.partial(own, fields, beside, **given))
        built = {
            name: from_plain(item, beside=beside, place=(*place, name), **given)
            for name, item in fields.items()
        }
        _check_types(entry, built, place)
        return entry.known(**built)
    except PlainError:
        raise
    except PolicyError as error:
        raise PlainError(place, str(error)) from error
    # Classes check their values by comparing and calling them: a file may hold anything.
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise PlainError(place, f"{entry.name} in the policy file: {error}") from error


def _made_by(entry: Entry, fields: dict[str, Any], place: Place, make: Callable[[], Any]) -> Any:
    """What a class makes of its fields itself."""
    try:
        made = make()
    except PlainError as error:
        # It knows only of its own fields.
        raise PlainError((*place, *error.place), error.problem) from error
    _check_types(entry, {name: getattr(made, name) for name in fields if hasattr(made, name)}, place)
    return made


def _check_types(entry: Entry, values: Mapping[str, object], place: Place) -> None:
    hints = _hints(entry.known)
    for name, value in values.items():
        if name in hints and not fits(value, hints[name]):
            wanted = getattr(hints[name], "__name__", "") if type(hints[name]) is type else str(hints[name])
            raise PlainError((*place, name), f"{shown(value)}: expected {_NAMESPACES.sub('', wanted)}")


@functools.cache
def _hints(known: Any) -> Mapping[str, Any]:
    """The types of a class's fields; none where they can only be read by a type checker."""
    try:
        return get_type_hints(known)
    except (NameError, TypeError):
        return {}


def from_expression(text: str) -> Any:
    """Make the object of a text such as ``McDropout(passes=5, rate=0.01)``, from registered classes and literals only.

    Raises
    ------
    PolicyError
        The text is anything else, or a class refuses its settings.

    Examples
    --------
    >>> from_expression("SemanticEntropy(n=3, equivalence=SameEmbedding(cosine=0.8))").equivalence.cosine
    0.8
    """
    try:
        return _evaluated(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, TypeError, ValueError) as error:
        # PolicyError is a ValueError: a class that refuses its settings ends here as well.
        msg = f"{text!r}: {error}; expected NAME(field=value, ...), with names such as those of `confroute signals --list`"
        raise PolicyError(msg) from error


def _evaluated(node: ast.expr) -> Any:
    if isinstance(node, (ast.Tuple, ast.List)):
        return tuple(map(_evaluated, node.elts))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args:
        entry = entry_named(node.func.id)
        if entry is None or entry.kind == "function":
            msg = f"nothing is known by the name {node.func.id!r}"
            raise ValueError(msg)
        return entry.known(**{str(one.arg): _evaluated(one.value) for one in node.keywords})
    if isinstance(node, ast.Name) and (entry := entry_named(node.id)) and entry.kind == "function":
        return entry.known
    return ast.literal_eval(node)
