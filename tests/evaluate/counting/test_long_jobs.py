"""Long counts: stopped and continued, shared by processes, and in bounded memory."""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from count_case import FIELDS, case, on_devices
from forks import Forked

from twinreel.evaluate.counting import kept
from twinreel.evaluate.counting.count import CountOptions, count_ranks
from twinreel.evaluate.counting.devices import DeviceCounter, Shape, count_tiles, device_mesh
from twinreel.evaluate.counting.layout import Tiles
from twinreel.evaluate.counting.questions import QUESTIONS, Pairs
from twinreel.launch.local import free_port


def same(got, want):
    return all(np.all(getattr(got[name], field) == getattr(want[name], field)) for name in want for field in FIELDS)


@pytest.fixture
def calls(monkeypatch):
    """The calls that are collected; `stop` says after how many the job is killed."""
    made, collect = {"n": 0, "stop": -1}, DeviceCounter.collect

    def counted(self, *args, **more):
        if made["n"] == made["stop"]:
            raise KeyboardInterrupt
        made["n"] += 1
        return collect(self, *args, **more)

    monkeypatch.setattr(DeviceCounter, "collect", counted)
    monkeypatch.setattr(kept, "_EVERY_S", 0.0)
    return made


def test_a_killed_count_continues_and_another_input_starts_anew(tmp_path, calls, capsys):
    arrays = case(2, videos=45, captions=5, kinds=6)
    want = count_ranks(QUESTIONS, pairs=Pairs(**arrays))
    options = on_devices(tile_bytes=4096, gallery_bytes=4096, devices=2, folder=tmp_path)
    count_ranks(QUESTIONS, pairs=Pairs(**arrays), options=options)
    total = calls["n"]
    assert total > 6 and not list(tmp_path.iterdir())

    calls |= {"n": 0, "stop": 4}
    with pytest.raises(KeyboardInterrupt):
        count_ranks(QUESTIONS, pairs=Pairs(**arrays), options=options)
    (file,) = tmp_path.iterdir()
    stopped = file.read_bytes()
    calls |= {"n": 0, "stop": -1}
    assert same(count_ranks(QUESTIONS, pairs=Pairs(**arrays), options=options), want)
    assert calls["n"] == total - 4 and not file.exists()
    assert "continues after 4 blocks" in capsys.readouterr().err

    other = arrays | {"text": arrays["text"][::-1].copy()}
    for content, changed in ((stopped, other), (b"broken", arrays)):
        file.write_bytes(content)
        calls["n"] = 0
        found = count_ranks(QUESTIONS, pairs=Pairs(**changed), options=options)
        assert same(found, count_ranks(QUESTIONS, pairs=Pairs(**changed)))
        assert calls["n"] == total and "belongs to another input" in capsys.readouterr().err


def test_two_processes_share_the_blocks(tmp_path):
    arrays = case(3, videos=45, captions=5, kinds=6, uncaptioned=2)
    np.savez(tmp_path / "in.npz", **arrays)
    given = [str(tmp_path / "in.npz"), "--num_processes=2", f"--coordinator=localhost:{free_port()}"]
    together = [
        Forked("worker_count", [*given, f"--out={tmp_path / f'{i}.npz'}", f"--process_id={i}"]) for i in range(2)
    ]
    for process in together:
        error = process.communicate(timeout=120)[1]
        assert process.returncode == 0, error
    want = count_ranks(QUESTIONS, pairs=Pairs(**arrays))
    for i in range(2):
        with np.load(tmp_path / f"{i}.npz") as got:
            for name, one in want.items():
                assert all((got[f"{name}/{field}"] == getattr(one, field)).all() for field in FIELDS), name


def test_a_million_by_a_million_fits():
    """The program of such a set, as compiled: what a device holds at a time, of 4 TB of scores."""
    options, mesh, dim = CountOptions(), device_mesh(jax.devices()[:1]), 512
    tiles = Tiles.of(texts=10**6, videos=10**6, dim=dim, tile_bytes=1 << 20, gallery_bytes=options.gallery_bytes)
    columns = tiles.piece * tiles.columns

    def side(length, width):
        bound = jax.ShapeDtypeStruct((1, length), jnp.float32)
        row = jax.ShapeDtypeStruct((length, width), jnp.float32)
        return {"rows": row, "real": jax.ShapeDtypeStruct((length,), jnp.bool_), "low": bound, "high": bound}

    shape = Shape(columns=tiles.columns, width=1, grouped=(True,))
    plan = count_tiles.lower(side(columns, dim), side(tiles.rows, dim), shape=shape, mesh=mesh).compile()
    sizes = plan.memory_analysis()
    assert 0.9 * options.gallery_bytes < sizes.argument_size_in_bytes < 1.1 * options.gallery_bytes
    held = sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes
    assert held < 350e6  # as docs/evaluation.md says
    assert sum(piece.stop - piece.start for piece in tiles.pieces(10**6)) == 10**6


def test_arrays_stay_small_while_a_large_set_is_counted():
    rng = np.random.default_rng(4)
    arrays = {"text": rng.normal(size=(12_000, 8)), "video": rng.normal(size=(12_000, 8))}
    pairs = Pairs(**arrays, video_of_text=rng.permutation(12_000))
    options = on_devices(tile_bytes=1 << 20, gallery_bytes=64 << 10, devices=1)
    tracemalloc.start()
    ranks = count_ranks(QUESTIONS[:1], pairs=pairs, options=options)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 << 20  # all scores in float32 would take 576 MB
    first = slice(0, 300)
    exact = pairs.text[first] @ pairs.video[:].T
    own = exact[np.arange(300), pairs.video_of_text[first]][:, None]
    assert (ranks["text_to_video"].above[first] == np.count_nonzero(exact > own + 1e-11, axis=1)).all()
