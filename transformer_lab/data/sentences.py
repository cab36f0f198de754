"""Where sentences end, in any language.

What ends a sentence is Unicode's to say (Sentence_Break=STerm and ATerm, Unicode Standard Annex 29, of the library
`regex`). Most of these marks do nothing else. The full stop also closes abbreviations, initials and ordinals: it ends
a sentence by what stands around it, with short lists for the languages that write most of those. No language is asked
for, so texts may mix them.
"""

import hashlib
import json
from collections.abc import Iterator
from functools import cache
from itertools import pairwise, takewhile
from typing import Any

import regex

RULES = 1  # raised whenever the functions of this file change so that they find other sentences


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# What may end a sentence, with the quotes, brackets and footnotes that close behind it, and the space that follows.
# The Greek question mark (U+037E) looks like a semicolon, and any text that was normalized has that in its place.
END = regex.compile(
    r"""(?P<mark>[\p{SB=STerm}\p{SB=ATerm}…;\u037e]+)
        (?P<close>(?:["'\p{Pe}\p{Pf}]|\p{Pi}(?=[\s\p{P}]|$)|\[\d+\]|[ \u00a0\u202f]»)*)
        (?P<space>\s*)""",
    regex.VERBOSE,
)
OPENING = regex.compile(r"""["'\p{Ps}\p{Pi}\p{Pf}¿¡]*\p{Cf}*""")
NEWLINE = r"(?>\r\n|[\n\r\u0085\u2028])"
BLANK = regex.compile(rf"{NEWLINE}[^\S\n\r]*{NEWLINE}|\u2029")  # a line without text, or a paragraph's end
LINE = regex.compile(rf"{NEWLINE}|\u2029")
GOES_ON = regex.compile(r"[\p{SB=SContinue}\p{SB=STerm}\p{SB=ATerm}…/]")  # a sentence does not begin with these
WIDE = regex.compile(r"[\p{SB=STerm}\p{SB=ATerm}&&\p{East_Asian_Width=W}\p{East_Asian_Width=F}｡]", regex.V1)
GREEK, LATIN = regex.compile(r"\p{Greek}"), regex.compile(r"\p{Latin}")
UNCASED = regex.compile(r"\p{Lo}")  # a letter of a writing without capitals
# Thai and Lao end a sentence with a space, which they have within sentences too, but not between words.
SPACE = regex.compile(r"(?<=[\p{Thai}\p{Lao}&&[\p{L}\p{M}--ๆฯໆ]])\s+(?=[\p{Thai}\p{Lao}&&[\p{L}--ๆฯໆ]])", regex.V1)
CAPITAL, WORD = regex.compile(r"\b\p{Lu}"), regex.compile(r"\b[\p{Lu}\p{Ll}]")
FEW = 50  # a text of which fewer than one word in so many begins with a capital is in lower case
MOST = 0.9  # share of the lines that end as sentences do where each is one

LETTER = regex.compile(r"\p{L}\p{M}*")
LETTERS = regex.compile(r"(?:\p{L}\p{M}*\.)+(?:\p{L}\p{M}*)?")  # p.m, z.B
SPELT = regex.compile(r"[\p{L}\p{M}]+۔(?=\p{L})")  # Urdu: پی۔ایچ۔ڈی, PhD
SMALL = regex.compile(r"(?:.*[–—-])?\d{1,2}")  # a number, or what it ends
MONTH_AND_YEAR = regex.compile(r"(?:0?[1-9]|1[0-2])\. ?\d{4}")
YEAR = regex.compile(r"\d{4}\b")
# Abbreviations of English, German and others, without their full stop; a first letter that is small here may be a
# capital in the text.
SHORT = _set(
    """
    Mr Mrs Ms Messrs Dr Prof Rev Hon Gen Col Maj Capt Cmdr Lt Sgt Sen Rep Gov Pres St st Mt Ft vs cf viz approx esp
    incl Hr Hrn Fr Frl Fa med jur phil nat Dipl Ing Mag Univ Skt bzw ca vgl evtl ggf ggfs inkl exkl zzgl abzgl bspw
    sog insb insbes entspr allg geb gest verh ehem verw röm kath griech engl dt franz österr schweiz mind Nr Tel str
    Abb Bd Bde Hrsg hrsg Jh Jhd Abs Anm Aufl Kap Mio Mrd Tsd Mme Mlle Mgr MM Sr Sra Srta Dra Ud Uds EE Lic Avda Sig
    Dott ul im św tzw np tj prof inż mgr ks płk mjr zm См им ул просп проф акад тов тыс напр ред изд вул ім див Doç
    Yrd Av Sn Alb TP ThS TS GS PGS BS Jl Drs Hj Δρ βλ திரு
    """
)
# Only in front of a number: parts of books, and of dates those that CLDR, or a newspaper, shortens with a full stop.
SHORT_BEFORE_NUMBER = _set(
    """
    no nos al max min p pp vol vols fig figs ch chap sec art ed eq tab thm ext rys rozdz ust стр рис гл табл σελ αρ
    τηλ hlm எண் Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec Jän Mär Okt Dez Mon Tue Tues Wed Thu Thur Thurs Fri
    Sat Sun janv févr avr juil sept oct nov déc lun mar mer jeu ven sam dim tgl янв февр мар апр июн июл авг сент
    окт нояб дек січ лют бер квіт трав черв лип серп вер жовт лист груд ஜன பிப் மார் ஏப் ஜூன் ஆக செப் அக் நவ டிச
    ஞாயி திங் செவ் புத வியா வெள்
    """
)
SHORT_UNITS = _set("ம மாத வார நிமி விநா மி")  # behind one, in Tamil, where no capital tells more
# German writes ordinals with a full stop, and all nouns with a capital: 3. März, das 21. Jahrhundert, 2. Quartal.
MONTHS = _set(
    """
    Januar Jänner Februar Feber März April Mai Juni Juli August September Oktober November Dezember Jan Feb Mär Apr
    Jun Jul Aug Sep Sept Okt Nov Dez January February March Mar May June July October Oct December Dec
    """
)
COUNTED = MONTHS | _set("Quartal Jahrhundert Jahrtausend Weltkrieg Semester Klasse Liga Stock Auflage Kapitel Dünya")
AND_SO_ON = _set("т.д т.п")  # Russian and Ukrainian; often the end of a sentence
BEFORE_ORDINAL = _set(
    """
    der die das den dem des im am vom zum zur beim ins ans jeder jede jedes jeden jedem dieser diese dieses diesen
    diesem sein seine seinen seinem seiner ihr ihre ihren ihrem ihrer mein meine meinen meinem meiner unser unsere
    unseren montag dienstag mittwoch donnerstag freitag samstag sonnabend sonntag
    """
)


def sentences(text: str) -> list[str]:
    """The sentences of a text in their order, without the white space between them."""
    borders = [0, *sorted({*_borders(text)}), len(text)]
    return [part for begin, end in pairwise(borders) if (part := text[begin:end].strip())]


def cache_key() -> dict[str, Any]:
    """Facts that change when other sentences would come out: every constant of this file, and Unicode's tables."""
    constants = {name: getattr(value, "pattern", value) for name, value in globals().items() if name.isupper()}
    rules = hashlib.sha256(json.dumps(constants, default=sorted).encode()).hexdigest()
    return {"sentences": rules, "regex": regex.__version__}


def _borders(text: str) -> Iterator[int]:
    lower = FEW * len(CAPITAL.findall(text)) < len(WORD.findall(text))
    for found in END.finditer(text):
        if _ends(text, found, lower):
            yield found.end()
    for pattern in (LINE if _a_sentence_a_line(text) else BLANK, SPACE):
        yield from (found.end() for found in pattern.finditer(text))


def _a_sentence_a_line(text: str) -> bool:
    """Whether (nearly) every line ends as sentences do; or no sentence ends, so that lines are all there is."""
    lines = [line for line in LINE.split(text) if line.strip()]
    ends = sum(any(found.end() == len(line) for found in END.finditer(line)) for line in lines)
    return len(lines) > 1 and (ends >= MOST * len(lines) or not END.search(text))


def _ends(text: str, found: regex.Match[str], lower: bool) -> bool:
    """Whether a sentence ends with this mark; `lower`: the text is in lower case."""
    mark, close, space = found["mark"][-1], found["close"], found["space"]
    opening = OPENING.match(text, found.end())
    assert opening is not None
    start = opening.end()  # of what might be the next sentence
    first = text[start : start + 1]
    if not first or GOES_ON.match(first):
        return False
    if WIDE.match(mark):  # … but: 「…。」と, says he; ３．５
        return not (close and first in "とっ") and not (mark == "．" and first.isdigit())
    if mark == "۔" and not space and (mark in _words(text, found.start())[-1] or SPELT.match(text, found.end())):
        return False
    if mark not in "!?.…․;\u037e":  # has no other use
        return True
    if not space:
        return mark in "!?" and bool(UNCASED.match(first))
    if first.islower() and not lower and not text[start + 1 : start + 2].isupper():  # but: iPhones
        return False
    if mark in ";\u037e":
        around = text[max(0, found.start() - 80) : found.start()]
        return len(GREEK.findall(around)) > len(LATIN.findall(around))
    return mark not in ".․" or len(found["mark"]) > 1 or not _abbreviates(text, found, start, lower)


def _abbreviates(text: str, found: regex.Match[str], start: int, lower: bool) -> bool:
    """Whether this full stop belongs to the word before it; what follows begins at `start`."""
    *others, word = _words(text, found.start())
    if found["close"] or not word:
        return False
    first = text[start]
    capital, number = first.isupper(), first.isdigit()
    if SMALL.fullmatch(word):  # an ordinal, a date, the number of an item
        last = others[-1] if others else ""
        known = any(_is_of(last[:-1], words, lower) for words in (SHORT, SHORT_BEFORE_NUMBER))
        if not last or (END.fullmatch(last[-1]) and not known):
            return True
        if number:
            return bool(MONTH_AND_YEAR.match(text, start))
        if last.rstrip(".").title() in MONTHS:  # March 3. April came.
            return False
        return _word_at(text, start).title() in COUNTED or (capital and last.rstrip(",").lower() in BEFORE_ORDINAL)
    while others and LETTER.fullmatch(word) and LETTER.fullmatch(others[-1].rstrip(".")) and others[-1].endswith("."):
        word = others.pop() + word  # z. B, p. m
    measured = bool(others) and others[-1][-1:].isdigit()
    if LETTER.fullmatch(word) or LETTERS.fullmatch(word):
        ends = measured and word not in SHORT_UNITS and not first.islower()  # it was 5 m. It was 3 p.m.
        return not ends and not (capital and word in AND_SO_ON)
    if _is_of(word, SHORT, lower):
        return True
    if number:  # a day before it: then only a year can be of the same date
        known = _is_of(word, SHORT_BEFORE_NUMBER, lower) or word.endswith("str")  # Hauptstr. 5
        return known and (not measured or bool(YEAR.match(text, start)))
    return word in SHORT_UNITS


def _is_of(word: str, words: frozenset[str], lower: bool) -> bool:
    return word in words or word[:1].lower() + word[1:] in words or (lower and word in _lowered(words))


@cache
def _lowered(words: frozenset[str]) -> frozenset[str]:
    return frozenset(word.lower() for word in words)


def _word_at(text: str, start: int) -> str:
    return "".join(takewhile(str.isalpha, text[start : start + 20]))


def _words(text: str, end: int) -> list[str]:
    """Up to five words before this place and of its line, the last one without what opens before it; at least one."""
    line = LINE.split(text[max(0, end - 80) : end])[-1]
    words = line.split()[-5:] if line and not line[-1].isspace() else [""]
    return [word[OPENING.match(word).end() :] for word in words]
