"""EPUB as Markdown-like text: its chapters in reading order. See `formats` for the contract of the functions."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from semsearch.archives import MAX_TREE, Package
from semsearch.decoding import decode
from semsearch.formats import Extracted, UnreadableError, joined
from semsearch.markup import xhtml

__all__ = ["epub"]

MAX_CHAPTERS = 10_000

_CONTAINER = "{urn:oasis:names:tc:opendocument:xmlns:container}"
_OPF = "{http://www.idpf.org/2007/opf}"
_NCX = "{http://www.daisy.org/z3986/2005/ncx/}"
_TITLE = "{http://purl.org/dc/elements/1.1/}title"
_METHOD = "{http://www.w3.org/2001/04/xmlenc#}EncryptionMethod"
# Fonts are scrambled in books that anybody may read.
_FONTS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")


def epub(data: bytes) -> Extracted:
    """EPUB 2 and 3: the chapters in the order of the spine; the title is that of the book.

    A chapter without a heading of its own has the one that the table of contents gives it. Books under digital rights
    management are `UnreadableError`.
    """
    package = Package(data)
    _refuse_protected(package)
    container = package.xml("META-INF/container.xml")
    root_file = container.find(f".//{_CONTAINER}rootfile")
    if root_file is None:
        raise UnreadableError("damaged: its container names no book")
    name = unquote(root_file.get("full-path") or "")
    book = package.xml(name)
    text = joined(_chapters(package, book, posixpath.dirname(name)), "\n\n")
    if not text:
        raise UnreadableError("no text: its pages are images, or there are none")
    return Extracted(text, " ".join((book.findtext(f".//{_TITLE}") or "").split()))


def _refuse_protected(package: Package) -> None:
    if "META-INF/encryption.xml" in package:
        methods = {each.get("Algorithm") for each in package.xml("META-INF/encryption.xml").iter(_METHOD)}
        if not methods <= {*_FONTS}:
            raise UnreadableError("encrypted: the book is under digital rights management")


def _chapters(package: Package, book: Any, folder: str) -> Iterator[str]:
    paths = {}
    for item in book.iterfind(f"{_OPF}manifest/{_OPF}item"):
        path = _path(folder, item.get("href") or "")
        paths[item.get("id")] = (path, item.get("media-type") or "")
    labels = _labels(package, paths)
    references = [item.get("idref") for item in book.iterfind(f"{_OPF}spine/{_OPF}itemref")]
    spine = list(dict.fromkeys(paths[each] for each in references if each in paths))
    if len(spine) > MAX_CHAPTERS:
        raise UnreadableError(f"{len(spine):,} chapters; at most {MAX_CHAPTERS:,} are read")
    for path, kind in spine:
        if path in package and ("html" in kind or kind == "text/x-oeb1-document"):
            text = xhtml(decode(package.read(path, MAX_TREE))[0]).text
            if text and path in labels and not re.search(r"^#{1,6} ", text, re.MULTILINE):
                text = f"# {labels[path]}\n\n{text}"
            if text:
                yield text


def _path(folder: str, href: str) -> str:
    return posixpath.normpath(posixpath.join(folder, unquote(href.partition("#")[0])))


def _labels(package: Package, paths: dict[str | None, tuple[str, str]]) -> dict[str, str]:
    """What the table of contents (NCX) calls each chapter; most books of EPUB 3 have one as well."""
    labels: dict[str, str] = {}
    for path, kind in paths.values():
        if kind == "application/x-dtbncx+xml" and path in package:
            for point in package.xml(path).iter(_NCX + "navPoint"):
                content, label = point.find(_NCX + "content"), point.findtext(f"{_NCX}navLabel/{_NCX}text") or ""
                if content is not None and label.strip():
                    labels.setdefault(_path(posixpath.dirname(path), content.get("src") or ""), " ".join(label.split()))
            break
    return labels
