"""Wrong captions in the contrastive objective: the loss against a loop, in parts, and what they do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dual_towers import input_of
from flax import nnx

from twinreel.base.config import load_config
from twinreel.base.errors import UserError
from twinreel.data.batches.synthetic import synthetic_batch
from twinreel.data.options import DataOptions
from twinreel.pretrain.objective import Contrastive, make_objective
from twinreel.pretrain.synthetic import batch_like

TOWER = {"width": 8, "depth": 1, "heads": 2, "mlp_ratio": 2.0}
MODEL = {"embed_dim": 6, "video": TOWER | {"image_size": 8, "patch": 4, "temporal_depth": 0}, "text": TOWER}
B, N = 6, 2


def objective(**loss):
    spec = input_of(num_frames=2, context_length=5)
    return Contrastive(model=MODEL, loss=loss, input=spec, vocab_size=11)


def batch_of():
    batch = synthetic_batch(
        0, batch_size=B, num_frames=2, image_size=8, context_length=5, vocab_size=11, seed=3, foils=N
    )
    batch["valid"][1] = False
    batch["foil_valid"][2, 1] = False
    batch["foil"][4, 0], batch["foil_mask"][4, 0] = batch["text"][0], batch["text_mask"][0]  # true of the first clip
    return {key: jnp.asarray(value) for key, value in batch.items() if key != "clip_index"}


def looped(model, batch, *, beta):
    """The loss and the share of foils beaten, float64, one text at a time."""

    def text(ids, mask):
        return np.asarray(model.encode_text(ids[None], mask=mask[None]), np.float64)[0]

    video = np.asarray(model.encode_video(batch["video"]), np.float64)
    captions = [text(batch["text"][i], batch["text_mask"][i]) for i in range(B)]
    scale, rows, total, beaten = float(model.scale), [i for i in range(B) if batch["valid"][i]], 0.0, []
    said = [batch["text"][i][batch["text_mask"][i]].tolist() for i in range(B)]
    for i in rows:
        own = scale * video[i] @ captions[i]
        wrong = [scale * video[i] @ captions[j] for j in rows if said[j] != said[i]]
        other = [scale * video[j] @ captions[i] for j in rows if said[j] != said[i]]
        for j in rows:
            for k in range(N):
                if not batch["foil_valid"][j, k]:
                    continue
                cosine = video[i] @ text(batch["foil"][j, k], batch["foil_mask"][j, k])
                if j == i:
                    beaten.append(np.heaviside(np.round(video[i] @ captions[i] - cosine, 5), 0.5))
                if batch["foil"][j, k][batch["foil_mask"][j, k]].tolist() != said[i]:
                    wrong.append(scale * cosine)
        for negatives in (np.array(wrong), np.array(other)):
            weighted = np.exp((1 + beta) * negatives).sum() / np.exp(beta * negatives).mean()
            total += 0.5 * (np.log(np.exp(own) + weighted) - own)
    return total / len(rows), np.mean(beaten)


@pytest.mark.parametrize("parts", [1, 3])
def test_each_clip_is_compared_with_the_foils_of_all_rows(parts):
    made, batch = objective(hard_negative=0.5, microbatch=parts), batch_of()
    model = made.init(nnx.Rngs(0))
    loss, logged = nnx.jit(lambda m, b: made.loss(m, b, rngs=None))(model, batch)
    wanted, beaten = looped(model, batch, beta=0.5)
    assert float(loss) == pytest.approx(wanted, rel=2e-5)
    assert float(logged["accuracy_foils"]) == pytest.approx(beaten)


def test_a_step_towards_the_loss_beats_more_foils():
    made, batch = objective(hard_negative=0.5), batch_of()
    model = made.init(nnx.Rngs(0))

    @nnx.jit
    def descend(model, batch):
        (_, logged), gradients = nnx.value_and_grad(lambda m: made.loss(m, batch, rngs=None), has_aux=True)(model)
        nnx.update(model, jax.tree.map(lambda p, g: p - jnp.float32(0.05) * g, nnx.state(model, nnx.Param), gradients))
        return logged["accuracy_foils"]

    shares = [float(descend(model, batch)) for _ in range(120)]
    assert shares[-1] > max(0.85, shares[0])


@pytest.mark.parametrize(
    "change", ["loss.name='sigmoid'", "loss.form='blockwise'", "loss.pairs={'audio_text': 1.0}"], ids=str
)
def test_losses_that_take_no_foils_are_refused(change):
    changes = ["loss.hard_negative=0.0", "data.foils_per_clip=1", "data.audio_seconds=1.0", change]
    config = load_config("demo", overrides=changes)
    with config.unlocked():
        config.model.audio = dict(TOWER)
    with pytest.raises(UserError, match=r"config.data.foils_per_clip needs config.loss.name='infonce'"):
        make_objective(config, data=DataOptions.of(config.data), vocab_size=11)


def test_plans_count_the_foils():
    batch = batch_like(load_config("demo", overrides=["data.foils_per_clip=2"]), rows=3)
    assert batch["foil"].shape == batch["foil_mask"].shape == (3, 2, 44)
    assert batch["foil_valid"].shape == (3, 2)
