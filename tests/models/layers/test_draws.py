"""Random draws: every use has keys of its own, and every row its own; dropout and its factor."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from dual_towers import build
from flax import nnx

from twinreel.models.layers import blocks as blocks_module
from twinreel.models.layers.blocks import Blocks
from twinreel.models.layers.draws import dropout, row_keys
from twinreel.models.towers import vivit
from twinreel.models.towers.ast import AudioTower
from twinreel.models.towers.transformer import TextTower
from twinreel.models.towers.vivit import VideoTower

BLOCKS = {"width": 8, "depth": 2, "heads": 2, "mlp_ratio": 1.0, "dropout": 0.5, "block": {"drop_path": 0.5}}


def noisy():
    return build(
        video=BLOCKS | {"image_size": 8, "patch": 4, "temporal_depth": 2, "patch_dropout": 0.5},
        text=BLOCKS,
        audio=BLOCKS | {"mels": 8, "patch": 4},
        embed_dim=4,
        num_frames=2,
        context_length=3,
        vocab_size=9,
        audio_samples=1000,
        rngs=nnx.Rngs(0),
    )


def recorded(monkeypatch, found):
    """Note the keys of every tower and stack (by name), and of every single draw."""

    def note(use, data):
        found.append((use, [tuple(row) for row in np.asarray(data)]))

    def wrap(owner, name, label):
        own = getattr(owner, name)

        def noted(*args, keys=None, **given):
            keys = args[0] if keys is None and name == "kept_tokens" else keys
            use = label(args[0]) if callable(label) else label
            jax.debug.callback(partial(note, use), jax.random.key_data(keys))
            return own(*args, keys=keys, **given) if name != "kept_tokens" else own(*args, **given)

        monkeypatch.setattr(owner, name, noted)

    for tower in (VideoTower, TextTower, AudioTower):
        wrap(tower, "__call__", tower.__name__)
    wrap(Blocks, "__call__", lambda stack: f"stack {id(stack)}")
    for name in ("dropout", "drop_path"):
        wrap(blocks_module, name, "draw")
    wrap(vivit, "kept_tokens", "draw")


def test_no_two_uses_share_a_key(monkeypatch):
    """Towers, stacks, frames, layers and branches: each draws by itself, for each row by itself.

    The keys of a tower or a stack must differ from those of all others, too: derived alike they would draw alike.
    """
    model, found = noisy(), []
    recorded(monkeypatch, found)
    keys = row_keys(jax.random.key(0), rows=2)
    audio = jnp.asarray(np.random.default_rng(0).integers(-9, 9, (2, 1000)), jnp.int16)

    @nnx.jit
    def encode(model, keys):
        video = model.encode_video(jnp.zeros((2, 2, 8, 8, 3), jnp.uint8), keys=keys)
        text = model.encode_text(jnp.ones((2, 3), jnp.int32), mask=jnp.ones((2, 3), bool), keys=keys)
        return video, text, model.encode_audio(audio, keys=keys)

    jax.block_until_ready(encode(model, keys))
    jax.effects_barrier()
    labels = [label for label, _ in found]
    assert {"VideoTower", "TextTower", "AudioTower"} < set(labels) and sum("stack" in label for label in labels) == 4
    draws = [label for label in labels if label == "draw"]
    assert len(draws) == 4 * 2 * 2 * 2 + 1  # stacks x layers x branches x {dropout, path}, and patches
    # A text's or sound's one stack has the keys of its tower; what the towers got must differ, and from the rows' own.
    given = {"rows": set(map(tuple, np.asarray(jax.random.key_data(keys))))}
    for label, rows in sorted(found):  # towers before stacks
        if label != "draw":
            assert len(set(rows)) == len(rows), label
            if not any(label.startswith("stack") and set(rows) == other for other in given.values()):
                given[label] = set(rows)
    assert len(given) == 1 + 3 + 2, given.keys()  # the rows, three towers, the spatial and the temporal stack
    for (one, a), (other, b) in itertools.combinations(given.items(), 2):
        assert not a & b, f"{one} and {other} share keys"
    drawn = [row for label, rows in found if label == "draw" for row in rows]
    assert len(set(drawn)) == len(drawn)


def test_dropout_keeps_the_expectation_in_bfloat16():
    """1/0.9 rounded to bfloat16 would be 0.2 % off."""
    x = jnp.full((8, 512), 3.0, jnp.bfloat16)
    got = dropout(x, rate=0.1, keys=row_keys(jax.random.key(0), rows=8))
    kept = np.asarray(got, np.float64)
    assert got.dtype == jnp.bfloat16 and set(np.unique(kept)) == {0.0, float(jnp.asarray(3 / 0.9, jnp.bfloat16))}
    assert abs((kept > 0).mean() - 0.9) < 0.02
