"""Files and folders in, documents out.

    for document in load("handbook"):        # a folder: what cannot be read is skipped, with a logged warning
        print(document.id, document.title)
    load_file(Path("handbook/rules.pdf"))    # one file: raises LoadError with the reason
    for entry in walk(Path("handbook")):     # names, sizes and times only; opens no file
        print(entry)

`LOADERS` maps a suffix to the function that reads it: to add a format, write the function (see `formats`) and add a
line there. Only regular files inside the folder are opened: symbolic links, FIFOs, sockets and devices never are.
"""

from __future__ import annotations

import codecs
import logging
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from semsearch import epub, formats, mail, markup, opendocument, sheets, slides, word
from semsearch.archives import gunzipped
from semsearch.decoding import decode
from semsearch.errors import InputError, LoadError
from semsearch.formats import Extracted, UnreadableError
from semsearch.records import Document

__all__ = ["LOADERS", "FileEntry", "load", "load_file", "walk"]

MAX_BYTES = 100_000_000  # of one file
SUPPORTED = (
    "text, Markdown, reStructuredText, AsciiDoc, HTML, PDF, DOCX, PPTX, XLSX, ODT, ODP, ODS, EPUB, e-mail, notebooks, "
    "CSV, TSV, JSON, source code; of these what is text also compressed (.txt.gz)"
)
SKIPPED_NAMES = frozenset(("__pycache__", "node_modules"))  # and whatever starts with a dot

_log = logging.getLogger(__name__)


# ---- folders ---------------------------------------------------------------------------------------------------------


class FileEntry(NamedTuple):
    """A regular file that `walk` found, as the directory and one `stat` tell it.

    `id` is the path relative to the root, with slashes; `size` is in bytes, `mtime_ns` in nanoseconds since 1970.
    """

    location: str
    id: str
    size: int
    mtime_ns: int
    inode: int

    @property
    def path(self) -> Path:
        """The location; made when it is wanted, since making it costs more than all the rest of a walk."""
        return Path(self.location)


def load(path: str | os.PathLike[str]) -> Iterator[Document]:
    """The documents of a file or a folder, one at a time, sorted by id.

    In a folder, a file that cannot be read is skipped and a warning with the reason is logged. A symbolic link given
    here is followed (it is what was asked for); links inside the folder are not. Parsers run in a worker process with
    limits on time and memory, see `parsing`.

    Raises LoadError: nothing is there, the folder cannot be listed, or the single file cannot be read.

    >>> [document.id for document in load("examples/documents")]  # doctest: +SKIP
    ['fees.md', 'rules/lending.pdf']
    """
    from semsearch.parsing import Parser

    root = Path(path).expanduser().resolve()
    with Parser() as parser:
        if not root.is_dir():
            yield parser.load(root, id=Path(path).name)
            return
        for entry in walk(root):
            try:
                if isinstance(entry, LoadError):
                    raise entry
                document = parser.load(entry.path, id=entry.id)
            except LoadError as error:
                _log.warning("skipped %s", error)
            else:
                yield document


def walk(root: str | os.PathLike[str], pattern: str | Sequence[str] | None = None) -> Iterator[FileEntry | LoadError]:
    """The regular files under a folder, sorted by id; a LoadError stands for a folder that cannot be listed.

    Nothing is opened and no link is followed; names that start with a dot, `__pycache__` and `node_modules` are left
    out. `pattern` is a glob (`*`, `?`, `[a-z]`, `[!a]`, `**/`), or several of which one must match: `*.md` matches in
    any folder; one with a slash matches from the root (`guide/*.md`, `**/drafts/*`); `guide/` is everything under
    guide. As in most systems' file names, upper and lower case differ.

    Raises LoadError if the root itself cannot be listed, and InputError for a pattern that is empty or no glob.
    """
    matches = _matcher(pattern)
    top = os.fspath(root)
    waiting: list[FileEntry | tuple[str, str]] = []  # what is still to give out, last first; folders as (path, id)
    waiting.extend(_listed(top, ""))
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, FileEntry):
            if matches is None or matches(entry.id):
                yield entry
            continue
        try:
            waiting.extend(_listed(*entry))
        except LoadError as error:
            yield error


def _listed(folder: str, prefix: str) -> list[FileEntry | tuple[str, str]]:
    """The files of a folder, and its folders as (path, id with a slash at the end); sorted by id, last first."""
    found: list[tuple[str, FileEntry | tuple[str, str]]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if name[0] == "." or name in SKIPPED_NAMES:
                    continue
                if entry.is_file(follow_symlinks=False):
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:  # removed meanwhile
                        continue
                    file = FileEntry(entry.path, prefix + name, status.st_size, status.st_mtime_ns, status.st_ino)
                    found.append((name, file))
                elif entry.is_dir(follow_symlinks=False):
                    # With its slash a folder sorts where its files do, so the whole walk is in order.
                    found.append((name + "/", (entry.path, f"{prefix}{name}/")))
    except OSError as error:
        raise LoadError(folder, f"the folder cannot be listed: {error.strerror or error}") from None
    found.sort(key=itemgetter(0), reverse=True)
    return [entry for _, entry in found]


def _matcher(pattern: str | Sequence[str] | None) -> Callable[[str], object] | None:
    if pattern is None:
        return None
    patterns = [pattern] if isinstance(pattern, str) else list(pattern)
    if not patterns or not all(isinstance(each, str) and each.strip("/") for each in patterns):
        raise InputError(
            f"pattern={pattern!r} names no file: pass a glob such as '*.md', several, or None for all files."
        )
    try:
        return re.compile("|".join(map(_regex, patterns)), re.DOTALL).fullmatch
    except re.error as error:
        raise InputError(f"pattern={pattern!r} is no glob: {error}. Turn the range in the brackets around.") from None


def _regex(pattern: str) -> str:
    """The regular expression of a glob over ids."""
    if pattern.endswith("/"):
        pattern = f"/{pattern.strip('/')}/**"
    # As in .gitignore: only where it is all of a name, "**" reaches across folders.
    pattern = re.sub(r"(?<![^/])(\*\*)(?![^/])|\*+", lambda stars: stars[1] or "*", pattern)
    if "/" not in pattern:
        pattern = "**/" + pattern
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[!^]?\]?[^\]]*\])", pattern.removeprefix("/"))
    wild = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(wild.get(part) or _character_set(part) or re.escape(part) for part in parts)


def _character_set(part: str) -> str:
    if not (part.startswith("[") and part.endswith("]")) or len(part) < 3:
        return ""
    negated = part[1] in "!^"
    members = re.sub(r"[\\\[\]&~|^]|-(?=-)", r"\\\g<0>", part[2 if negated else 1 : -1])
    return f"(?!/)[{'^' if negated else ''}{members}]" if members else ""


# ---- files -----------------------------------------------------------------------------------------------------------


def suffix_of(path: Path) -> str:
    """The suffix that says how a file is read: the last one in lower case, with the one before `.gz`.

    >>> suffix_of(Path("log.v2.TXT")), suffix_of(Path("log.txt.gz"))
    ('.txt', '.txt.gz')
    """
    suffix = path.suffix.lower()
    return path.with_suffix("").suffix.lower() + suffix if suffix == ".gz" else suffix


def load_file(path: str | os.PathLike[str], *, id: str | None = None) -> Document:
    """One file as a document, parsed in this process, without limits on time and memory.

    `id` is the file's name unless given, `source` the absolute path. `metadata` has `suffix` (lower case, with its
    dot; of `a.txt.gz` it is `.txt`), `size` (bytes), `modified` (seconds since 1970), for text that is not UTF-8
    `encoding`, and for a PDF and for slides `pages`.

    Raises LoadError, and nothing else whatever the file holds, with `path` and `reason`: no loader for the suffix, not
    a regular file (links are not followed), too large, binary, an unknown encoding, encrypted, no text layer, damaged.

    >>> load_file(Path("LICENSE")).metadata["suffix"]  # doctest: +SKIP
    ''
    """
    source = Path(path).absolute()
    suffix = suffix_of(source)
    if suffix not in LOADERS:
        raise LoadError(str(source), f"no loader for {suffix}; supported: {SUPPORTED}")
    data, status = _content(source)
    try:
        extracted = LOADERS[suffix](data)
    except UnreadableError as error:
        raise LoadError(str(source), str(error)) from None
    except RecursionError:
        raise LoadError(str(source), "damaged or hostile: nested too deeply") from None
    except MemoryError:
        raise
    except Exception as error:
        raise LoadError(str(source), f"damaged, or no {suffix} file: {type(error).__name__}: {error}"[:500]) from error
    metadata = {"suffix": suffix, "size": status.st_size, "modified": status.st_mtime, **extracted.metadata}
    name = source.name if id is None else id
    return Document(id=name, text=extracted.text, title=extracted.title, source=str(source), metadata=metadata)


def _content(path: Path) -> tuple[bytes, os.stat_result]:
    """The bytes of a regular file, and its status at the time of reading; never blocks on a FIFO, follows no link."""
    try:
        # Without O_NONBLOCK, opening a FIFO would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise LoadError(str(path), "not a regular file")
            if status.st_size > MAX_BYTES:
                raise LoadError(str(path), f"too large: {status.st_size:,} bytes; at most {MAX_BYTES:,} are read")
            data = file.read(max(status.st_size, 1 << 20))  # pseudo-files say 0
    except OSError as error:
        reason = "a symbolic link, which is not followed" if path.is_symlink() else error.strerror or str(error)
        raise LoadError(str(path), reason) from None
    except ValueError as error:  # a NUL in the name
        raise LoadError(str(path), str(error)) from None
    return data, status


# ---- formats ---------------------------------------------------------------------------------------------------------


@cache
def _text(read: Callable[[str], Extracted]) -> Callable[[bytes], Extracted]:
    """A loader of bytes from one of text; `encoding` goes into the metadata where it is not UTF-8."""

    def loader(data: bytes) -> Extracted:
        text, encoding = decode(data)
        extracted = read(text)
        if encoding == "utf-8":
            return extracted
        return Extracted(extracted.text, extracted.title, {**extracted.metadata, "encoding": encoding})

    return loader


def _unnamed(data: bytes) -> Extracted:
    """A file without a suffix (LICENSE, Makefile): text if it looks like text."""
    if b"\0" in data and not data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UnreadableError("binary")
    return _text(formats.plain)(data)


_CODE = """
    .adb .ads .asm .awk .bash .bat .bib .c .cc .cfg .clj .cljs .cmake .cmd .cob .conf .cpp .cs .css .cu .cxx .d .dart
    .diff .el .erl .ex .exs .f .f90 .fish .fs .go .gradle .graphql .groovy .h .hh .hpp .hrl .hs .hxx .ini .java .jl .js
    .jsx .kt .kts .less .lisp .lua .m .mjs .mk .ml .mli .mm .nim .nix .pas .patch .php .pl .pm .properties .proto .ps1
    .psm1 .py .pyi .pyx .r .rake .rb .rkt .rs .s .sass .scala .scm .scss .sh .sol .sql .sv .swift .tcl .tex .tf .toml
    .ts .tsx .v .vb .vhd .vim .vue .xml .xsd .xsl .yaml .yml .zig .zsh
"""


def _compressed(suffix: str, read: Callable[[bytes], Extracted]) -> Callable[[bytes], Extracted]:
    """A loader of what another one reads, compressed by gzip; the metadata has the suffix without `.gz`."""

    def loader(data: bytes) -> Extracted:
        extracted = read(gunzipped(data))
        return Extracted(extracted.text, extracted.title, {**extracted.metadata, "suffix": suffix})

    return loader


# To add a format: one function, and one line here.
_TEXTS: dict[str, Callable[[bytes], Extracted]] = {
    "": _unnamed,
    **dict.fromkeys((".txt", ".text", ".log", ".org", ".srt", ".vtt"), _text(formats.plain)),
    **dict.fromkeys((".md", ".markdown", ".mdx"), _text(formats.markdown)),
    **dict.fromkeys((".rst", ".rest"), _text(formats.restructuredtext)),
    **dict.fromkeys((".adoc", ".asciidoc"), _text(formats.asciidoc)),
    **dict.fromkeys((".html", ".htm"), _text(markup.html)),
    ".xhtml": _text(markup.xhtml),
    ".eml": mail.eml,
    ".mbox": mail.mbox,
    ".ipynb": _text(formats.notebook),
    **dict.fromkeys((".csv", ".tsv"), _text(formats.csv_rows)),
    ".json": _text(formats.json_values),
    **dict.fromkeys((".jsonl", ".ndjson"), _text(formats.json_lines)),
    **dict.fromkeys(_CODE.split(), _text(formats.plain)),
}
LOADERS: dict[str, Callable[[bytes], Extracted]] = {
    **_TEXTS,
    **{f"{suffix}.gz": _compressed(suffix, read) for suffix, read in _TEXTS.items()},
    ".pdf": formats.pdf,
    ".docx": word.docx,
    **dict.fromkeys((".pptx", ".pptm", ".ppsx"), slides.pptx),
    **dict.fromkeys((".xlsx", ".xlsm"), sheets.xlsx),
    ".odt": opendocument.odt,
    ".odp": opendocument.odp,
    ".ods": opendocument.ods,
    ".epub": epub.epub,
}
SHIPPED = dict(LOADERS)  # what a worker process has under these suffixes, whatever is changed in LOADERS


def is_plain(suffix: str) -> bool:
    """Whether a file is decoded and no more, or not read at all: then it needs no worker process."""
    return LOADERS.get(suffix) in (None, _unnamed, _text(formats.plain))
