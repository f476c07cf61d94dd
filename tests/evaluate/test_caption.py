"""From a model with a captioning head to captions of files and of a split, their figures and the page."""

import json
import re

import jax
import numpy as np
import pytest
from java import stand_in_java
from small_encoder import drawn_encoder

from twinreel.base.errors import UserError
from twinreel.data.batches.records import Records
from twinreel.encode.media.files import clips_of_files
from twinreel.encode.predict.captioner import Captioner, load_captioner
from twinreel.evaluate.caption import caption_split, main
from twinreel.evaluate.measures.captions import caption_scores, ptb_tokens

HEADS = {"captioning": {"kind": "decoder", "sees": "patches", "width": 8, "depth": 1, "heads": 2}}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A bundle of tiny towers with a captioning head; random parameters so large that no two tokens tie."""
    return drawn_encoder(heads=HEADS).save(tmp_path_factory.mktemp("captions") / "run")


@pytest.fixture(scope="module")
def captioner(run):
    return load_captioner(run, options={"max_tokens": 8})


def test_a_caption_is_what_the_decoder_finds_likeliest_token_by_token(captioner, tiny_data):
    """Greedy captions by hand: the whole text goes through the decoder for every token."""
    row = Records(tiny_data).rows("test")[0]
    file = tiny_data.parent / "videos" / row["file"]
    [found] = captioner.caption([file], workers=1)
    model = captioner.model
    [(rows, _)] = clips_of_files(captioner.spec.input, [file], batch_size=1)
    text, score = [model.heads["captioning"].start_id], 0.0

    @jax.jit
    def all_logits(model, video, text):
        head, (_, tokens) = model.heads["captioning"], model.encode_with_tokens("video", inputs={"video": video})
        clips = model.clips(tokens)._replace(patches=model.video.tokens(video)[0])
        return head.decoder(text, context=head.context(clips))

    for at in range(8):
        whole = np.zeros((1, 8), np.int32)
        whole[0, : at + 1] = text
        logits = np.asarray(all_logits(model, rows["video"], whole)[0, at], np.float64)
        logp = logits - np.log(np.exp(logits).sum())
        text.append(int(logp.argmax()))
        score += logp.max()
        if text[-1] == captioner.tokenizer.eos_id:
            break
    assert found["caption"] == captioner.tokenizer.decode(text[1:]) and found["path"] == str(file)
    assert found["score"] == pytest.approx(score, abs=1e-3)


def test_a_split_is_described_and_compared_with_its_captions(run, tiny_data, tmp_path, capsys):
    out = tmp_path / "captions"
    java = stand_in_java(tmp_path)
    argv = [str(run), "--data", str(tiny_data), "--out", str(out), "--max_tokens", "8", "--batch_size", "3"]
    assert main([*argv, "--meteor", str(java["jar"]), "--java", java["java"]]) == 0
    printed = capsys.readouterr().out
    saved, rows = json.loads((out / "captions.json").read_text()), Records(tiny_data).rows("test")
    assert [one["clip_id"] for one in saved["clips"]] == [row["clip_id"] for row in rows]
    references = [[ptb_tokens(text) for text in row["captions"]] for row in rows]
    wanted = caption_scores([ptb_tokens(one["caption"]) for one in saved["clips"]], references=references)
    words = [[ptb_tokens(one["caption"]).split(), own] for one, own in zip(saved["clips"], references, strict=True)]
    right = sum(max(sum(word in one.split() for word in mine) for one in own) for mine, own in words)
    meteor = right / sum(len(mine) for mine, _ in words)  # of the stand-in
    assert saved["captions"] == pytest.approx(wanted | {"METEOR": meteor}) and saved["captions"]["n"] == 8
    assert saved["protocol"]["meteor"]["java"] == 'stand-in version "17"' and f"METEOR {100 * meteor:.1f}" in printed
    assert f"ROUGE-L {100 * wanted['ROUGE-L']:.1f}" in printed
    page = (out / "index.html").read_text()
    pictures = re.findall(r'src="([^"]+webp)"', page)
    assert len(pictures) == 8 and all((out / picture).is_file() for picture in pictures) and "http" not in page


def test_beams_are_ranked_and_captions_do_not_depend_on_the_batch(captioner, tiny_data):
    model = {"spec": captioner.spec, "model": captioner.model}
    beams = Captioner(**model, options={"max_tokens": 6, "method": "beam", "beams": 2})
    one, other = (caption_split(beams, data=tiny_data, split="val", batch_size=size)["clips"] for size in (8, 16))
    assert len(one) == 8
    for a, b in zip(one, other, strict=True):
        assert (a["caption"], a["others"][0]["caption"]) == (b["caption"], b["others"][0]["caption"])
        assert a["score"] == pytest.approx(b["score"], abs=1e-5)
    assert all(clip["score"] >= clip["others"][0]["score"] for clip in one)
    draws = Captioner(**model, options={"max_tokens": 6, "method": "sample"})
    drawn = [caption_split(draws, data=tiny_data, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] and drawn[0]["clips"] != drawn[2]["clips"]


def test_samples_of_files_depend_on_seed_and_number_alone(captioner, tiny_data):
    rows = Records(tiny_data).rows("test")
    files = [tiny_data.parent / "videos" / rows[i]["file"] for i in (0, 1, 0)]
    given = {"max_tokens": 6, "method": "sample"}
    sampler = Captioner(spec=captioner.spec, model=captioner.model, options=given)
    whole, parts = (sampler.caption(files, batch_size=size, workers=1) for size in (3, 2))
    assert [one["caption"] for one in whole] == [one["caption"] for one in parts]
    assert whole[0]["caption"] != whole[2]["caption"]


def test_mistakes_are_named(run, tiny_data, tmp_path):
    for argv, message in (
        ([str(run)], "give media files to describe, or --data DIR"),
        ([str(run), "a.mp4", "--out", "x"], "--out goes with --data"),
        ([str(run), "a.mp4", "--meteor", "x.jar"], "--meteor goes with --data"),
        ([str(run), "--data", str(tiny_data), "--meteor", "x.jar"], r"--meteor 'x\.jar' is no file"),
        ([str(run), "--data", str(tiny_data), "--split", "tset"], "did you mean 'test'"),
        ([str(run), "--data", str(tiny_data), "--method", "beems"], "did you mean 'beam'"),
        ([str(run), "--data", str(tiny_data), "--max_tokens", "90"], "do not fit into the decoder's context of 17"),
        ([str(run), "a.mp4", "--batch_size", "0"], "--batch_size must be at least 1, got 0"),
    ):
        with pytest.raises(UserError, match=message):
            main(argv)


def test_a_model_without_the_head_is_told_how_to_get_one(tmp_path):
    drawn_encoder().save(tmp_path / "towers")
    with pytest.raises(UserError, match="has no captioning head, so it writes no captions; train one with"):
        load_captioner(tmp_path / "towers")
