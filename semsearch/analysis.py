"""Text → the tokens that keyword search compares.

Unicode NFKC, words, lower case, Snowball stemming by language (Porter, "Snowball: A language for stemming algorithms",
2001). Scripts that are written without spaces give pairs of neighbouring letters, each with its vowel signs and tone
marks; single characters where those are words or syllables (Han, Hangul); and a word in Katakana as a whole. An
identifier, a version or a dotted name gives itself and its parts: `max_tokens` → max_tokens, max, token; `getValue2` →
getvalue2, get, valu, 2; `v3.11` → 3.11, 3, 11. An acronym loses its points: `U.S.A.` → usa.

What was measured (nDCG@10, of 100; lexical index with its defaults; examples/benchmarks/analyzers.py):

    scifact (train) / cranfield / cisi / medline / openqa / cosqa (code)
    no stemming                        68.2 / 39.9 / 35.6 / 67.3 / 82.7 / 37.5
    stemming                           70.9 / 42.5 / 37.7 / 69.0 / 85.4 / 39.2
    function words dropped in queries  70.9 / 43.5 / 40.8 / 69.9 / 85.5 / 39.1
    … letters and digits not parted    69.9 / 43.5 / 40.8 / 70.1 / 85.5 / 38.9
    … and acronyms taken to pieces     69.9 / 43.5 / 39.6 / 70.1 / 85.5 / 38.9
    hyphenated words whole, too        less in three of the five, by up to 1.2: not done

    help pages in 20 European and other languages, by title / first paragraph / index entry, mean
    no stemming                        49.2 / 47.6 / 47.3
    stemming                           55.1 / 51.7 / 57.5, more in each language by 0.6 to 18
    function words dropped in queries  55.3 / 52.8 / 57.5, more by first paragraph in each, by 0.5 to 2.2

    cmrc2018 / drcd (Chinese) / jaquad (Japanese); help pages in Japanese / Khmer / Korean, mean of the three
    pairs of neighbours only           98.7 / 97.0 / 91.1; 54.5 / 51.8 / 54.2
    every single character, too        98.9 / 97.4 / 91.9; 56.3 / 51.1 / 55.1
    as it is                           98.9 / 97.4 / 92.3; 57.3 / 56.0 / 54.7
    Runs of three are less than pairs by 6 to 12 in Japanese, Korean and Chinese.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from functools import cache, lru_cache

from semsearch.errors import InputError

__all__ = ["Analyzer", "get_analyzer"]

RULES = 2  # raised whenever the same text gives other tokens

# No natural word is longer. Encoded data is cut, so that neither tokens nor the time of stemming grow with it.
LONGEST = 64
CACHED = 1 << 16
MOST_SEAMS = 5  # a digest in hexadecimal digits is not taken to pieces

# The commonest words of each language of Snowball's, most frequent first: they say nothing about a passage, but much
# about its language. "if", "not" and "all" are not among the English ones: in questions about code they do.
FUNCTION_WORDS = {
    "arabic": "في من على أن إلى ما لا هذا عن التي مع كان الذي هو أو ذلك هذه كل قد لم كما بين وفي ولكن إن هي بعد أي"
    " وقد جميع به له بها وهو ومن",
    "armenian": "և է են որ իր մի այդ ու այն համար կամ ունի էր չի որը պետք հետ բոլոր նաև ամեն իրենց բայց եւ",
    "basque": "eta da ez bat du ere egin izan zen dute den duen baina hori edo dira dela beste bere behar hau batean"
    " gabe",
    "catalan": "de la i el que a en les per un els amb del una és no al com més es s ha dels o però d l seva seu"
    " aquest són aquesta pel als sense tot ser també",
    "czech": "a v se na je že s z do o to i k ve pro za by ale si jako podle po od jsou které který jeho nebo být"
    " byl při ze co má tak není již aby této",
    "danish": "og i at det er en til af på som for med den der ikke de han et har om jeg var fra men sig vi kan være"
    " hun eller efter blev også over skal nu du dem ved så hvis mod",
    "dutch": "de van het een en in is op te dat die met voor zijn niet aan er om ook als dan maar bij of uit nog"
    " naar door over ze hij wordt worden werd deze kan heeft hebben tot had",
    "english": "the of and to a in is that it was for on are with as be by at this have from or an but which you he"
    " they were his has what we can had their there i been do will would who so my me your our her him she its them"
    " how why does did could should these those here whom than then into about am being doing having such s t",
    "esperanto": "la de kaj en estas al ne ke por kun pri li mi el ĝi aŭ sed oni tiu estis per kiel tio ili kiu ĉiu"
    " havas sia pli ankaŭ",
    "estonian": "ja on ei et see kui oli ning ka või aga mis ma ta oma nii kes siis selle seda ole välja üle pärast"
    " veel kõik võib olema",
    "finnish": "ja on ei että se oli en ovat mutta kun hän niin kuin myös tai sekä jos sen joka mitä ole jotka voi"
    " olla hänen jo vain kaikki mukaan tämä nyt",
    "french": "de la le et les des en un du une que est pour qui dans par plus pas au sur ne se ce il sont avec ou"
    " son l d à aux s cette a mais comme nous sa être ses leur",
    "german": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden"
    " aus er hat dass sie nach wird bei einer um am sind noch wie einem über einen so zum war oder",
    "greek": "και το να του η της με που την από για τα είναι των σε ο οι στο θα τη στην τον δεν τους τις ένα μια"
    " ότι ή στη έχει",
    "hindi": "के में की है और से का को पर ने कि यह हैं भी एक नहीं तो इस लिए था या हो जो कर अपने वह उसके ही द्वारा",
    "hungarian": "a az és hogy nem is egy van ez meg csak de azt ha volt vagy el mint már még minden kell ki lehet"
    " ezt azonban",
    "indonesian": "yang dan di dengan untuk ini itu dari dalam pada tidak adalah akan oleh atau juga ke sebagai"
    " karena dapat lebih telah ada setiap bahwa mereka tersebut",
    "irish": "an na agus a ar i is go le ag do bhí mar sé atá gur níl sa nó ní de tá chun leis gach nach faoi ach"
    " sin féin",
    "italian": "di e il la che in un a per è una del non sono con le della i si dei da al gli come più nel anche"
    " alla o lo ha ma l su se delle dal questo essere",
    "lithuanian": "ir kad su į iš yra tai o kaip bet ne už apie nuo ar jo per dėl jos buvo tik savo prie jis taip"
    " pat turi arba",
    "nepali": "छ र को मा ले भएको पनि हो गर्न लागि यो तथा छन् एक भने नै हरेक वा गरेको प्रत्येक हुन",
    "norwegian": "og i det er en til av på som for med at den ikke de han et har om jeg var fra men seg vi kan være"
    " hun eller etter ble også over skal nå du dem ved så hvis dette mot",
    "persian": "و در به از که را این با است برای آن یک بر هر تا می شود یا خود هم ها شد دارد نیز باید آنها اما",
    "polish": "w i na z się do nie że jest o to a jak od po przez za ale dla ma co czy być lub oraz ich jego był"
    " które który tym jako są tego jej może pod ze",
    "portuguese": "de a o que e do da em um para com não uma os no se na por mais as dos como mas ao ele das à seu"
    " sua ou quando muito nos já eu também só pelo pela até isso ser foi são tem",
    "romanian": "de și în a la cu care pe nu o un din pentru că este mai sunt se ce ca au fost prin sau cel lui ale"
    " dar după al fi unei unui să",
    "russian": "и в не на что с по как из у за от о к для это или а но его он так же все то бы был при их до быть"
    " только может которые также если",
    "serbian": "i je u da se na su za od sa ne o s koji kao što iz će bi ali ili koje to biti a svi ima nije do koja"
    " po ako и је у да се на су за од са не о с који као што из ће би али или које то бити а сви има није до која по"
    " ако",
    "sesotho": "le ea ho a ka ke e ba hore ha o tsa la mo na bo ya se tse hae re kapa sa empa motho",
    "spanish": "de la que el en y a los del se las por un para con no una su al es lo como más o pero sus le ha me"
    " si sin sobre este ya entre cuando todo esta ser son también fue",
    "swedish": "och i att det är en till av på som för med den de inte han ett har om jag var från men sig vi kan"
    " hon eller efter blev också över ska nu du dem vid så vara detta skall mot",
    "tamil": "மற்றும் ஒரு இந்த என்று அவர் என இது அந்த உள்ள வேண்டும் இல்லை அல்லது எந்த அது ஆகும் தான் கொண்டு",
    "turkish": "ve bir bu de da için ile olarak olan çok daha en ne gibi kadar sonra ama her ki veya o değil var ya"
    " hem göre tarafından ise",
    "yiddish": "און די פון אין איז צו מיט אַ דער דאָס זיי ער נישט ניט האָבן האָט אויף וואָס וי אַז פֿון צום קען",
}

# Thai, Lao, Burmese, Hangul, Khmer, Kana, Bopomofo and Han: written without spaces, or with endings that stick.
SPACELESS = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3031-\u3035\u303b\u3041-\u309f\u30a1-\u30fa"
    "\u30fc-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff"
    "\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
_SPACELESS = re.compile(f"[{SPACELESS}]")
# Characters that are words or syllables: Han and Hangul. A single letter of another script says nothing.
_WORDLIKE = re.compile("[\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff]")
_KATAKANA = re.compile("[\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff]{3,}")
# Soft hyphens, joiners, marks of direction and variation selectors: they change how a word looks, not which it is.
_INVISIBLE = re.compile("[\u00ad\u200d-\u200f\u2060\ufe00-\ufe0f\ufeff\U000e0100-\U000e01ef]+")
_LONG_RUNS = re.compile(r"([^\x00-\u02ff\w]{30})[^\x00-\u02ff\w]+")
BEYOND = r"(?=[^\x00-\x7f])"
_JOINTS = re.compile(r"[._]+")
_HUMPS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_SEAMS = re.compile(rf"{_HUMPS.pattern}|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])")
_VERSION = re.compile(r"[vV](?=\d+\.\d)")
_ACRONYM = re.compile(r"[^\W\d_](?:\.[^\W\d_]){1,15}")


class Analyzer:
    """Turns text into tokens, in time linear in its length. Any string is fine, lone surrogates and NUL included.

    `language` is one that Snowball knows, or "none" (no stemming). Call it with a passage; use `query` for a question.

    >>> Analyzer()("The fees of os.path: 3.11")
    ['the', 'fee', 'of', 'os.path', 'os', 'path', '3.11', '3', '11']
    >>> Analyzer("none")("図書館 hours")
    ['図書', '書館', '図', '書', '館', 'hours']

    Raises InputError for a language that is not known.
    """

    def __init__(self, language: str = "english") -> None:
        import snowballstemmer

        if language != "none" and language not in snowballstemmer.algorithms():
            known = ", ".join([*snowballstemmer.algorithms(), "none"])
            raise InputError(f"There is no analyzer for {language!r}. Choose one of {known}.")
        self.language = language
        self._local = threading.local()  # a stemmer has state
        self._remembered = lru_cache(CACHED)(self._tokens)
        self._function_words = frozenset(self(FUNCTION_WORDS.get(language, "")))

    def __call__(self, text: str) -> list[str]:
        """The tokens of a passage, in order; a word that has parts comes before them."""
        tokens: list[str] = []
        remembered = self._remembered
        for word in word_pattern(text.isascii()).findall(text if text.isascii() else _normal(text)):
            tokens.extend(remembered(word) if len(word) <= LONGEST else self._tokens(word))
        return tokens

    def query(self, text: str) -> list[str]:
        """The tokens of a question: without function words ("what is the …"), unless there is nothing else.

        >>> Analyzer().query("What is the fee?"), Analyzer().query("to be")
        (['fee'], ['to', 'be'])
        """
        tokens = self(text)
        return [token for token in tokens if token not in self._function_words] or tokens

    def fingerprint(self) -> dict[str, str | int]:
        """What must be equal for tokens to be equal: the language, the version of these rules and Snowball's."""
        from importlib.metadata import version

        return {"language": self.language, "rules": RULES, "snowball": version("snowballstemmer").split(".")[0]}

    def __repr__(self) -> str:
        return f"Analyzer({self.language!r})"

    def __reduce__(self) -> tuple[type[Analyzer], tuple[str]]:
        return (type(self), (self.language,))

    def _tokens(self, word: str) -> tuple[str, ...]:
        if _SPACELESS.match(word):
            return _spaceless(word)
        word = word.replace("’", "'").replace(",", "")  # a comma only joins the thousands of a number
        plain = word.rstrip("+#")
        if _ACRONYM.fullmatch(plain):
            return (self._lower(plain.replace(".", "")),)
        if _VERSION.match(plain):
            word, plain = word[1:], plain[1:]
        pieces = _JOINTS.split(plain)
        wholes = [self._lower(plain)] if len(pieces) > 1 else []
        if word != plain:
            wholes.append(self._lower(word))  # c++, c#
        parts = [token for piece in pieces for token in self._parts(piece)]
        return (*(whole for whole in wholes if len(whole) <= LONGEST), *parts)

    def _parts(self, piece: str) -> list[str]:
        parts = _SEAMS.split(piece)
        if len(parts) > MOST_SEAMS + 1:
            parts = _HUMPS.split(piece)
        words = [piece, *parts] if len(parts) > 1 else parts
        return [token for word in words for token in self._stems(self._lower(word))]

    def _stems(self, word: str) -> list[str]:
        if len(word) > LONGEST:
            return [word[i : i + LONGEST] for i in range(0, len(word), LONGEST)]
        # Snowball knows what an apostrophe means in its language (library's, l'école); one that it leaves parts words.
        stem = self._stem(word)
        return [self._stem(part) for part in stem.split("'") if part] if "'" in stem else [stem]

    def _lower(self, word: str) -> str:
        return (word.replace("I", "ı").replace("İ", "i") if self.language == "turkish" else word).lower()

    def _stem(self, word: str) -> str:
        if self.language == "none":
            return word
        if not hasattr(self._local, "stem"):
            import snowballstemmer

            self._local.stem = lru_cache(CACHED)(snowballstemmer.stemmer(self.language).stemWord)
        return str(self._local.stem(word))


def get_analyzer(spec: str | Analyzer | None = None) -> Analyzer:
    """An analyzer by language; None is English, and an analyzer is itself.

    >>> get_analyzer("german")
    Analyzer('german')
    """
    if isinstance(spec, Analyzer):
        return spec
    if spec is None or isinstance(spec, str):
        return Analyzer(spec or "english")
    raise InputError(f"{spec!r} is no analyzer. Give a language by name ('english', 'none', …) or an Analyzer.")


def _normal(text: str) -> str:
    # NFKC sorts a run of combining marks in quadratic time. No word has thirty in a row (UAX #15, "stream-safe text").
    return unicodedata.normalize("NFKC", _LONG_RUNS.sub(r"\1", _INVISIBLE.sub("", text)))


def _spaceless(run: str) -> tuple[str, ...]:
    """The tokens of a run of letters of a script without spaces: pairs of neighbours, words of one character."""
    letters = run if run.isalnum() else letter_pattern().findall(run)
    pairs = [letters[i] + letters[i + 1] for i in range(len(letters) - 1)]
    wholes = [word for word in _KATAKANA.findall(run) if len(word) <= LONGEST]
    return (*pairs, *_WORDLIKE.findall(run), *wholes) or (run,)


@cache
def letter_pattern() -> re.Pattern[str]:
    """A letter of a script without spaces with the vowel signs and tone marks that belong to it."""
    codes = [*range(0xE00, 0xF00), *range(0x1000, 0x10A0), *range(0x1780, 0x1800), 0x3099, 0x309A]
    marks = "".join(chr(code) for code in codes if unicodedata.category(chr(code)) in ("Mn", "Mc"))
    return re.compile(f".[{marks}]*", re.DOTALL)


@cache
def word_pattern(ascii_only: bool) -> re.Pattern[str]:
    """What is looked at as one word: letters, marks and digits with joints in between, or a run without spaces."""
    if ascii_only:
        letters = "[a-zA-Z0-9]+"
    else:
        # Large character classes are slow, so that they are tried only where a character is not ASCII.
        letter = rf"[^\W_{SPACELESS}]"
        rest = rf"{letter}*(?:[{combining_marks()}]+{letter}*)*"
        letters = rf"(?:[a-zA-Z0-9]+(?:{BEYOND}{rest})?|{BEYOND}{letter}{rest})"
    joints = r"[._]+|['’]|(?<=\d),(?=\d{3}(?!\d))"
    word = rf"{letters}(?:(?:{joints}){letters})*(?:(?:\+\+|\#)(?!\w))?"
    return re.compile(word if ascii_only else rf"{word}|{BEYOND}[{SPACELESS}]+")


@cache
def combining_marks() -> str:
    """Combining marks, as the inside of a character class: Python's `\\w` lacks them and would cut words there."""
    spaceless = re.compile(f"[{SPACELESS}]")
    codes = [*range(0x300, 0x3400), *range(0xA000, 0xAC00), *range(0xFB00, 0xFE30), *range(0x10000, 0x1F000)]
    marks = (chr(code) for code in codes if unicodedata.category(chr(code)) in ("Mn", "Mc"))
    return "".join(mark for mark in marks if not spaceless.match(mark))
