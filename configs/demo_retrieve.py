"""The demo's checkpoint learns other words for colours and shapes, and keeps those that it knows.

Lab record
  Source: weights between both models (WiSE-FT, Wortsman et al. 2022, arXiv:2109.01903).
  Commands: twinreel demo --workdir runs/demo --data new_words
            twinreel pretrain --config demo_retrieve --init runs/demo/pretrain --workdir runs/retrieve
            twinreel interpolate runs/demo/pretrain runs/retrieve --data runs/demo/renamed_shapes
                --canary runs/demo/moving_shapes --out runs/retrieve/curve
    Not yet run to its end. The figures to look at: t2v R@1 with the new words and with the old ones, by alpha. The
    demo's tokenizer does not know the new words: 1,946 of 6,582 texts have more than 44 tokens and are cut.
"""

import ml_collections

from twinreel.configs import common, demo


def get_config() -> ml_collections.ConfigDict:
    """Return the config: the demo's loss on the renamed clips, a quarter of its steps and of its learning rate."""
    c = demo.get_config()
    c.data.dir = "runs/demo/renamed_shapes"
    c.optimizer.lr = 5e-4
    c.optimizer.warmup_steps = 20
    canary = dict(protocol="retrieval", data="runs/demo/moving_shapes", every=None)
    c.evaluations = common.evaluations(canary=canary)
    c.train = dict(steps=80, log_every=20, eval_every=80, checkpoint_every=80)
    return c
