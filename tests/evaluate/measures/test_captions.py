"""Caption figures against pycocoevalcap 1.2 (tests/golden/evaluate/captions.json)."""

import pytest
from evaluate_golden import figures

from twinreel.base.errors import UserError
from twinreel.evaluate.measures.captions import bleu, caption_scores, cider_d, ptb_tokens, rouge_f1, rouge_l

GOLDEN = figures("captions")
TOKENS = {
    "pycocoevalcap 1.2, PTB tokens (Java)": GOLDEN["ptb_tokens"],
    "pycocoevalcap 1.2, lower-cased and split at blanks only": [
        {"candidate": one["candidate"].lower(), "references": [text.lower() for text in one["references"]]}
        for one in GOLDEN["sets"]
    ],
}


def pair(sets):
    return [one["candidate"] for one in sets], {"references": [one["references"] for one in sets]}


@pytest.mark.parametrize("tokens", TOKENS)
def test_figures_of_the_corpus_and_of_each_clip(tokens):
    candidates, references = pair(TOKENS[tokens])
    want, found = GOLDEN[tokens], caption_scores(candidates, **references)
    assert [found[f"BLEU-{n}"] for n in range(1, 5)] == pytest.approx(want["BLEU-1..4"], abs=1e-9)
    assert (found["ROUGE-L"], found["CIDEr-D"]) == pytest.approx((want["ROUGE-L"], want["CIDEr"]), abs=1e-9)
    assert bleu(candidates, **references)["per_clip"][:, 3] == pytest.approx(
        want["BLEU-4 per set"], rel=1e-6, abs=1e-15
    )
    assert rouge_l(candidates, **references) == pytest.approx(want["ROUGE-L per set"])
    assert cider_d(candidates, **references) == pytest.approx(want["CIDEr per set"])


def test_figures_of_nltk_and_rouge_score():
    candidates, references = pair(GOLDEN["ptb_tokens"])
    want = GOLDEN["other packages on the PTB tokens"]
    got = bleu(candidates, **references, least=1)["corpus"][3]
    assert 100 * got == pytest.approx(want["nltk corpus_bleu"], abs=1e-6)
    orders = [100 * one for one in bleu(candidates, **references)["corpus"]]
    assert orders[3] == pytest.approx(want["torchmetrics bleu_score"], abs=1e-4)
    for key in ("tokenize=none", "tokenize=13a", "tokenize=none, smooth=none"):
        assert orders[3] == pytest.approx(want[f"sacrebleu corpus, {key}"], abs=1e-6)
    assert orders[:3] == pytest.approx([want[f"sacrebleu corpus BLEU-{n}, tokenize=none"] for n in (1, 2, 3)], abs=1e-6)
    scores = rouge_f1(candidates, **references)
    for key in ("best reference", "score_multi"):
        assert scores.mean() == pytest.approx(want[f"rouge-score rougeL F1, {key}, stemmer=False"], abs=1e-9)


def test_figures_do_not_depend_on_the_order_of_references_and_clips():
    candidates, references = pair(GOLDEN["ptb_tokens"])
    assert all(GOLDEN["reversed order gives the same BLEU-4, ROUGE-L, CIDEr"])
    turned = {"references": [given[::-1] for given in references["references"][::-1]]}
    one, other = caption_scores(candidates, **references), caption_scores(candidates[::-1], **turned)
    assert other == pytest.approx(one)


def test_cider_of_a_part_is_another_figure():
    candidates, references = pair(GOLDEN["ptb_tokens"][:5])
    want = GOLDEN["CIDEr of the first five sets alone (document frequencies of five)"]
    assert cider_d(candidates, **references).mean() == pytest.approx(want)
    candidates, references = pair(GOLDEN["ptb_tokens"][:1])
    assert cider_d(candidates, **references)[0] == GOLDEN["CIDEr of the first set alone"]


def test_tokens_are_the_java_tokenizer_s():
    written = [text for one in GOLDEN["sets"] for text in (one["candidate"], *one["references"])]
    wanted = [text for one in GOLDEN["ptb_tokens"] for text in (one["candidate"], *one["references"])]
    wrong = [(a, b, ptb_tokens(a)) for a, b in zip(written, wanted, strict=True) if ptb_tokens(a) != b]
    assert not wrong


def test_an_empty_caption_scores_nothing():
    found = caption_scores(["", "a dog"], references=[["a cat sits"], ["a dog"]])
    assert rouge_l(["", "a dog"], references=[["a cat sits"], ["a dog"]]).tolist() == [0, 1]
    assert 0 < found["BLEU-1"] < 1


@pytest.mark.parametrize(
    ("candidates", "references", "message"),
    [
        ([], [], "'candidates' has 0 entries"),
        (["a"], [], "'candidates' has 1 entries and 'references' has 0"),
        (["a"], [[]], "'references' of clip 0 is []"),
        (["a"], ["a"], "'references' of clip 0 is 'a'"),
    ],
)
def test_bad_input_is_refused(candidates, references, message):
    with pytest.raises(UserError) as caught:
        caption_scores(candidates, references=references)
    assert message in str(caught.value)
