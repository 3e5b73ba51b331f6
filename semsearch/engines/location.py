"""What a location past this machine says: where the engine is, which collection, and how that is to be made.

milvus://[user:password@]host[:port]/collection[?option=value&...]     a server
milvus:///absolute/path/file.db[?collection=name&...]                  a Milvus Lite file
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from semsearch.engines.protocol import Consistency, FieldType
from semsearch.errors import InputError

__all__ = ["INDEXES", "Location", "is_location"]

PORT = 19530
TIMEOUT = 30.0
COLLECTION = "semsearch"  # of a file that names none
INDEXES = ("flat", "hnsw", "ivf_flat", "ivf_sq8", "diskann", "auto")
CONSISTENCIES = get_args(Consistency)
FIELD_TYPES = get_args(FieldType)


@dataclass(frozen=True, slots=True)
class Location:
    """A Milvus collection; `str` shows it without credentials.

    Either `host` and `port` or `path` (a Milvus Lite file) are set. The options, None where the location leaves them
    open: `fields` become typed columns, `shards` and `replicas` are numbers, `index` is one of INDEXES, `consistency`
    says how fresh a reading is, `database` is one of the server's. `timeout` is in seconds, for each call with all its
    tries; `secure` asks for TLS.
    """

    collection: str
    host: str = ""
    port: int = PORT
    path: str = ""
    credentials: str = field(default="", repr=False)
    secure: bool = False
    database: str = ""
    timeout: float = TIMEOUT
    fields: Mapping[str, FieldType] | None = None
    shards: int | None = None
    replicas: int | None = None
    index: str | None = None
    consistency: Consistency | None = None

    def __str__(self) -> str:
        if self.path:
            return f"milvus://{self.path}" + ("" if self.collection == COLLECTION else f"?collection={self.collection}")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"milvus://{host}:{self.port}/{self.collection}"

    @property
    def uri(self) -> str:
        """The address as pymilvus takes it; no credentials in it."""
        if self.path:
            return self.path
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}"

    @classmethod
    def parse(cls, location: str, token: str = "") -> Location:
        """Read a location; `token` holds for one without user and password. Raises InputError.

        >>> location = Location.parse("milvus://ada:secret@db.example/handbook?fields=year:int&replicas=2")
        >>> str(location), location.fields, location.replicas
        ('milvus://db.example:19530/handbook', {'year': 'int'}, 2)
        """
        try:
            parts = urlsplit(location)
            port = parts.port or PORT
        except ValueError:  # its text may quote a piece of a password
            raise InputError(f"This location has no host and port that can be read. {_FORMS}") from None
        if parts.scheme != "milvus":
            raise InputError(f"There is no engine for {parts.scheme}://. {_FORMS}")
        options = _options(parts.query)
        if parts.hostname:
            return _server(parts, port, token, options)
        return _file(parts, options)


_FORMS = (
    "Locations past this machine are milvus://host:port/collection and milvus:///absolute/path/file.db. "
    "A folder is written as a path."
)


def is_location(location: object) -> bool:
    """Whether this is a location past this machine, and no folder.

    >>> is_location("milvus://host/handbook"), is_location("indexes/handbook")
    (True, False)
    """
    return isinstance(location, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", location) is not None


def _server(parts: SplitResult, port: int, token: str, options: dict[str, Any]) -> Location:
    collection = unquote(parts.path.strip("/"))
    if "collection" in options:
        raise InputError("The option collection= is for files; of a server, write milvus://host:port/collection.")
    if parts.username:
        token = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Location(_name(collection), str(parts.hostname), port, credentials=token, **options)


def _file(parts: SplitResult, options: dict[str, Any]) -> Location:
    path = unquote(parts.path)
    if parts.netloc or not path.startswith("/") or not path.endswith(".db"):
        raise InputError(f"{path!r} is no absolute path of a Milvus Lite file, which ends in .db. {_FORMS}")
    for name in ("secure", "database"):
        if options.get(name):
            raise InputError(f"The option {name}= is for servers; {path} is a file.")
    collection = options.pop("collection", COLLECTION)
    return Location(_name(collection), path=path, **options)


def _name(collection: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,199}", collection):
        shown = "What follows the first slash" if "@" in collection else repr(collection)  # half a password, perhaps
        raise InputError(
            f"{shown} is no name for a collection. Use letters, digits and underscores, not a digit first, at most "
            "200: milvus://user:password@host:port/collection, with a slash in a password written as %2F."
        )
    return collection


def _options(query: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _READERS:
            raise InputError(f"There is no option {name!r} in a location. Known: {', '.join(_READERS)}.")
        if name in found:
            raise InputError(f"The option {name}= is given twice.")
        found[name] = _READERS[name](name, value)
    return found


def _number(name: str, value: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,5}", value):
        raise InputError(f"{name}={value} is no whole number from 1 on.")
    return int(value)


def _seconds(name: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise InputError(f"{name}={value} is no number of seconds above 0.")
    return seconds


def _flag(name: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise InputError(f"{name}={value} should be true or false.")
    return value == "true"


def _one_of(*known: str) -> Callable[[str, str], str]:
    def read(name: str, value: str) -> str:
        if value not in known:
            raise InputError(f"{name}={value} is not known. Known: {', '.join(known)}.")
        return value

    return read


def _fields(name: str, value: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in value.split(","):
        key, _, kind = each.rpartition(":")
        if not key or kind not in FIELD_TYPES or key in found:
            raise InputError(
                f"{name}={value} should list each name once with its type, as in fields=year:int,lang:str. "
                f"Types: {', '.join(FIELD_TYPES)}."
            )
        found[key] = kind
    return found


def _text(name: str, value: str) -> str:
    if not value:
        raise InputError(f"{name}= is empty.")
    return value


_READERS: dict[str, Callable[[str, str], Any]] = {
    "fields": _fields,
    "shards": _number,
    "replicas": _number,
    "index": _one_of(*INDEXES),
    "consistency": _one_of(*CONSISTENCIES),
    "timeout": _seconds,
    "secure": _flag,
    "database": _text,
    "collection": _text,
}
