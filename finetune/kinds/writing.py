"""The loss of answers that are written token by token."""

import jax
import jax.numpy as jnp

from ...losses.vocabulary import token_losses
from ...models.heads.answers import AnswerWriter, Writings
from ...models.layers.draws import RowKeys, fold
from ...models.shapes import Scalar

_DRAWS = 4  # number of the writers' draws among those of a row


def writing_loss(
    head: AnswerWriter, read: Writings, *, batch: dict[str, jax.Array], keys: RowKeys | None
) -> tuple[Scalar, dict[str, Scalar]]:
    """Return the mean negative log-likelihood of the answers' tokens, given those before them, of both writers.

    Args:
      head: the writers.
      read: what they attend to.
      batch: `answer` int32 [B,A], `answer_mask` and `valid`.
      keys: one for each row; turns dropout on.

    Returns:
      The sum of both losses (nats a token), and of each its value and its accuracy: the share of the valid rows of
      which every token is the likeliest (0..1), which is the share that greedy decoding gets right.
    """
    states, text, mask = head.states(read, answer=batch["answer"], mask=batch["answer_mask"], keys=fold(keys, _DRAWS))
    valid = batch["valid"]
    real = mask[:, 1:] & valid[:, None]
    count, rows = jnp.maximum(real.sum(), 1), jnp.maximum(valid.sum(), 1)
    total, metrics = jnp.float32(0), {}
    for name, x in states.items():
        losses, hits = token_losses(x[:, :-1], logits=head.writers[name].logits, wanted=text[:, 1:])
        value = jnp.where(real, losses, jnp.float32(0)).sum() / count.astype(jnp.float32)
        right = ((hits | ~mask[:, 1:]).all(axis=1) & valid).sum() / rows
        total = total + value
        metrics |= {f"loss_{name}": value, f"accuracy_{name}": right.astype(jnp.float32)}
    return total, metrics
