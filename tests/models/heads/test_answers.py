"""The head that answers: what it sees and what it does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from twinreel.base.errors import UserError
from twinreel.models.heads.answers import AnswerHead, AnswerModel, Seen

SIZES = {"video_width": 6, "text_width": 4, "audio_width": 5, "width": 8, "depth": 1, "heads": 2}


class Words:
    """A text tower that embeds each token id by itself."""

    def tokens(self, text, *, mask, keys=None):
        return jnp.stack([jnp.sin(text.astype(jnp.float32) * (k + 1)) for k in range(4)], axis=-1)


@pytest.fixture(scope="module")
def model():
    head = AnswerHead(outputs=3, **SIZES, rngs=nnx.Rngs(0))
    for number, one in enumerate((head.joint, head.question_only)):  # scores start at zero
        one.scores.kernel[...] = jax.random.normal(jax.random.key(number), (8, 3))
    return AnswerModel(video=None, text=Words(), head=head)


def seen(seed, *, real=True):
    draw = np.random.default_rng(seed).normal
    return Seen(jnp.float32(draw(size=(2, 3, 6))), jnp.float32(draw(size=(2, 2, 5))), jnp.full((2, 2), real))


TEXT, MASK = jnp.array([[1, 2, 3], [4, 5, 0]]), jnp.array([[True] * 3, [True, True, False]])


def test_the_baseline_sees_the_question_alone(model):
    one, other = (model.answer(seen(seed), text=TEXT, mask=MASK) for seed in (0, 1))
    np.testing.assert_array_equal(one.question_only, other.question_only)
    assert np.abs(one.joint - other.joint).min() > 1e-4
    changed = model.answer(seen(0), text=TEXT.at[0, 0].set(9), mask=MASK)
    assert np.abs(changed.question_only[0] - one.question_only[0]).max() > 1e-4
    np.testing.assert_allclose(changed.joint[1], one.joint[1], rtol=1e-5)


def test_sound_that_is_not_there_and_padding_are_not_seen(model):
    silent, other = seen(0, real=False), seen(1, real=False)
    one = model.answer(silent, text=TEXT, mask=MASK)
    two = model.answer(Seen(silent.video, other.sound, silent.sound_mask), text=TEXT.at[1, 2].set(7), mask=MASK)
    np.testing.assert_allclose(one.joint, two.joint, rtol=1e-5, atol=1e-6)
    heard = model.answer(seen(0), text=TEXT, mask=MASK)
    assert np.abs(heard.joint - one.joint).max() > 1e-4


def test_each_candidate_is_scored_by_itself():
    head = AnswerHead(outputs=1, **SIZES, rngs=nnx.Rngs(0))
    head.joint.scores.kernel[...] = jnp.ones((8, 1))
    model = AnswerModel(video=None, text=Words(), head=head)
    texts = jnp.stack([TEXT, TEXT + 1, TEXT + 2], axis=1)  # [B,O,L]
    masks = jnp.stack([MASK] * 3, axis=1)
    found = model.answer(seen(0), text=texts, mask=masks).joint
    assert found.shape == (2, 3, 1)
    for option in range(3):
        alone = model.answer(seen(0), text=texts[:, option], mask=masks[:, option]).joint[:, 0]
        np.testing.assert_allclose(found[:, option, 0], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("change", [{"width": 9}, {"heads": 3}, {"depth": 0}])
def test_sizes_that_do_not_fit_are_named(change):
    with pytest.raises(UserError, match=r"config\.task\.width=.* a multiple of config\.task\.heads"):
        nnx.eval_shape(lambda: AnswerHead(outputs=3, **SIZES | change, rngs=nnx.Rngs(0)))
