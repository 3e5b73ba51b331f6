"""Whether the check of generated sentences can fail: copies, copies with one thing changed, the same in other words.

    python examples/benchmarks/grounding.py                   # writes results/grounding.json
    python examples/benchmarks/grounding.py --copies 50       # a quick look
    python examples/benchmarks/grounding.py --fit             # what the constants of semsearch.judging were chosen by

Sentences are copied from passages of stories (fairytaleqa-val), of openqa, of abstracts (scifact) and of files of the
mixed folder, and checked against the five passages that a keyword search for them returns in their set. Then each is
made false in every way that applies to it:

- number, name: one is exchanged for another, every other time for one of the five passages;
- numbers exchanged, names exchanged: two of the sentence change places;
- negation: a "not" after an auxiliary verb, or the only "not" or "never" taken out;
- opposite: a word for its opposite; other word: a word for one that means something else.

Of the questions of the articles of SQuAD kept apart and of fairytaleqa-val that begin with their subject, statements
are made with the right answer (true, in other words) and with the answer to another question about the same passage
(false); and copies get a synonym by WordNet (true). Each is checked by words alone and with the judge.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from claims import Claim, Thesaurus, answered, beir, claims, folder, held_out, of_source, squad
from common import machine, options, say, write

from semsearch.grounding import SupportJudge, cite
from semsearch.judging import Judge
from semsearch.records import Citation

TARGETS = {"copy": 95.0, "number": 90.0, "name": 90.0, "negation": 90.0}
PACKAGES = ("semsearch", "numpy", "onnxruntime", "tokenizers")


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--copies", type=int, default=260, help="sentences copied from each set")
    parser.add_argument("--questions", type=int, default=150, help="questions made statements of, from each set")
    parser.add_argument("--fit", action="store_true", help="the texts for choosing instead of those for measuring")
    chosen = parser.parse_args()
    made = for_choosing(chosen) if chosen.fit else for_measuring(chosen)
    say(f"{len(made)} sentences")
    judge = Judge()
    result = {"by words alone": measured(made, None), "with the judge": measured(made, judge)}
    report(result)
    if not chosen.fit:
        write(chosen.results / "grounding.json", {"machine": machine(PACKAGES), **result})


def for_measuring(chosen: argparse.Namespace) -> list[Claim]:
    thesaurus, data = Thesaurus(chosen.data), chosen.data
    made: list[Claim] = []
    with tempfile.TemporaryDirectory() as work:
        for source in (
            beir(data, "fairytaleqa-val"),
            beir(data, "openqa"),
            beir(data, "scifact"),
            folder(data, Path(work), (".md", ".rst", ".html", ".txt"), 60),
        ):
            made += claims(source, chosen.copies, thesaurus)
            say(f"{source.name}: {len(source.passages)} passages")
    for name, articles in (
        ("squad-v1.1-dev-open, kept apart", held_out(data, apart=True)),
        ("fairytaleqa-val, questions", of_source(data, "fairytaleqa-val")),
    ):
        source, asked = squad(name, articles)
        made += answered(source, asked, chosen.questions)
        made += claims(source, chosen.copies // 4, thesaurus, asked=asked)
    return made


def for_choosing(chosen: argparse.Namespace) -> list[Claim]:
    """Of the other articles of SQuAD, without questions of openqa, and of the stories for training."""
    thesaurus = Thesaurus(chosen.data)
    made: list[Claim] = []
    for name, articles in (
        ("squad-v1.1-dev-open, other articles", held_out(chosen.data, apart=False)),
        ("train-extractive-en, fairytaleqa", of_source(chosen.data, "train-extractive-en", "fairytaleqa")[:60]),
    ):
        source, asked = squad(name, articles)
        made += answered(source, asked, chosen.questions)
        made += claims(source, chosen.copies, thesaurus, asked=asked)
    return made


def measured(made: Sequence[Claim], judge: SupportJudge | None) -> dict[str, Any]:
    """For each set and kind how many were called what they are, and what a sentence took."""
    counts: dict[tuple[str, str, bool], list[int]] = defaultdict(lambda: [0, 0])
    start = time.process_time()
    for claim in made:
        found = cite(claim.text, claim.hits, question=claim.question, judge=judge)
        for citation in (citation for sentence in found for citation in sentence.citations):
            check(claim, citation)
        supported = bool(found) and all(sentence.supported for sentence in found)
        for name in (claim.set, "all"):
            right, number = counts[name, claim.kind, claim.true]
            counts[name, claim.kind, claim.true] = [right + (supported == claim.true), number + 1]
    taken = (time.process_time() - start) / len(made)
    table: dict[str, Any] = defaultdict(dict)
    for (name, kind, true), (right, number) in counts.items():
        is_called = "supported" if true else "unsupported"
        table[name][kind] = {"sentences": number, f"{is_called}, percent": round(100 * right / number, 1)}
    return {"processor milliseconds a sentence": round(1e3 * taken, 2), **table}


def check(claim: Claim, citation: Citation) -> None:
    """Every citation is in one of the passages given."""
    if not any(
        hit.passage.document_id == citation.document_id
        and hit.passage.start <= citation.start < citation.end <= hit.passage.end
        for hit in claim.hits
    ):
        raise SystemExit(f"The citation {citation} of {claim.text!r} is in none of its passages.")


def report(result: dict[str, Any]) -> None:
    words, judged = (result[way] for way in ("by words alone", "with the judge"))
    key = "processor milliseconds a sentence"
    print(f"{'':42}{'n':>6}{'words':>8}{'judge':>8}   (percent called what they are)")
    for name in [each for each in words if each != key]:
        print(name)
        for kind, row in sorted(words[name].items()):
            called = next(label for label in row if label != "sentences")
            target = f"   at least {TARGETS[kind]}" if name == "all" and kind in TARGETS else ""
            label = f"  {kind} → {called.split(',')[0]}"
            print(f"{label:42}{row['sentences']:6}{row[called]:8}{judged[name][kind][called]:8}{target}")
    print(f"{key}: {words[key]} by words alone, {judged[key]} with the judge")


if __name__ == "__main__":
    main()
