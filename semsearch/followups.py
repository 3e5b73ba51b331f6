"""A question that follows others becomes one that can be searched for alone, by rules for English and without a model.

    >>> said = [("Who built the Tower Bridge?", "Horace Jones")]
    >>> standalone("When was it built?", said)
    'When was the Tower Bridge built?'
    >>> standalone("And where was he born?", said)
    'Where was Horace Jones born?'
    >>> standalone("What about a laptop?", [("How much is the late fee for a DVD?", "60p")])
    'How much is the late fee for a laptop?'

A pronoun is replaced by a name or noun phrase of an earlier question or answer, the latest first; in "And on Sundays?"
and "Why?" the earlier question is repeated with the new part in it; "the bridge" becomes the bridge that was named.
There is no parser behind it: phrases are runs of words between function words. A question without any of these stays
as it is, and so does one in another language.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

__all__ = ["POINTING", "Phrase", "depends", "phrases", "standalone"]

Said = Sequence[tuple[str, str]]  # questions, each as it was searched for, and their answers ("" for none)


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_DETERMINERS = _set("a an the my your our his her its their this that these those each every any some")
_AUXILIARIES = _set(
    "is are was were be been being am do does did has have had can could will would shall should may might must"
)
_PREPOSITIONS = _set(
    "of in on at by for with about against between into through during before after above below to from up down over "
    "under since until per than as within without near"
)
_ASKING = _set("who whom whose what which when where why how")
_PRONOUNS = _set("i you he she it we they me him her us them there here one ones")
_OTHERS = _set(
    "and or but so not if then there also too only just ever still yet again much many often more "
    "most less least very else please"
)
_FUNCTION = _DETERMINERS | _AUXILIARIES | _PREPOSITIONS | _ASKING | _PRONOUNS | _OTHERS
# Verbs that end a noun phrase in a question: "does the café | open", "was the bridge | built".
_VERBS = _set(
    "open close cost start end begin work live die write make take charge need get pay apply return borrow find win "
    "lead run say mean happen go come become use call begin stay last lie stand belong change cross contain include "
    "build buy sell know offer give send keep hold bring leave lend serve help move grow reach receive cause look "
    "built made held born known written won found led sold paid set cut put lost given taken done seen kept sent "
    "bought brought taught drawn grown broken chosen spoken begun worn shown"
)
_TIMES_AND_PLACES = _set("in on at during")
_WORD = re.compile(r"[^\W_]+(?:['’.-][^\W_]+)*|[^\w\s]")
_OPENING = re.compile(r"^\W*(?:(?:and|or|but|so|ok|okay|then)\b[\s,]*)+", re.IGNORECASE)
_ABOUT = re.compile(r"^(?:what|how) about\s+", re.IGNORECASE)
_BARE = re.compile(
    r"(?:since |until |till |by |for |from |to |with |in )?(?:who|whom|what|which|when|where|why|how)"
    r"(?: (?:much|many|often|long|far|old|exactly|else|so|come|for|one|ones))*|why (?:is|was) (?:that|this|it)",
    re.IGNORECASE,
)
_ASKED = re.compile(
    r"(?:(?:in|on|at|by|for|from|to|with|since|until) )?(?:who|whom|whose|what|which|when|where|why|how)\b"
    r"(?: (?:much|many|often|long|far|old|big|high|tall|soon)\b)?",
    re.IGNORECASE,
)
_LONGEST = 300  # characters of a question that may depend on others
_LONGEST_SAID = 1000  # characters of an earlier question that later ones may depend on
_LONGEST_ANSWER = 8  # words of an answer that may stand for a pronoun


class Phrase(NamedTuple):
    """`text[start:end]` of the text that it stands in. `kind` is its determiner, "name", or "" for other bare words."""

    text: str
    start: int
    end: int
    kind: str

    @property
    def plural(self) -> bool:
        last = self.text.split()[-1].lower()
        return last in ("people", "children", "men", "women") or (
            last.endswith("s") and not last.endswith(("ss", "us"))
        )


def phrases(text: str) -> list[Phrase]:
    """The names and noun phrases of a question or a short answer, in order, as far as words alone tell.

    >>> [(p.text, p.kind) for p in phrases("Does the Tower Bridge of London open for a large boat on Sundays?")]
    [('the Tower Bridge of London', 'name'), ('a large boat', 'a'), ('Sundays', 'name')]
    """
    words = list(_WORD.finditer(text))
    found: list[Phrase] = []
    at = 0
    while at < len(words):
        end = _run(words, at)
        if end > at:
            first = words[at][0].lower()
            head = words[at + 1 if first in _DETERMINERS else at]
            name = head[0][0].isupper() and (head.start() > 0 or len(words) == end)
            kind = "name" if name else first if first in _DETERMINERS else ""
            phrase = Phrase(
                text[words[at].start() : words[end - 1].end()], words[at].start(), words[end - 1].end(), kind
            )
            found.append(phrase)
        at = max(end, at + 1)
    return list(_joined(text, found))


def _run(words: Sequence[re.Match[str]], at: int) -> int:
    """Where the noun phrase that begins at a word ends; the same place if none begins there."""
    start = at
    if words[at][0].lower() in _DETERMINERS:
        at += 1
        start = at
    elif not _may_begin(words, at):
        return at
    capital = at < len(words) and words[at][0][0].isupper()
    while at < len(words):
        word = words[at][0]
        lower = not (word[0].isupper() or word[0].isdigit())
        if word.lower() in _FUNCTION or not word[0].isalnum() or (capital and lower):
            break
        if at > start and _verbal(word):
            break
        at += 1
    return at if at > start else start - (start > 0 and words[start - 1][0].lower() in _DETERMINERS)


def _may_begin(words: Sequence[re.Match[str]], at: int) -> bool:
    """Whether a phrase without a determiner may begin here: a name, or what follows a preposition or an auxiliary."""
    word = words[at][0]
    if word.lower() in _FUNCTION or not word[0].isalnum():
        return False
    if at == 0:
        return word[0].isupper() or word[0].isdigit()
    before = words[at - 1][0].lower()
    return word[0].isupper() or ((before in _PREPOSITIONS or before in _AUXILIARIES) and not _verbal(word))


def _verbal(word: str) -> bool:
    return word in _VERBS or (word.endswith("ed") and len(word) > 4)


def _joined(text: str, found: Sequence[Phrase]) -> Iterator[Phrase]:
    """Phrases that "of" connects are one: the Bridge of Sighs."""
    held: Phrase | None = None
    for phrase in found:
        if held is not None and text[held.end : phrase.start].lower() == " of ":
            held = Phrase(text[held.start : phrase.end], held.start, phrase.end, held.kind)
            continue
        if held is not None:
            yield held
        held = phrase
    if held is not None:
        yield held


# --- Pronouns --------------------------------------------------------------------------------------------------------

_PERSONS = _set("he she him her his")
_POSSESSIVES = _set("its his their")
POINTING = _set("it its he she him her his they them their there this that these those one ones and but so")
_PRONOUN = re.compile(r"\b(it|its|he|she|him|her|his|they|them|their|there|this|that|these|those)\b", re.IGNORECASE)


def depends(question: str) -> bool:
    """Whether a question seems to need what was said before: a pronoun without a phrase before it, or no verb.

    >>> [depends(q) for q in ("When was it built?", "And on Sundays?", "Why?", "When does the café open?")]
    [True, True, True, False]
    """
    if len(question) > _LONGEST:
        return False
    rest = _without_opening(question)
    return _bare(rest) or _fragment(question) is not None or _pronoun(rest) is not None


def _pronoun(question: str) -> re.Match[str] | None:
    """The first pronoun that points out of the question."""
    for match in _PRONOUN.finditer(question):
        word, after = match[0].lower(), question[match.end() :]
        following = _WORD.search(after)
        next_word = following[0].lower() if following else ""
        if word in ("this", "that", "these", "those") and next_word not in _AUXILIARIES and next_word.isalnum():
            continue  # "that fee", "the fee that is due"
        if word == "there" and question[: match.start()].lower().split()[-1:] in [[each] for each in _AUXILIARIES]:
            continue  # "is there a café"
        if word == "it" and re.search(r"\b(?:to|that|if|whether)\s+\w", after):
            continue  # "how much does it cost to join"
        if any(phrase.kind not in _POSSESSIVES for phrase in phrases(question[: match.start()])):
            return None
        return match
    return None


def _resolved(question: str, said: Said) -> str | None:
    """The question with its first pronoun replaced; None if it has none, or there is nothing to put there."""
    match = _pronoun(question)
    if match is None:
        return None
    antecedent = _antecedent(match[0].lower(), said)
    if antecedent is None:
        return None
    before, after = question[: match.start()], question[match.end() :]
    located = before.lower().endswith((" from ", " to ")) or antecedent.split()[0].lower() in _PREPOSITIONS
    if match[0].lower() == "there" and not located:
        antecedent = f"in {antecedent}"
    owner = ("'" if antecedent.endswith("s") else "'s") if _owns(match[0].lower(), after) else ""
    return before + antecedent + owner + after


def _owns(pronoun: str, after: str) -> bool:
    """Whether a pronoun is a possessive: "her" is one before a noun."""
    following = _WORD.search(after)
    noun = following is not None and following[0][0].isalnum() and following[0].lower() not in _FUNCTION
    return pronoun in _POSSESSIVES or (pronoun == "her" and noun)


def _antecedent(pronoun: str, said: Said) -> str | None:
    """What a pronoun stands for after what was said; None if that tells nothing."""
    looks = (_person, _somebody) if pronoun in _PERSONS else (_place,) if pronoun == "there" else (_thing,)
    plural = pronoun in ("they", "them", "their", "these", "those")
    for look in looks:
        for question, answer in reversed(said):
            asked = [each for each in phrases(question) if not _WHICH.search(question[: each.start])]
            short = _core(answer[:_LONGEST], question)
            if found := look(question, asked, short, plural):
                return found
    return None


def _core(answer: str, question: str) -> str:
    """A short answer itself, or the phrase that a sentence adds to the question; "" if there is none."""
    words = answer.strip(" .!?").lower().split()
    if words and len(words) <= _LONGEST_ANSWER and _AUXILIARIES.isdisjoint(words):
        return answer.strip(" .!?")
    first = next(iter(answer.splitlines()), "")
    new = [each for each in phrases(first) if each.text.lower() not in question.lower()]
    chosen = [each for each in new if each.kind == "name"][:1] or [each for each in new if each.kind][:1] or new[:1]
    return re.sub(r"^(The|A|An)\b", lambda match: match[0].lower(), chosen[0].text) if chosen else ""


def _person(question: str, asked: Sequence[Phrase], answer: str, plural: bool) -> str | None:
    """The answer if it is a name, or a name in the question without an article."""
    named = answer if answer and answer.split()[-1][0].isupper() else ""
    return named or _last([each.text for each in asked if each.kind == "name" and not each.text.startswith("the ")])


def _somebody(question: str, asked: Sequence[Phrase], answer: str, plural: bool) -> str | None:
    return _last([each.text for each in asked if each.kind])


def _place(question: str, asked: Sequence[Phrase], answer: str, plural: bool) -> str | None:
    place = answer if question.lower().startswith("where") else ""
    return place or _last([e.text for e in asked if e.kind == "name"]) or _last([each.text for each in asked])


def _thing(question: str, asked: Sequence[Phrase], answer: str, plural: bool) -> str | None:
    """A definite phrase of the question before its answer, and that before a bare word of the question."""
    fitting = [each for each in asked if each.plural == plural] or ([] if plural and answer else asked)
    definite = [each for each in fitting if each.kind and (each.kind != "name" or each.text.lower().startswith("the "))]
    chosen = [each for each in definite if each.kind == "name"][-1:] or definite[:1]
    if chosen:
        return _extended(question, chosen[0])
    asked_for = _WHAT.match(question) and not answer[:1].isdigit()
    bare = fitting[-1].text if fitting else ""
    return (answer if asked_for else "") or bare or answer or None


_WHICH = re.compile(r"\b(?:which|what|whose)\s+$", re.IGNORECASE)
_WHAT = re.compile(r"(?:what|which)\b(?!\s+(?:is|are|was|were)\b)", re.IGNORECASE)


def _extended(question: str, phrase: Phrase) -> str:
    """A phrase with what it is for: the late fee for a DVD."""
    for other in phrases(question):
        if other.start > phrase.end and question[phrase.end : other.start].lower() == " for ":
            return question[phrase.start : other.end]
    return phrase.text


def _last(texts: Sequence[str]) -> str | None:
    return texts[-1] if texts else None


# --- What was left out -----------------------------------------------------------------------------------------------


def _without_opening(question: str) -> str:
    """Without "And", "But so" and the like at the beginning."""
    rest = _OPENING.sub("", question, count=1)
    return rest if rest.strip(" ?!.") else question


def _bare(question: str) -> bool:
    return _BARE.fullmatch(question.strip(" ?!.")) is not None


def _fragment(question: str) -> str | None:
    """The new part in "And on Sundays?" or "What about films?"; None if it is a question of its own."""
    rest = _without_opening(question.strip())
    about = _ABOUT.match(rest)
    part = (rest[about.end() :] if about else rest).strip(" ?!.")
    words = part.lower().split()
    if not words or len(words) > 8:
        return None
    if words[0] in _PREPOSITIONS:
        part = part[:1].lower() + part[1:]
    if about:
        return part
    opened = len(rest) < len(question.strip()) or words[0] in _PREPOSITIONS
    asks = any(word in _ASKING or word in _AUXILIARIES for word in words)
    return part if opened and not asks else None


def _merged(part: str, question: str) -> str:
    """The earlier question with the new part in the place of the old one, or behind it."""
    end = len(question)
    while end and (question[end - 1].isspace() or question[end - 1] in "?!."):
        end -= 1
    stem, mark = question[:end], question[end:]
    first = part.split()[0].lower()
    old = phrases(stem)
    if first in _PREPOSITIONS:
        alike = _TIMES_AND_PLACES if first in _TIMES_AND_PLACES else {first}
        for phrase in reversed(old):
            before = re.search(r"(\w+)\s+$", stem[: phrase.start])
            if before and before[1].lower() in alike:
                return stem[: before.start()] + part + stem[phrase.end :] + mark
        return f"{stem} {part}{mark}"
    new = phrases(f". {part}")
    kind = new[0].kind if new else ""
    chosen = [each for each in old if each.kind == kind] or [each for each in old if each.kind] or old
    if not chosen:
        return f"{stem} {part}{mark}"
    place = chosen[-1]
    return stem[: place.start] + part + stem[place.end :] + mark


def _asked_again(bare: str, question: str) -> str:
    """The earlier question with another question word: "Why?" after "When does the café open?"."""
    asking = re.sub(r"(?<=why) (?:is|was) (?:that|this|it)$", "", bare.strip(" ?!."), flags=re.IGNORECASE)
    before = _ASKED.match(question)
    return f"{asking}{question[before.end() :]}" if before else f"{asking}: {question}"


# --- Names that were said in full ------------------------------------------------------------------------------------


def _in_full(question: str, said: Said) -> str:
    """The question with "the bridge" as "the Tower Bridge", if that was named before and no other name stands in it."""
    own = phrases(question)
    if any(phrase.kind == "name" for phrase in own):
        return question
    known = [name for one in reversed(said) for text in one for name in phrases(text) if name.kind == "name"]
    for phrase in own:
        words = phrase.text.split()
        if words[0].lower() not in ("the", "this", "that") or len(words) != 2:
            continue
        for name in known:
            full = re.sub(r"^(?:the|a|an)\s+", "", name.text, flags=re.IGNORECASE)
            if " " in full and full.split()[-1].lower() == words[1].lower():
                return f"{question[: phrase.start]}the {full}{question[phrase.end :]}"
    return question


def standalone(question: str, said: Said) -> str:
    """The question as one that needs none of what was said before: pairs of (question, answer), the latest last.

    Questions are those that were searched for, so that "it" still finds the bridge three turns later. The question
    comes back as it is if it depends on nothing, or on nothing that is found, and if it is longer than 300 characters.
    Earlier questions of more than 1000 characters are passed over.
    """
    if not said or len(question) > _LONGEST:
        return question
    said = [(asked if len(asked) <= _LONGEST_SAID else "", answer) for asked, answer in said]
    rest, latest = _without_opening(question.strip()), said[-1][0]
    if not latest and (_bare(rest) or _fragment(question) is not None):
        return question
    part = _fragment(question)
    if _bare(rest):
        new = _asked_again(rest, latest)
    elif part is not None:
        new = _merged(part, latest)
    elif _pronoun(rest) is not None:
        resolved = _resolved(rest, said)
        if resolved is None:
            return question
        new = resolved
    else:
        new = _in_full(rest, said)
        if new == rest:
            return question
    return new[:1].upper() + new[1:]
