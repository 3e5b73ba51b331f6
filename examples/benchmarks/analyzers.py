"""What each rule of the analyzer is worth: keyword search alone, with it and without it.

    python examples/benchmarks/analyzers.py                     # the sets in ../shared/data, some minutes
    python examples/benchmarks/analyzers.py --pages DIR         # and the help pages of an office suite in 24 languages

nDCG@10 and recall@10 of whole documents by BM25 with its defaults; no encoder is needed. DIR is where Debian's packages
libreoffice-help-de, -fr, … were unpacked (`dpkg -x`); each page is searched by its title, its first paragraph and the
first entry that it has in the printed index, none of which is left in the text. Pages that are not translated are left
out. Results go to results/analyzers.json with the machine, the versions and the commit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, options, say, seconds, write

from semsearch import analysis
from semsearch.analysis import FUNCTION_WORDS, Analyzer
from semsearch.chunking import embedded_text
from semsearch.datasets import read_beir
from semsearch.detection import detect
from semsearch.lexical import LexicalIndex
from semsearch.metrics import randomisation_test, score_ranking

PROSE = ("scifact", "cosqa-dev", "cranfield", "cisi", "medline-1033", "openqa")
SPACELESS = ("drcd-dev", "cmrc2018-trial", "jaquad-dev")
LANGUAGES = {
    "ca": "catalan", "cs": "czech", "da": "danish", "de": "german", "el": "greek", "en-US": "english", "es": "spanish",
    "et": "estonian", "eu": "basque", "fi": "finnish", "fr": "french", "hu": "hungarian", "id": "indonesian",
    "it": "italian", "nl": "dutch", "pl": "polish", "pt": "portuguese", "ru": "russian", "sv": "swedish",
    "tr": "turkish", "ja": "none", "km": "none", "ko": "none", "zh-CN": "none",
}  # fmt: skip
AREAS = ("shared/guide", "swriter/guide", "scalc/guide", "simpress/guide", "sdraw/guide", "shared/01", "swriter/01")

Tokens = Callable[[str], list[str]]


class Pairs(Analyzer):
    """Pairs of neighbouring characters alone, in scripts without spaces."""

    def _tokens(self, word: str) -> tuple[str, ...]:
        if analysis._SPACELESS.match(word):
            return tuple(word[i : i + 2] for i in range(len(word) - 1)) or (word,)
        return super()._tokens(word)


class PairsAndSingles(Pairs):
    """Pairs and every single character."""

    def _tokens(self, word: str) -> tuple[str, ...]:
        return (*super()._tokens(word), *word) if analysis._SPACELESS.match(word) else super()._tokens(word)


class WithoutSeams(Analyzer):
    """Letters and digits of one word stay together."""

    def _parts(self, piece: str) -> list[str]:
        analysis.MOST_SEAMS, kept = 0, analysis.MOST_SEAMS
        try:
            return super()._parts(piece)
        finally:
            analysis.MOST_SEAMS = kept


def variants(language: str, spaceless: bool) -> dict[str, tuple[Tokens, Tokens]]:
    """By name, what makes the tokens of a document and of a question."""
    whole, plain = Analyzer(language), Analyzer("none")
    found: dict[str, tuple[Tokens, Tokens]] = {"as it is": (whole, whole.query)}
    if spaceless:
        for name, analyzer in {"pairs": Pairs(language), "pairs and singles": PairsAndSingles(language)}.items():
            found[name] = (analyzer, analyzer.query)
        return found
    seamless = WithoutSeams(language)
    found["letters and digits together"] = (seamless, seamless.query)
    found["function words in questions"] = (whole, whole)
    found["no stemming, function words in questions"] = (plain, plain)
    return found


def of_set(data: Path, name: str) -> dict[str, Any]:
    """Every variant on one set in BEIR's layout."""
    dataset = read_beir(data / name)
    documents = list(dataset.documents())
    texts = [embedded_text(each.title, "", each.text) for each in documents]
    questions = [each for each in dataset.questions if any(grade > 0 for grade in each.documents.values())]
    rows: dict[str, Any] = {}
    scores: dict[str, list[float]] = {}
    for variant, (tokens, query) in variants("none" if name in SPACELESS else "english", name in SPACELESS).items():
        say(f"{name}: {variant}")
        index = LexicalIndex()
        index.add(range(len(texts)), [tokens(text) for text in texts])
        found = [index.search(query(each.text), 10)[0].tolist() for each in questions]
        metrics = [
            score_ranking([documents[i].id for i in ids], each.documents)
            for ids, each in zip(found, questions, strict=True)
        ]
        scores[variant] = [each["ndcg@10"] for each in metrics]
        rows[variant] = {key: percent([each[key] for each in metrics]) for key in ("ndcg@10", "recall@10")}
        if variant != "as it is":
            rows[variant]["p"] = round(randomisation_test(scores["as it is"], scores[variant]), 4)
    detected = detect(texts)
    return {"questions": len(questions), "detected": [detected.language, detected.confidence], "variants": rows}


def percent(values: Sequence[float]) -> float:
    return round(100 * float(np.mean(values)), 2)


# -- pages of help -----------------------------------------------------------------------------------------------------


def read_pages(folder: Path, code: str) -> Iterator[dict[str, str]]:
    from selectolax.lexbor import LexborHTMLParser

    for path in sorted(page for area in AREAS for page in (folder / code / "text" / area).glob("*.html")):
        area = LexborHTMLParser(path.read_text(encoding="utf-8")).css_first("#DisplayArea")
        heading = area.css_first("h1") if area else None
        if heading is None:
            continue
        entry = area.css_first("meta[itemprop=keywords]")
        row = {"id": str(path.relative_to(folder / code)), "title": " ".join(heading.text().split())}
        row["entry"] = (entry.attributes.get("content") or "").replace(",", " ") if entry else ""
        heading.decompose()
        parts = [" ".join(each.text().split()) for each in area.css("p,h2,h3")]
        parts = [part for part in dict.fromkeys(parts) if part]
        if len(parts) >= 3:
            yield row | {"first": parts[0], "rest": "\n".join(parts[1:])}


def of_pages(folder: Path, code: str, english: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Every variant on the translated pages of one language: nDCG@10 by title, first paragraph and index entry."""
    rows = [
        each
        for each in read_pages(folder, code)
        if code == "en-US"
        or all(each[key][:60] != english.get(each["id"], each)[key][:60] for key in ("title", "first", "rest"))
    ]
    language = LANGUAGES[code]
    found = {}
    for name, (tokens, query) in variants(language, language == "none").items():
        index = LexicalIndex()
        index.add(range(len(rows)), [tokens(each["rest"]) for each in rows])
        found[name] = {
            kind: percent([_gain(index, query(each[kind]), i) for i, each in enumerate(rows) if each[kind]])
            for kind in ("title", "first", "entry")
        }
    detected = detect(each["rest"] for each in rows)
    return {"pages": len(rows), "detected": [detected.language, detected.confidence], "variants": found}


def _gain(index: LexicalIndex, terms: list[str], expected: int) -> float:
    ids = index.search(terms, 10)[0].tolist()
    return 1 / math.log2(2 + ids.index(expected)) if expected in ids else 0.0


def speed(data: Path) -> dict[str, float]:
    """Tokens of a second, of English abstracts, with every word new and then known."""
    texts = [embedded_text(each.title, "", each.text) for each in read_beir(data / "scifact").documents()]
    analyzer = Analyzer()
    first = seconds(lambda: [analyzer(text) for text in texts])
    again = min(seconds(lambda: [analyzer(text) for text in texts]) for _ in range(3))
    count = sum(len(analyzer(text)) for text in texts)
    return {"tokens": count, "per_second_first": round(count / first), "per_second_again": round(count / again)}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--pages", type=Path, metavar="DIR", help="where libreoffice-help-* packages were unpacked")
    arguments = parser.parse_args()
    result: dict[str, Any] = {"machine": machine(("semsearch", "snowballstemmer", "numpy")), "sets": {}, "pages": {}}
    result["languages"] = sorted(FUNCTION_WORDS)
    result["speed"] = speed(arguments.data)
    for name in (*SPACELESS, *PROSE):
        result["sets"][name] = of_set(arguments.data, name)
        print(name, json.dumps(result["sets"][name]["variants"]), flush=True)
    if arguments.pages:
        folder = arguments.pages / "usr" / "share" / "libreoffice" / "help"
        english = {each["id"]: each for each in read_pages(folder, "en-US")}
        for code in LANGUAGES:
            result["pages"][code] = of_pages(folder, code, english)
            print(code, json.dumps(result["pages"][code]), flush=True)
    write(arguments.results / "analyzers.json", result)


if __name__ == "__main__":
    main()
