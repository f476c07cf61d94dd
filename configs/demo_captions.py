"""Can the demo's model say what it sees? The demo with a caption decoder alongside the contrastive loss (CoCa).

Lab record
  Source: contrastive and captioning loss on the same towers (Yu et al. 2022, arXiv:2205.01917).
  Commands: twinreel pretrain --config demo_captions --workdir runs/captions
            twinreel caption runs/captions --data runs/demo/moving_shapes --out runs/captions/captions
    Seed 0, with the demo's bfloat16 towers of that day, 480 steps, 512 s of CPU time on two busy cores (the demo alone:
    287 s). 500 test clips, greedy: BLEU-4 32.2, ROUGE-L 55.2, CIDEr-D 168.0; no caption equals a reference word for
    word, as each fact has several wordings. Facts read back from the captions (the same reader finds all facts of all
    references): the right number of events in 90.4 %, all facts of all events in the right order in 10.2 %, single
    attributes 75.6 %: size 89.5, colour 81.0, texture 79.5, motion 74.2, shape 54.0. Four beams: 31.0, 54.4, 143.8;
    9.6 %, 74.8 %. The loss still fell (0.70 nats a token at the end). The decoder sees four time tokens of a clip, not
    its patches. Validation t2v R@1 100 on 100 clips. Other seeds, more steps and more tokens: not yet run.
"""

import ml_collections

from twinreel.configs import common, demo


def get_config(kind: str = "coca") -> ml_collections.ConfigDict:
    """Return the config.

    Args:
      kind: `coca` (default): captions beside the contrastive loss; `git`: captions alone.
    """
    kind = common.choice(kind, ("coca", "git"))
    c = demo.get_config()
    c.model.heads = dict(captioning=dict(kind="decoder", sees="patches", width=128, depth=2, heads=4))
    c.loss.terms = dict(captioning=dict(weight=1.0))
    c.data.update(num_frames=16, foils_per_clip=0)
    c.train.steps = 960
    if kind == "git":
        c.loss.pairs, c.evaluations = {}, {}
    return c
