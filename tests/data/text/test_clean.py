"""Text cleaning against what public code does, written out here from its papers and descriptions."""

import html
import re
import string

import ftfy
import pytest

from twinreel.base.errors import UserError
from twinreel.data.text.clean import TEXT_OPS, text_cleaner

TEXTS = [
    "",
    " \t\n",
    "A Dog,  running -- FAST!!! (see http://example.org/a?b=c) ",
    "cafÃ© naÃ¯ve â€œquotedâ€\x9d l’homme",
    "Tom &amp;amp; Jerry &lt;3 &#39;hi&#39;",
    "<b>bold</b><br/>x <!-- gone --> 1 < 2 > 0",
    "snake_case_words and-hyphens/slashes <person> walks",
    "ﬁre ＡＢＣ ½ e\u0301",
    "zero\u200bwidth\x00null\x07bell \u202eright 👩\u200d🚀",
    "line one\n\nline two   end\n",
]


def clip(text: str) -> str:
    """OpenAI's basic_clean and whitespace_clean, then lower."""
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return re.sub(r"\s+", " ", text).strip().lower()


def big_vision(text: str) -> str:
    text = text.replace("_", " ").translate(str.maketrans("", "", string.punctuation)).lower()
    return re.sub(r"\s+", " ", text).strip()


def pre_text(text: str) -> str:
    """That of the ALBEF family, character by character."""
    kept = [{"-": " ", "/": " "}.get(c, c) for c in text.lower() if c not in ",.'!?\"()*#:;~"]
    out = "".join(kept).replace("<person>", "person")
    while re.search(r"\s\s", out):
        out = re.sub(r"\s{2,}", " ", out)
    return out.rstrip("\n").strip(" ")


@pytest.mark.parametrize(
    "declared,reference",
    [
        ("fix_unicode|unescape_html|collapse_spaces|lower", clip),
        ("underscores_to_spaces|canonicalize", big_vision),
        ("pre_text", pre_text),
        ("collapse_spaces", lambda t: re.sub(r"\s+", " ", t).strip()),
        ("strip_links|lower", lambda t: " ".join(w for w in t.lower().split() if "http" not in w) or ""),
    ],
    ids=["clip", "big_vision", "pre_text", "collapse", "links"],
)
def test_cleaning_equals_the_reference(declared, reference):
    clean = text_cleaner(declared)
    texts = [t for t in TEXTS if "(see" not in t] if "links" in declared else TEXTS
    assert [clean(text) for text in texts] == [reference(text) for text in texts]
    assert clean(TEXTS[2]) != TEXTS[2]


@pytest.mark.parametrize(
    "declared,text,want",
    [
        ("fix_unicode", "cafÃ©", "café"),
        ("nfc", "cafe\u0301", "caf\u00e9"),
        ("nfkc", "ﬁre ＡＢＣ x²", "fire ABC x2"),
        ("strip_html", "<b>bold</b><br/>x <!-- a\nb --> 1 < 2 > 0", "bold x 1 < 2 > 0"),
        ("strip_control", "a\x00b\u200bc\u202e \ufeffd\te 👩\u200d🚀", "abc d\te 👩\u200d🚀"),
        ("strip_links", "see https://a.b/c?d=e, or www.x.org now", "see or now"),
        ("unescape_html", "Tom &amp;amp; Jerry", "Tom & Jerry"),
        ("underscores_to_spaces", "a_b", "a b"),
        ("canonicalize", "A_b, c!", "ab c"),
        ("punctuation_to_spaces", "a_b, c!«d»", "a b  c «d»"),
        ("full_stop", "", "."),
        ("max_words(3)", "one  two\nthree four", "one two three"),
        ("max_words(n=9)|lower", "One", "one"),
        ("collapse_whitespace", " a \n b", "a b"),
        ("strip_punctuation", "«a» – b…", "a b"),
    ],
)
def test_each_operation(declared, text, want):
    assert text_cleaner(declared)(text) == want


@pytest.mark.parametrize("text", ["Hello, World!", "Hello,World..", "  Hello   WORLD"])
def test_videoprism_as_its_code_documents_it(text):
    assert text_cleaner("punctuation_to_spaces|lower|collapse_spaces|full_stop")(text) == "hello world."


def test_every_operation_takes_any_text_and_is_settled_after_one_round():
    for name in TEXT_OPS:
        clean = text_cleaner(f"{name}(5)" if name == "max_words" else name)
        for text in TEXTS:
            once = clean(text)
            assert isinstance(once, str)
            if name not in ("unescape_html", "strip_html", "pre_text"):  # what they make may look like more of it
                assert clean(once) == once, name


@pytest.mark.parametrize(
    "declared,match", [("lowr", "lower"), ("max_words(0)", "at least 1"), ("max_words", "max_words")]
)
def test_faults_are_named_at_start(declared, match):
    with pytest.raises(UserError, match=match):
        text_cleaner(declared)


def test_fix_unicode_without_ftfy_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ftfy", None)
    with pytest.raises(UserError, match="pip install ftfy"):
        text_cleaner("fix_unicode")
