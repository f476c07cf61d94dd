"""A prepared folder of many shards behind a URL: the index in parts, the order over blocks, a bounded cache."""

import itertools
from pathlib import Path

import fsspec
import numpy as np
import pytest
from object_store import upload

from twinreel.base.errors import UserError
from twinreel.data.batches import shards_cache
from twinreel.data.batches.ends import read_ends
from twinreel.data.batches.far_table import FarTable
from twinreel.data.batches.pipeline import make_tokenizer, train_batches
from twinreel.data.batches.records import Records
from twinreel.data.index import write as index_write
from twinreel.data.manifest import Clip, write_manifest
from twinreel.data.options import DataOptions
from twinreel.data.prepare.prepare import prepare

CLIPS, SHARDS = 24, 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory, media):
    """A local prepared folder: 12 shards of two clips, each with two captions, some of which others have, too."""
    root = tmp_path_factory.mktemp("clips")
    clips = []
    for n in range(CLIPS):
        media.write(root / f"{n}.mp4", media.grey(*range(10 + n, 170 + n, 10), size=(48, 48)))
        texts = (f"grey number {n}", f"Grey, number {n // 3}")
        meta = {"group": f"g{n // 2}"}
        clips.append(Clip(clip_id=f"c{n}", path=f"{n}.mp4", captions=texts, split="train", meta=meta))
    write_manifest(root / "m.jsonl", clips=clips)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_write, "SAMPLE", 10)
        prepare(root / "m.jsonl", out=root / "data", fps=0, short_side=0, workers=1, shard_clips=2, duplicates="keep")
    return root / "data"


@pytest.fixture
def url(folder, s3, monkeypatch):
    monkeypatch.setattr(shards_cache, "_COPIED", 0)
    upload(folder, f"{s3}/data")
    return f"{s3}/data"


def options(folder, **changes):
    given = {"dir": str(folder), "batch_size": 4, "num_frames": 2, "train_video": "random_crop(32)|flip_lr"}
    given |= {"eval_video": "center_crop(32)", "vocab_size": 300, "num_threads": 2, "context_length": 16}
    return DataOptions.of(given | {"order": "blocks", "block_shards": 2, "fetch": "shards"} | changes)


def batches(data, *, count, start=0, **processes):
    tokenizer = make_tokenizer(data)
    found = train_batches(data, tokenizer=tokenizer, seed=1, start_step=start, **processes)
    made = list(itertools.islice(found, count))
    found.close()
    return made


def check_equal(one, other):
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def fetched(seen):
    return [path for method, path in seen if method == "GET" and ".array_record" in path]


@pytest.mark.parametrize("listed", [0, 2000])
def test_rows_behind_a_url_are_those_of_the_folder(folder, url, s3_proxy, monkeypatch, listed):
    monkeypatch.setattr(shards_cache, "_LISTED", listed)
    far, near = Records(url).rows("train"), Records(folder).rows("train")
    assert isinstance(far, FarTable) and far.summary == near.summary and len(far) == CLIPS
    whole = ("clips.jsonl", ".npy", "inputs.jsonl", "sample")
    assert not [path for method, path in s3_proxy.seen if method == "GET" and any(name in path for name in whole)]
    every = np.random.default_rng(0).permutation(CLIPS)
    np.testing.assert_array_equal(far.rows(every), near.rows(every))
    captions = every % 2
    np.testing.assert_array_equal(far.keys(every, captions=captions), near.keys(every, captions=captions))
    np.testing.assert_array_equal(far.column("group"), near.column("group"))
    assert list(far) == list(near) and far[-1] == near[CLIPS - 1]
    assert far.sample(100) == near.sample(100) and len(far.sample(4)) == 4


@pytest.mark.parametrize("changes", [{}, {"unique_captions": True, "text": "lower"}, {"group_size": 2}])
def test_batches_over_blocks_equal_those_of_the_local_folder_for_any_number_of_processes(folder, url, changes):
    want = batches(options(folder, **changes), count=8)
    check_equal(batches(options(url, **changes), count=8), want)
    check_equal(batches(options(url, **changes), count=3, start=5), want[5:])
    parts = [batches(options(url, **changes), count=8, process_index=p, process_count=2) for p in range(2)]
    check_equal([{k: np.concatenate([a[k], b[k]]) for k in a} for a, b in zip(*parts, strict=True)], want)
    assert sorted({int(i) for batch in want for i in batch["clip_index"]}) != list(range(8))


def test_a_process_fetches_its_share_once_an_epoch_and_keeps_little(folder, url, s3_proxy, tmp_path):
    sizes = [path.stat().st_size for path in folder.rglob("*.array_record*")]
    limit = (6.5 * max(sizes) + 20_000) / 1e9  # of twelve shards, and the small files
    data = options(url, cache_dir=str(tmp_path / "c"), cache_gb=limit, block_shards=1, prefetch=0)
    most = 0
    found = train_batches(data, tokenizer=make_tokenizer(data), seed=1, start_step=0, process_index=1, process_count=4)
    for _ in range(2 * CLIPS // 4):
        next(found)
        copy = [path.stat().st_size for path in (tmp_path / "c").rglob("*.array_record*") if path.name[0] != "."]
        most = max(most, sum(copy))
    found.close()
    assert most <= limit * 1e9
    names = fetched(s3_proxy.seen)
    assert len(names) <= 2 * (SHARDS / 4 + 1) + 4, names  # the shards of its lane, twice, and of the blocks ahead


def test_a_cache_that_is_too_small_is_refused(url):
    with pytest.raises(UserError, match=r"cache_gb=1e-05 is too small.*block_shards \(now 2\).*fetch='frames'"):
        train_batches(options(url, cache_gb=1e-5), tokenizer=make_tokenizer(options(url)), seed=0, start_step=0)


def test_auto_goes_over_blocks_behind_a_url_alone(folder, url):
    tokenizer = make_tokenizer(options(folder))
    for where, words in ((folder, "24 records permuted"), (url, "over blocks, 2 lanes of 3 blocks")):
        found = train_batches(options(where, order="auto"), tokenizer=tokenizer, seed=0, start_step=0)
        assert words in found.order
        found.close()


def test_a_damaged_shard_behind_a_url_is_not_used(folder, url, monkeypatch):
    [first, *_] = sorted(Path(folder).rglob("*.array_record*"))
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 1
    with fsspec.open(f"{url}/{first.relative_to(folder).as_posix()}", "wb") as file:
        file.write(bytes(content))
    monkeypatch.setattr("twinreel.data.remote._WAIT_S", 0.01)
    with pytest.raises(UserError, match="gave other bytes than were written"):
        Records(url).read("train", [0])


@pytest.mark.parametrize("changes", [{}, {"audio_seconds": 0.5}, {"order": "records"}, {"num_frames": 4}])
def test_batches_of_drawn_frames_alone_equal_those_of_whole_records(folder, url, s3_proxy, tmp_path, changes):
    want = batches(options(folder, **changes), count=6)
    check_equal(batches(options(url, fetch="frames", cache_dir=str(tmp_path / "c"), **changes), count=6), want)
    assert not list((tmp_path / "c").rglob("*.array_record*"))
    assert fetched(s3_proxy.seen)


def test_a_look_at_the_ends_reads_parts_alone(url, s3_proxy, tmp_path):
    read_ends(options(url, fetch="frames", cache_dir=str(tmp_path / "c")))
    assert 1 <= len(fetched(s3_proxy.seen)) <= 2 and not list((tmp_path / "c").rglob("*.array_record*"))


def test_auto_fetches_frames_where_fewer_than_half_are_drawn(url, s3_proxy, tmp_path):
    for frames, copied in ((2, False), (12, True)):
        data = options(url, fetch="auto", num_frames=frames, cache_dir=str(tmp_path / f"{frames}"))
        batches(data, count=1)
        assert bool(list((tmp_path / f"{frames}").rglob("*.array_record*"))) == copied


def test_faults_of_the_store_are_survived_without_a_wrong_byte(folder, url, s3_proxy, monkeypatch):
    """Every third request fails: with 503, half a body, or not at all but late."""
    monkeypatch.setattr("twinreel.data.ranges._WAIT_S", 0.01)
    want = batches(options(folder), count=6)
    count = itertools.count()

    def fault(method, path):
        number = next(count)
        if method != "GET" or number % 3:
            return None
        return (503, "cut", 500)[number // 3 % 3]

    data = options(url, fetch="frames")
    tokenizer = make_tokenizer(data)
    found = train_batches(data, tokenizer=tokenizer, seed=1, start_step=0)
    s3_proxy.fault = fault
    check_equal(list(itertools.islice(found, 6)), want)
    found.close()
    assert next(count) > 30


def test_other_bytes_than_were_written_are_no_frames(folder, url, monkeypatch):
    for path in sorted(Path(folder).rglob("*.array_record*")):
        content = bytearray(path.read_bytes())
        for place in range(2000, len(content), 501):
            content[place] ^= 1
        with fsspec.open(f"{url}/{path.relative_to(folder).as_posix()}", "wb") as file:
            file.write(bytes(content))
    with pytest.raises(UserError, match=r"gave other bytes than were written, in each of 3 attempts"):
        batches(options(url, fetch="frames"), count=6)


def test_a_store_that_stays_away_is_told(url, s3_proxy, monkeypatch):
    monkeypatch.setattr("twinreel.data.ranges._WAIT_S", 0.001)
    monkeypatch.setattr("twinreel.data.ranges._TRIES", 2)
    data = options(url, fetch="frames")
    tokenizer = make_tokenizer(data)
    s3_proxy.fault = lambda method, path: 403 if ".array_record" in path else None
    with pytest.raises(UserError, match=r"may not be read or written.*credentials"):
        next(train_batches(data, tokenizer=tokenizer, seed=1, start_step=0))


def test_frames_alone_do_not_bring_features(url):
    with pytest.raises(
        UserError, match=r"fetch='frames' .* config.data.features={'clip': 4} .* set config.data.fetch='sh"
    ):
        batches(options(url, fetch="frames", features={"clip": 4}), count=1)
