"""Twenty languages of ten scripts: texts of the CLDR's phrases in sentences whose borders are known, and real ones.

`table()` is what docs/languages.md shows.
"""

import random
from functools import cache

import pytest
import regex

from transformer_lab.data.segments import sentences
from transformer_lab.data.sources.phrases import Phrases
from transformer_lab.data.tokenizers import ByteBPE, Bytes, Characters, TokenizerTrainer, Unigram, WordPiece

# What ends a sentence, the first of them three times in four; what parts its phrases; what stands between sentences.
LATIN = (".!?", ", ", " ")
LANGUAGES = {
    **dict.fromkeys(("en", "de", "fr", "es", "pl", "tr", "vi", "id", "ru", "uk"), LATIN),
    "el": (".!;", ", ", " "),
    "he": LATIN,
    **dict.fromkeys(("ar", "fa"), (".!؟", "، ", " ")),
    "ur": ("۔!؟", "، ", " "),
    **dict.fromkeys(("hi", "bn"), ("।!?", ", ", " ")),
    "ta": LATIN,
    **dict.fromkeys(("ja", "zh"), ("。！？", "、", "")),
}
QUOTES = {"de": "„“", "fr": "«»", "ru": "«»", "uk": "«»", "el": "«»", "fa": "«»", "pl": "„”", "ja": "「」", "zh": "“”"}
EVERY = pytest.mark.parametrize("language", LANGUAGES)
# One to a line. Abbreviations, initials, ordinals, dates, numbers and addresses have full stops that end no sentence.
REAL = {
    "en": """Dr. Smith met Mr. J. R. Jones at 5 p.m. on Jan. 5, 1990.
        "Is that so?"
        The U.S. Army paid $3.5 million (approx. €3 million) for it.
        See Fig. 3, pp. 4–5, or https://example.com/a?b=c.d for more.
        (It was 3.14, i.e. about pi.)
        E.g. apples vs. pears, cf. No. 5 of St. John's list.
        Really?!
        iPhones sell well …
        Then came the end.[3]
        Mr. Brown lives at 221B Baker St. in London.
        He was born on Oct. 3, 1980 in Washington, D.C. and moved.
        "Why?" she asked.
        We use Python 3.11.2 and e.g. NumPy 1.2.
        Prof. Dr. A. Einstein, Ph.D., was there.
        It costs approx. 5 dollars.
        They left at 10 a.m. on Monday.
        He scored 3.
        Then he left.
        I met Gov. Smith, Sen. Jones, Rep. Doe and Gen. Lee.
        The U.N. Security Council met.
        Chapter 5.
        We like apples, oranges, etc. and more.
        Smith et al. (2019) say so.
        Vitamin C is good.
        It rained.""",
    "de": """Dr. Müller kam am 3. März um 8.30 Uhr.
        Ärger gab es z. B. mit Nr. 5 bzw. mit Hrn. Ö. Schmidt.
        Überall, d. h. im 21. Jahrhundert, lag ca. 5 cm Schnee.
        „Öffnen Sie!“
        Am Montag, 5. Mai, zahlte er 3,5 Mio. Euro, vgl. Abb. 3.
        Der 2. Weltkrieg war vorbei, u. a. in Berlin.
        Änderungen vom 3. 12. 2020 stehen auf S. 5, Abs. 2.
        Am 3. Oktober 1990 war es so weit.
        Herr Prof. Dr. med. Meier kam um 9.15 Uhr.
        Kaiser Wilhelm II. regierte bis 1918.
        Das kostet ca. 20 Euro, d. h. ca. 22 Dollar.
        Es gibt z.B. Äpfel, u.a. auch Birnen.
        Er wohnt in der Hauptstr. 5 in St. Gallen.
        Das 19. Jahrhundert begann.
        „Ist das so?“, fragte sie.
        Er kam am 1. Mai.
        Danach ging er.
        Im 2. Stock wohnt Fr. Schulz.
        Die 1. Bundesliga spielt.
        Max. 5 Personen, mind. 2 Kinder.
        Ende Dez. kommt er.
        Kam er?
        Ökonomen sagten ja.""",
    "fr": """M. Dupont est né en 1990.
        « Où êtes-vous ? »
        Elle répondit : « Ici ! »
        Écoutez, Mme Curie est arrivée à 8 h.
        À bientôt…
        Était-ce vrai ?""",
    "es": """¿Dónde está el Sr. García?
        ¡Aquí!
        Él llegó a las 3:00 p. m. del lunes.
        Ésa es la casa de la Dra. Ruiz.
        Los EE. UU. firmaron.
        Últimamente llueve.""",
    "pl": """Prof. Żak mieszka przy ul. Długiej 5.
        Środa, np. 3 maja, jest wolna.
        Czy to prawda?
        „Świetnie!”
        Łódź leży w Polsce.
        W 2024 r. było ciepło.""",
    "tr": """İstanbul çok büyük.
        Şimdi ne yapacağız?
        Çok güzel!
        Dr. Öztürk 19. yüzyılda yaşadı.
        Ülke 2. Dünya Savaşı'na girmedi.
        Işık söndü.""",
    "vi": """Ông ấy sống ở TP. Hồ Chí Minh.
        Đây là gì?
        Ở đâu cũng vui!
        Ăn cơm chưa?
        Ấy là năm 1975.""",
    "id": """Ia tinggal di Jl. Sudirman No. 5.
        Apa kabar?
        Baik!
        Harganya Rp3.500.
        Pukul 08.30 ia pergi.""",
    "ru": """Он родился в 1990 г. в г. Москве.
        Ёлка стояла у окна.
        «Где вы?»
        См. рис. 5 и стр. 7.
        А. С. Пушкин писал стихи и т. д.
        Это было в 5 ч. утра!""",
    "uk": """Він народився 1990 р. у м. Києві.
        Їжак спав.
        «Де ви?»
        Є й інші.
        І. Я. Франко жив там.
        Ґава полетіла!""",
    "el": """Πού είναι;
        Δεν ξέρω· ίσως εδώ.
        Ήρθε στις 3:00 μ.μ. με τον κ. Παπά.
        «Έλα!»
        Γιατί όχι\u037e
        Ώρα να πάμε.""",
    "he": """הוא הלך הביתה.
        מה שלומך?
        טוב מאוד!
        ד״ר כהן גר בת״א.
        המחיר 3.5 שקלים.
        "בוא הנה."
        סוף.""",
    "ar": """ذهب الولد إلى المدرسة.
        ما اسمك؟
        اسمي د. أحمد.
        رائع!
        السعر 3.5 ريال.
        «تعال.»
        انتهى.""",
    "fa": """او به خانه می‌رود.
        نام شما چیست؟
        خوب است!
        قیمت ۳٫۵ تومان است.
        «بیا.»
        پایان.""",
    "ur": """یہ میرا گھر ہے۔
        آپ کا نام کیا ہے؟
        بہت خوب!
        اس نے پی۔ایچ۔ڈی کی۔
        قیمت 3.5 روپے ہے۔""",
    "hi": """यह मेरा घर है।
        आपका नाम क्या है?
        डॉ. राम आए।
        बहुत अच्छा!
        कीमत 3.5 रुपये है।
        “आओ।”
        समाप्त॥""",
    "bn": """এটা আমার বাড়ি।
        আপনার নাম কী?
        ডা. রহমান এলেন।
        খুব ভালো!
        দাম ৩.৫ টাকা।""",
    "ta": """இது என் வீடு.
        உங்கள் பெயர் என்ன?
        மு. கருணாநிதி வந்தார்.
        மிக நன்று!
        விலை 3.5 ரூபாய்.""",
    "ja": """今日は晴れです。
        明日は雨ですか？
        「はい。」と彼は言った。
        すごい！
        価格は3.5ドルです。
        （終わり。）""",
    "zh": """今天天气很好。
        你叫什么名字？
        太好了！
        价格是3.5元。
        他说：“来吧。”
        结束了。""",
    "th": """ฉันไปตลาด
        เขาอยู่บ้านกับแมว 3 ตัว
        ของต่าง ๆ อยู่ที่นี่""",
    "hy": """Նա տանն է։
        Դու գնո՞ւմ ես։
        Այո։""",
    "am": """ሰላም ነው።
        የት ነህ፧
        እዚህ።""",
    "my": """ကျွန်တော် သွားမယ်။
        ဟုတ်ကဲ့။""",
}


@cache
def phrases(language: str, size: int = 1500) -> list[str]:
    other = "de" if language == "en" else "en"
    return [pair.target for _, pair in Phrases(source=other, target=language, size=size, validation=0, test=0).read()]


@cache
def planted(language: str, count: int = 1000, seed: int = 0) -> list[str]:
    """Sentences of one to three phrases, some of them in quotes or brackets."""
    draw = random.Random(f"{language} {seed}")
    (usual, *others), comma, _ = LANGUAGES[language]
    made = []
    for _ in range(count):
        text = comma.join(draw.choices(phrases(language), k=draw.choice((1, 2, 3))))
        text = text[:1].upper() + text[1:]
        end = usual if draw.random() < 0.75 and not text.endswith(".") else draw.choice(others)
        opens, closes = draw.choice((QUOTES.get(language, '""'), "()")) if draw.random() < 0.1 else ("", "")
        made.append(f"{opens}{text}{end}{closes}")
    return made


def borders(parts: list[str]) -> set[int]:
    """How many letters and signs are before each border."""
    found, reached = set(), 0
    for part in parts:
        reached += len("".join(part.split()))
        found.add(reached)
    return found - {reached}


def found_and_wrong(made: list[str], between: str) -> tuple[float, float]:
    """Shares: of the borders that were found, and of those found that were not there; over documents of twenty."""
    there = found = right = 0
    for begin in range(0, len(made), 20):
        parts = made[begin : begin + 20]
        wanted, got = borders(parts), borders(sentences(between.join(parts)))
        there, found, right = there + len(wanted), found + len(got), right + len(wanted & got)
    return right / there, (found - right) / max(found, 1)


@EVERY
def test_planted_borders_are_found_and_no_others(language: str) -> None:
    found, wrong = found_and_wrong(planted(language), LANGUAGES[language][2])
    assert found >= 0.99 and wrong <= 0.01


@pytest.mark.parametrize("language", ["en", "de", "fr", "ru", "el"])
def test_they_are_found_in_lower_case_too(language: str) -> None:
    found, wrong = found_and_wrong([text.lower() for text in planted(language)], " ")
    assert found >= 0.97 and wrong <= 0.03


@pytest.mark.parametrize("language", REAL)
def test_sentences_of_people(language: str) -> None:
    parts = [line.strip() for line in REAL[language].splitlines()]
    between = "" if language in ("ja", "zh") else " "
    assert sentences(between.join(parts)) == parts
    assert sentences("\n\n".join(parts)) == parts


@pytest.mark.parametrize("language", ["hi", "ur", "hy", "am", "my"])
def test_marks_with_no_other_use_need_no_space_behind_them(language: str) -> None:
    parts = [line.strip() for line in REAL[language].splitlines() if ". " not in line]
    assert sentences("".join(parts)) == parts


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("what is it? i see.\nyes, e.g. this.", ["what is it?", "i see.", "yes, e.g. this."]),  # all in lower case
        (  # or nearly all
            "we talked to NASA. " + "they were there. is it so, as they say? yes, it was so. " * 5,
            ["we talked to NASA.", *["they were there.", "is it so, as they say?", "yes, it was so."] * 5],
        ),
        ("a first line\nanother one\n\nthe third", ["a first line", "another one", "the third"]),  # nothing ends
        ("He came.\nhe saw!\nhe won.", ["He came.", "he saw!", "he won."]),  # each line does
        ("It goes on\nin a line. Then\nit ends.", ["It goes on\nin a line.", "Then\nit ends."]),
        ("One.\r\n\r\nTwo\r\ngoes on.\u2029Three", ["One.", "Two\r\ngoes on.", "Three"]),
        ("Stay at http://a.b/?c=d. Or go.", ["Stay at http://a.b/?c=d.", "Or go."]),
        ("他来了!我走了?好。", ["他来了!", "我走了?", "好。"]),
        ("Yahoo! is a firm; It is. a", ["Yahoo! is a firm; It is. a"]),
    ],
)
def test_lines_and_letters_tell_sentences(text: str, parts: list[str]) -> None:
    assert sentences(text) == parts


def in_marks(text: str) -> str:
    """With a letter of as many bytes for each mark: what a tokenizer makes of it that knows no marks."""
    marks = sorted(set(regex.findall(r"\p{M}|\u200c|\u200d", text)))
    letters = {2: 0x0250, 3: 0xA000}  # International Phonetic Alphabet, Yi
    return text.translate({ord(mark): letters[len(mark.encode())] + i for i, mark in enumerate(marks)})


@pytest.mark.parametrize("trainer", [ByteBPE(vocab_size=2000), Unigram(vocab_size=2000)], ids=["byte_bpe", "unigram"])
@pytest.mark.parametrize("language", ["hi", "bn", "ta", "fa", "he", "vi"])
def test_a_mark_costs_no_more_than_a_letter(language: str, trainer: TokenizerTrainer) -> None:
    texts = planted(language)
    other = in_marks("\n".join(texts)).split("\n")
    counts = [sum(map(len, trainer.train(of, special_tokens=()).encode_batch(of))) for of in (texts, other)]
    assert abs(counts[0] / counts[1] - 1) < 0.02


EXACT = {
    "byte_bpe": ByteBPE(vocab_size=2000),
    "unigram": Unigram(vocab_size=2000),
    "wordpiece": WordPiece(vocab_size=2000, lowercase=False),
    "characters": Characters(),
    "bytes": Bytes(),
}


@EVERY
def test_every_text_comes_back_as_it_was(language: str) -> None:
    texts = [*planted(language, 300), *map(str.strip, REAL[language].splitlines()), REAL[language]]
    for trainer in EXACT.values():
        tokenizer = trainer.train(texts, special_tokens=())
        assert [tokenizer.decode(ids) for ids in tokenizer.encode_batch(texts)] == texts


def table(trainers: dict[str, TokenizerTrainer] = EXACT, count: int = 2000) -> str:
    """A row for each language: of sentences found, wrong; of texts that come back, the worst tokenizer's; tokens a word
    of byte-level BPE and of Unigram."""
    rows = []
    for language, (_, _, between) in LANGUAGES.items():
        texts = planted(language, count)
        words = sum(len(text.split()) for text in texts)
        trained = {name: trainer.train(texts, special_tokens=()) for name, trainer in trainers.items()}
        ids = {name: tokenizer.encode_batch(texts) for name, tokenizer in trained.items()}
        back = {
            name: sum(trained[name].decode(ids[name][i]) == text for i, text in enumerate(texts)) / count
            for name in trained
        }
        worst = min(back, key=lambda name: back[name])
        found, wrong = found_and_wrong(texts, between)
        tokens = [f"{sum(map(len, ids[name])) / words:.2f}" for name in ("byte_bpe", "unigram")]
        rows.append([language, f"{found:.1%}", f"{wrong:.1%}", f"{back[worst]:.1%} ({worst})", *tokens])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


@pytest.mark.battery
@EVERY
@pytest.mark.parametrize("seed", range(1, 6))
def test_planted_borders_of_other_draws(language: str, seed: int) -> None:
    found, wrong = found_and_wrong(planted(language, 5000, seed), LANGUAGES[language][2])
    assert found >= 0.99 and wrong <= 0.01
