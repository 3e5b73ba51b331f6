"""Bytes of a text file in, its text and the name of its encoding out.

charset-normalizer guesses where nothing says the encoding; among code pages for Latin letters, which differ in a few
characters, the one wins that gives the most letters of one language.
"""

from __future__ import annotations

import codecs
import itertools
import re
from collections import Counter
from collections.abc import Iterator

from semsearch.formats import UnreadableError

__all__ = ["decode"]

SAMPLE = 32_768  # bytes that are looked at to guess an encoding

_MARKS = (  # byte order marks; UTF-32's begin with UTF-16's
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_DECLARED = re.compile(rb"""(?:charset|coding|encoding)\s{0,9}[=:]\s{0,9}["']?([A-Za-z][\w.:-]{1,30})""")
# All of ASCII but for the three characters that some encodings of text have others for (Shift_JIS: ¥, CP864: ٪).
_ASCII = bytes({*range(32, 127)} - {*b"\\~%"})
_NOT_OF_FILES = ("idna", "raw-unicode-escape", "unicode-escape")  # these leave it as it is too
_ESCAPES = ((b"\x1b$)C", "iso2022_kr"), (b"\x1b$", "iso2022_jp_ext"), (b"\x1b(J", "iso2022_jp_ext"))
# What a declared name means in practice (https://encoding.spec.whatwg.org): the superset that is written under it.
_SUPERSETS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
}
# Encodings that files are found in; guessing among rarer ones as well makes more mistakes than it mends.
_PLAUSIBLE = [
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258", "cp874", "koi8_r"),
    *("koi8_u", "iso8859_1", "iso8859_2", "iso8859_5", "iso8859_6", "iso8859_7", "iso8859_8"),
    *("iso8859_9", "iso8859_15", "mac_roman", "mac_cyrillic", "cp437", "cp850", "cp852", "cp855"),
    *("cp866", "gb18030", "big5", "big5hkscs", "cp932", "euc_jp", "cp949", "euc_kr", "johab"),
]
# Code pages with accented Latin letters, the commoner first, and what European languages write beyond ASCII.
_LATIN = ("cp1252", "cp1250", "iso8859_2", "cp1254", "cp1257", "mac_roman", "cp850", "cp852", "cp437")
_ALPHABETS = (
    *(
        "àâæçéèêëîïôœùûü",
        "äöüß",
        "áéíñóúü¿¡",
        "ãáàâçéêíóôõúü",
        "àèéìíòóù",
        "åäöé",
        "æøåéäö",
        "áðéíóúýþæö",
        "àçèéíïòóúü·",
    ),
    *("ąćęłńóśźż", "áčďéěíňóřšťúůýž", "áäčďéíĺľňóôŕšťúýž", "áéíóöőúüű", "čšžćđ", "ăâîșțşţ", "çğıöşüâîi̇"),
    *("äõöüšž", "āčēģīķļņšūž", "ąčęėįšųūž"),
)
_PUNCTUATION = "“”„‟‘’‚‹›«»–—…•·°§©®™€£º±²³½¼×\xa0\xad"
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")
_HIGH = re.compile(rb"[\x80-\xff]+")
_CONTROLS = bytes({*range(32), 127} - {*b"\t\n\v\f\r\x1b\b"})


def decode(data: bytes) -> tuple[str, str]:
    """The text of a file's bytes, without a byte order mark, and the name of its encoding.

    Tried in this order, each strictly: a byte order mark, UTF-16 and UTF-32 without one, ISO-2022 escapes, UTF-8, the
    encoding that the first 1024 bytes declare (HTML, XML, Python, mail) where they can be read in it, what
    charset-normalizer guesses from a sample of the lines that are not ASCII; then UTF-8 and the declared one with a few
    damaged characters, each of which becomes U+FFFD.

    Raises UnreadableError for binary data and for text in no known encoding.

    >>> decode("Grüße".encode("utf-16"))
    ('Grüße', 'utf-16-le')
    """
    text, encoding = _decode_marked(data) or _decode_unmarked(data)
    return text, encoding


def _decode_marked(data: bytes) -> tuple[str, str] | None:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            text = _decoded(data[len(mark) :], encoding)
            if text is None:
                raise UnreadableError(f"unknown encoding: its byte order mark says {encoding}, its bytes do not")
            return text, encoding
    return None


def _decode_unmarked(data: bytes) -> tuple[str, str]:
    if b"\0" in data:
        return _decode_with_zeros(data)
    escaped = [encoding for escape, encoding in _ESCAPES if escape in data]
    if not escaped and _is_binary(data):
        raise UnreadableError("binary")
    declared = _declared(data)
    for encoding in itertools.chain(escaped, ("utf-8",), declared, _guesses(data)):
        if (text := _decoded(data, encoding)) is not None:
            return text, encoding
    for encoding in ("utf-8", *declared):
        text = data.decode(encoding, errors="replace")
        if text.count("\ufffd") * 50 < len(data) - len(text):  # nearly all multi-byte characters are whole
            return text, encoding
    raise UnreadableError("unknown encoding: save it as UTF-8")


def _declared(data: bytes) -> list[str]:
    """The encoding that the text says it has, its superset first."""
    found = _DECLARED.search(data, 0, 1024)
    name = _codec(found[1].decode("ascii").lower().removeprefix("x-")) if found else None
    return [each for each in (_SUPERSETS.get(name), name) if each] if name else []


def _decoded(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeError:
        return None


def _codec(name: str) -> str | None:
    """Python's name of a text encoding in which the declaration itself can be read, or None; UTF-8 has had its turn."""
    try:
        codec = codecs.lookup(name)
        readable = codec._is_text_encoding and _ASCII.decode(name) == _ASCII.decode("ascii")
    except (LookupError, UnicodeError):
        return None
    return codec.name if readable and codec.name not in ("utf-8", *_NOT_OF_FILES) else None


def _decode_with_zeros(data: bytes) -> tuple[str, str]:
    """Text with zero bytes is UTF-16 or UTF-32 without a mark, or UTF-8 with an odd NUL; anything else is binary."""
    sample = data[: SAMPLE // 4 * 4]
    zeros = [sample[place::4].count(0) * 4 / len(sample) for place in range(4)]
    if min(zeros[2:]) > 0.9 or min(zeros[:2]) > 0.9:
        likely = "utf-32-le" if zeros[3] > 0.9 else "utf-32-be"
    else:
        likely = "utf-16-le" if zeros[1] + zeros[3] > zeros[0] + zeros[2] else "utf-16-be"
    for encoding in ("utf-8", likely):
        text = _decoded(data, encoding)
        # Rare controls and unassigned characters: the bytes are something else.
        if text is not None and sum(
            not char.isprintable() and char not in "\t\n\r\f\ufeff" for char in text[:SAMPLE]
        ) * 50 <= len(text[:SAMPLE]):
            return text, encoding
    raise UnreadableError("binary")


def _is_binary(data: bytes) -> bool:
    """Whether control characters are too many for text."""
    sample = data[:SAMPLE]
    return (len(sample) - len(sample.translate(None, _CONTROLS))) * 100 > len(sample)


def _guesses(data: bytes) -> Iterator[str]:
    from charset_normalizer import from_bytes

    sample = b"".join(_lines_not_ascii(data))
    if len(sample) > SAMPLE:  # cut where no multi-byte character can lie: after a space or a line
        sample = sample[: max(sample.rfind(b" ", 0, SAMPLE), sample.rfind(b"\n", 0, SAMPLE)) + 1 or SAMPLE]
    guesses = [guess.encoding for guess in from_bytes(sample, cp_isolation=_PLAUSIBLE, preemptive_behaviour=False)]
    # Few bytes beyond ASCII are accents among plain letters, too few for statistics.
    accents = sum(map(len, _HIGH.findall(sample))) * 2 < len(sample)
    if accents or (guesses and guesses[0] in (*_LATIN, "iso8859_1", "iso8859_9", "iso8859_15")):
        scores = {encoding: _latin_score(sample, encoding) for encoding in _LATIN}
        if (guesses and guesses[0] in _LATIN) or max(scores.values()) > 0.8:
            yield from sorted(_LATIN, key=lambda encoding: -scores[encoding])  # ties: the commoner first
    yield from guesses


def _latin_score(sample: bytes, encoding: str) -> float:
    """The share of the characters beyond ASCII that are letters of one and the same language, or punctuation."""
    text = f" {sample.decode(encoding, errors='replace')} "
    places = [found.start() for found in _BEYOND_ASCII.finditer(text)]
    counts = Counter(text[place].lower() for place in places if not _misplaced(*text[place - 1 : place + 2]))
    punctuation = sum(counts[char] for char in _PUNCTUATION)
    return (punctuation + max(sum(counts[char] for char in letters) for letters in _ALPHABETS)) / max(1, len(places))


def _misplaced(before: str, char: str, after: str) -> bool:
    """Whether a character stands where no language has it, but where a wrong code page puts one."""
    if char in "’·\xad":
        return False
    return before.islower() and char.isupper() if char.isalpha() else before.isalpha() and after.isalpha()


def _lines_not_ascii(data: bytes) -> Iterator[bytes]:
    """The first lines that say something about the encoding, as many as a sample takes."""
    position = size = 0
    while size < SAMPLE and (found := _HIGH.search(data, position)):
        start = data.rfind(b"\n", position, found.start()) + 1 or position
        end = data.find(b"\n", found.start()) + 1 or len(data)
        yield data[start:end]
        size += end - start
        position = end
