"""Zip packages and gzip read with limits: office formats, EPUB and compressed text are made of them.

A package is refused for its declared sizes before anything is unpacked, and what is read of it has a budget, since one
part can be asked for again and again. XML is parsed without entities, without DTDs and without a network. Everything
is `UnreadableError` with a reason a user can act on.
"""

from __future__ import annotations

import gzip
import io
import posixpath
import re
import zipfile
from typing import Any, NamedTuple

from semsearch.formats import UnreadableError

__all__ = ["STRICT", "Package", "Relation", "gunzipped", "office", "transitional"]

MAX_UNPACKED = 300_000_000  # bytes, all parts together
MAX_PARTS = 10_000
MAX_TREE = 60_000_000  # bytes of a part of which a tree is made; the tree takes ten times as much
MAX_GUNZIPPED = 100_000_000  # bytes
COST = 5_000  # bytes of the budget that the reading of a part takes at least
PROLOG = 4_096  # bytes of an XML part before its first element

# Strict Office Open XML has other namespaces for the same names.
_OPEN, _XML = b"http://purl.oclc.org/ooxml/", b"http://schemas.openxmlformats.org/"
STRICT = (
    (_OPEN + b"officeDocument/relationships", _XML + b"officeDocument/2006/relationships"),
    (_OPEN + b"officeDocument/math", _XML + b"officeDocument/2006/math"),
    (_OPEN + b"wordprocessingml/main", _XML + b"wordprocessingml/2006/main"),
    (_OPEN + b"spreadsheetml/main", _XML + b"spreadsheetml/2006/main"),
    (_OPEN + b"presentationml/main", _XML + b"presentationml/2006/main"),
    (_OPEN + b"drawingml/", _XML + b"drawingml/2006/"),
)
# Nothing is tried twice: an instruction or a comment ends at its first end, and the time is linear.
_FIRST_ELEMENT = re.compile(r"\ufeff?\s*+(?:(?><\?.*?\?>|<!--.*?-->)\s*+)*+<[^!?]", re.DOTALL)


class Relation(NamedTuple):
    """What a part refers to: the last word of the relation's type, and the name of the other part."""

    kind: str
    target: str


class Package:
    """The parts of a zip file by name.

    Raises UnreadableError for a file that is no zip, has too many parts or would unpack to too much, is encrypted, or
    is packed in a way that no document is.
    """

    def __init__(self, data: bytes) -> None:
        if data.startswith(b"\xd0\xcf\x11\xe0"):
            raise UnreadableError("encrypted with a password, or an old .doc, .xls or .ppt under another name")
        # The directory is counted before it is read: its entries take ten times their size in memory.
        if data.count(b"PK\x01\x02") > 2 * MAX_PARTS:
            raise UnreadableError(f"a zip file of more than {MAX_PARTS:,} parts")
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise UnreadableError(f"damaged: not a zip file, as this format is ({error})") from None
        self.parts: list[zipfile.ZipInfo] = self._zip.infolist()
        size = sum(part.file_size for part in self.parts)
        if len(self.parts) > MAX_PARTS or size > MAX_UNPACKED:
            raise UnreadableError(
                f"would unpack to {size:,} bytes in {len(self.parts):,} parts; "
                f"at most {MAX_UNPACKED:,} in {MAX_PARTS:,}"
            )
        for part in self.parts:
            if part.flag_bits & 1:
                raise UnreadableError("encrypted: a password is needed to open it")
            if part.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # the others unpack unbounded
                raise UnreadableError("packed with a method that documents do not use")
        self._names = {part.filename for part in self.parts}
        self._budget = 2 * MAX_UNPACKED

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def read(self, name: str, limit: int = MAX_UNPACKED) -> bytes:
        """The bytes of a part; never more than its declared size."""
        if name not in self._names:
            raise UnreadableError(f"damaged: {name} is missing")
        size = self._zip.getinfo(name).file_size
        self._budget -= max(size, COST)
        if size > limit:
            raise UnreadableError(f"too large: {name} unpacks to {size:,} bytes; at most {limit:,} are read")
        if self._budget < 0:
            raise UnreadableError("damaged or hostile: its parts refer to one another without end")
        return self._zip.read(name)

    def head(self, name: str) -> bytes:
        """The first bytes of a part."""
        with self._zip.open(name) as part:
            return part.read(PROLOG)

    def xml(self, name: str) -> Any:
        """The root element of a part, with transitional namespaces."""
        from lxml import etree

        # huge_tree stays off: libxml2 then refuses what is nested 256 deep, and texts of 10 MB.
        parser = etree.XMLParser(
            resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True, remove_pis=True
        )
        data = self.read(name, MAX_TREE)
        if _OPEN in data:
            data = _with_transitional_names(data)
        root = etree.fromstring(data, parser)
        dtd = root.getroottree().docinfo.internalDTD
        if dtd is not None and next(iter(dtd.iterentities()), None) is not None:
            raise UnreadableError(f"damaged or hostile: {name} declares entities")
        return root

    def relations(self, name: str) -> dict[str, Relation]:
        """What a part of an office file refers to within the file, by id; the name "" stands for the file."""
        folder, base = posixpath.split(name)
        rels = posixpath.join(folder, "_rels", f"{base}.rels")
        found: dict[str, Relation] = {}
        for relation in self.xml(rels) if rels in self else ():
            target = relation.get("Target") or ""
            if relation.get("TargetMode") != "External":
                path = posixpath.normpath(posixpath.join("/", folder, target)).lstrip("/")
                found[relation.get("Id")] = Relation((relation.get("Type") or "").rpartition("/")[2], path)
        return found


def office(data: bytes) -> Package:
    """The package of an Office Open XML file, which by its standard has no DTD in any part."""
    package = Package(data)
    for part in package.parts:
        if part.filename.endswith((".xml", ".rels")) and part.file_size:
            head = package.head(part.filename)
            text = head.decode("utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin-1", errors="ignore")
            if not _FIRST_ELEMENT.match(text.removeprefix("ï»¿")):
                raise UnreadableError(f"damaged or hostile: {part.filename} begins with a document type, or is no XML")
    return package


def transitional(data: bytes) -> bytes:
    """The bytes of an Office Open XML file, checked, with the namespaces that libraries know."""
    package = office(data)
    if "_rels/.rels" not in package or _OPEN not in package.read("_rels/.rels"):
        return data
    rewritten = io.BytesIO()
    with zipfile.ZipFile(rewritten, "w") as target:
        for part in package.parts:
            content = package.read(part.filename)
            if part.filename.endswith((".xml", ".rels")):
                content = _with_transitional_names(content)
            target.writestr(part.filename, content)
    return rewritten.getvalue()


def _with_transitional_names(content: bytes) -> bytes:
    for strict, usual in STRICT:
        content = content.replace(strict, usual)
    return content


def gunzipped(data: bytes) -> bytes:
    """What a gzip file unpacks to.

    >>> gunzipped(gzip.compress(b"text"))
    b'text'
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            unpacked = file.read(MAX_GUNZIPPED + 1)
    except EOFError:
        raise UnreadableError("damaged: the gzip file ends too early") from None
    except gzip.BadGzipFile as error:
        raise UnreadableError(f"damaged or no gzip file ({error})") from None
    if len(unpacked) > MAX_GUNZIPPED:
        raise UnreadableError(f"would unpack to more than {MAX_GUNZIPPED:,} bytes")
    return unpacked
