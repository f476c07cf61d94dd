"""From a run with a captioning head to captions of files and of a split, their figures and the page."""

import json
import re

import numpy as np
import pytest
from flax import nnx

from twinreel.base.config import load_config
from twinreel.base.errors import UserError
from twinreel.data.batches.records import Records
from twinreel.encode.captioner import load_captioner
from twinreel.encode.files import clips_of_files
from twinreel.evaluate.caption import caption_split, main
from twinreel.evaluate.measures.captions import caption_scores, ptb_tokens
from twinreel.pretrain.pretrain import pretrain

HEADS = [
    "model.heads={'captioning': {'kind': 'decoder', 'width': 16, 'depth': 1, 'heads': 2}}",
    "loss.terms={'captioning': {'weight': 2.0}}",
    *("train.steps=2", "train.eval_every=0", "train.checkpoint_every=2", "train.best_metric=''"),
]


@pytest.fixture(scope="module")
def run(tiny_overrides, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("captions") / "run"
    pretrain(load_config("demo", overrides=[*tiny_overrides, *HEADS]), workdir=workdir)
    return workdir


@pytest.fixture(scope="module")
def captioner(run):
    return load_captioner(run, options={"max_tokens": 8})


def test_a_caption_is_what_the_decoder_finds_likeliest_token_by_token(captioner, tiny_data):
    """Greedy captions by hand: the whole text goes through the decoder for every token."""
    row = Records(tiny_data).rows("test")[0]
    file = tiny_data.parent / "videos" / row["file"]
    [found] = captioner.caption([file])
    model = captioner.model
    [(rows, _)] = clips_of_files(captioner.spec.input, [file], batch_size=1)
    encode = nnx.jit(lambda model, inputs: model.encode_with_tokens("video", inputs=inputs, drop_patches=False))
    _, tokens = encode(model, {"video": rows["video"]})
    head = model.heads["captioning"]
    text, score = [head.start_id], 0.0
    for _ in range(8):
        logits = np.asarray(head.decoder(np.array([text], np.int32), context=head.context(model.clips(tokens))))
        logp = logits[0, -1].astype(np.float64) - np.log(np.exp(logits[0, -1].astype(np.float64)).sum())
        text.append(int(logp.argmax()))
        score += logp.max()
        if text[-1] == captioner.tokenizer.eos_id:
            break
    assert found["caption"] == captioner.tokenizer.decode(text[1:]) and found["path"] == str(file)
    assert found["score"] == pytest.approx(score, abs=1e-3)


def test_a_split_is_described_and_compared_with_its_captions(run, tiny_data, tmp_path, capsys):
    out = tmp_path / "captions"
    argv = [str(run), "--data", str(tiny_data), "--out", str(out), "--max_tokens", "8", "--batch_size", "3"]
    assert main(argv) == 0
    printed = capsys.readouterr().out
    saved, rows = json.loads((out / "captions.json").read_text()), Records(tiny_data).rows("test")
    assert [one["clip_id"] for one in saved["clips"]] == [row["clip_id"] for row in rows]
    references = [[ptb_tokens(text) for text in row["captions"]] for row in rows]
    wanted = caption_scores([ptb_tokens(one["caption"]) for one in saved["clips"]], references=references)
    assert saved["captions"] == pytest.approx(wanted) and saved["captions"]["n"] == 8
    assert f"ROUGE-L {100 * wanted['ROUGE-L']:.1f}" in printed
    page = (out / "index.html").read_text()
    pictures = re.findall(r'src="([^"]+webp)"', page)
    assert len(pictures) == 8 and all((out / picture).is_file() for picture in pictures) and "http" not in page


def test_beams_are_ranked_and_captions_do_not_depend_on_the_batch(run, tiny_data):
    beams = load_captioner(run, options={"max_tokens": 6, "method": "beam", "beams": 2})
    one, other = (caption_split(beams, data=tiny_data, split="val", batch_size=size)["clips"] for size in (8, 16))
    assert [clip["caption"] for clip in one] == [clip["caption"] for clip in other] and len(one) == 8
    assert [clip["score"] for clip in one] == pytest.approx([clip["score"] for clip in other], abs=1e-5)
    assert all(clip["score"] >= clip["others"][0]["score"] for clip in one)
    drawn = [
        caption_split(load_captioner(run, options={"max_tokens": 6, "method": "sample"}), data=tiny_data, seed=seed)
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] and drawn[0]["clips"] != drawn[2]["clips"]


def test_samples_of_files_depend_on_seed_and_number_alone(run, tiny_data):
    rows = Records(tiny_data).rows("test")
    files = [tiny_data.parent / "videos" / rows[i]["file"] for i in (0, 1, 0)]
    sampler = load_captioner(run, options={"max_tokens": 6, "method": "sample"})
    whole, parts = (sampler.caption(files, batch_size=size, workers=1) for size in (3, 2))
    assert [one["caption"] for one in whole] == [one["caption"] for one in parts]
    assert whole[0]["caption"] != whole[2]["caption"]


def test_mistakes_are_named(run, tiny_data, tmp_path):
    for argv, message in (
        ([str(run)], "give media files to describe, or --data DIR"),
        ([str(run), "a.mp4", "--out", "x"], "--out goes with --data"),
        ([str(run), "--data", str(tiny_data), "--split", "tset"], "did you mean 'test'"),
        ([str(run), "--data", str(tiny_data), "--method", "beems"], "did you mean 'beam'"),
        ([str(run), "--data", str(tiny_data), "--max_tokens", "90"], "do not fit into the decoder's context of 25"),
        ([str(run), "a.mp4", "--batch_size", "0"], "--batch_size must be at least 1, got 0"),
    ):
        with pytest.raises(UserError, match=message):
            main(argv)


def test_a_model_without_the_head_is_told_how_to_get_one(tmp_path):
    from small_encoder import small_encoder

    small_encoder().save(tmp_path / "towers")
    with pytest.raises(UserError, match="has no captioning head, so it writes no captions; train one with"):
        load_captioner(tmp_path / "towers")
