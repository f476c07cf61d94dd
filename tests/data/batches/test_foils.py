"""Wrong captions of each row in training batches: those of its record, drawn anew each epoch, by weight."""

import collections
import itertools

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.data.batches.foils import draw_foils
from twinreel.data.batches.pipeline import eval_batches, make_tokenizer, train_batches
from twinreel.data.manifest import Clip, write_manifest
from twinreel.data.options import DataOptions
from twinreel.data.prepare.prepare import prepare

CLIPS = 6
NAMES = ("colour", "shape", "size")


def foils_of(clip):
    return {} if clip == 4 else {name: f"another {name} than clip {clip}" for name in NAMES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, media):
    root = tmp_path_factory.mktemp("foils")
    clips = []
    for c in range(CLIPS):
        media.write(root / f"{c}.mp4", media.grey(40, 80, 120, 160), fps=4)
        meta = {"foils": foils_of(c)} if foils_of(c) else {}
        clips.append(Clip(clip_id=f"c{c}", path=f"{c}.mp4", captions=(f"clip {c}",), split="train", meta=meta))
    write_manifest(root / "clips.jsonl", clips=clips)
    prepare(root / "clips.jsonl", out=root / "out", fps=0, short_side=0, workers=1)
    return root / "out"


@pytest.fixture(scope="module")
def options(folder):
    def make(**changes):
        given = {"dir": str(folder), "batch_size": 6, "num_frames": 2, "context_length": 60, "vocab_size": 300}
        given |= {"train_video": "center_crop(32)", "eval_video": "center_crop(32)", "num_threads": 1}
        return DataOptions.of(given | changes)

    return make


@pytest.fixture(scope="module")
def tokenizer(options):
    return make_tokenizer(options())


def take(data, tokenizer, count, **part):
    batches = train_batches(data, tokenizer=tokenizer, seed=3, start_step=0, **part)
    got = list(itertools.islice(batches, count))
    batches.close()
    return got


def encoded(text, tokenizer):
    return tokenizer.encode([text], context_length=60)[0][0].tolist()


def test_a_row_has_foils_of_its_record_other_ones_in_other_epochs(options, tokenizer):
    seen = collections.defaultdict(set)
    data = options(foils_per_clip=2, foil_weights={"colour": 1.0, "shape": 2.0, "size": 0.0}, prompts=("see: {}",))
    for batch in take(data, tokenizer, 12):
        assert batch["foil"].shape == (6, 2, 60)
        for clip, foils, there in zip(batch["clip_index"].tolist(), batch["foil"], batch["foil_valid"], strict=True):
            assert there.tolist() == [clip != 4] * 2
            seen[clip].add(tuple(map(tuple, foils.tolist())))
    for clip in range(CLIPS):
        texts = [f"see: {foils_of(clip)[name]}" if clip != 4 else "" for name in ("colour", "shape")]
        one, other = (tuple(encoded(text, tokenizer)) for text in texts)
        assert seen[clip] == {(one, other), (other, one)}


def test_foils_do_not_depend_on_the_number_of_processes(options, tokenizer):
    data = options(foils_per_clip=1)
    whole = take(data, tokenizer, 3)
    parts = [take(data, tokenizer, 3, process_index=p, process_count=2) for p in range(2)]
    for k, batch in enumerate(whole):
        np.testing.assert_array_equal(batch["foil"], np.concatenate([part[k]["foil"] for part in parts]))
        np.testing.assert_array_equal(batch["foil_mask"], batch["foil"] != 0)


def test_evaluation_has_no_foils(options, tokenizer):
    batches = eval_batches(options(foils_per_clip=1), tokenizer=tokenizer, split="train", batch_size=6)
    batch = next(batches)
    batches.close()
    assert "foil" not in batch


@pytest.mark.parametrize(
    ("weights", "shares"),
    [({}, (1 / 3, 1 / 3, 1 / 3)), ({"shape": 3.0, "size": 1.0}, (0.0, 0.75, 0.25))],
    ids=["alike", "weighted"],
)
def test_one_foil_is_drawn_in_proportion_to_its_weight(weights, shares):
    rng, count, draws = np.random.default_rng(0), collections.Counter(), 3000
    for _ in range(draws):
        given = rng.integers(2**64, size=4, dtype=np.uint64)
        (text,) = draw_foils({name: name for name in NAMES}, count=1, weights=weights, numbers=given)
        count[text] += 1
    np.testing.assert_allclose([count[name] / draws for name in NAMES], shares, atol=0.03)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"foils_per_clip": -1}, r"config.data.foils_per_clip must be at least 0, got -1"),
        ({"foils_per_clip": 1, "foil_weights": {"shape": -2.0}}, r"config.data.foil_weights.shape must be a weight"),
        ({"foils_per_clip": 1, "foil_weights": {"form": 1.0}}, r"names none of the foils .*: colour, shape, size"),
    ],
)
def test_faults(options, tokenizer, changes, message):
    with pytest.raises(UserError, match=message):
        take(options(**changes), tokenizer, 1)


def test_records_without_foils_are_refused(options, tokenizer, tiny_data):
    data = options(foils_per_clip=1, dir=str(tiny_data), train_split="val")
    with pytest.raises(UserError, match=r"the records have no foils; give the manifest's clips wrong captions"):
        take(data, tokenizer, 1)
