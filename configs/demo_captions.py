"""Can the demo's model say what it sees? The demo with a caption decoder alongside the contrastive loss (CoCa).

    twinreel pretrain --config demo_captions --init runs/demo/pretrain --data runs/demo/moving_shapes \\
        --workdir runs/captions
    twinreel caption runs/captions --data runs/demo/moving_shapes --out runs/captions/captions
    twinreel demo --workdir runs/demo --facts runs/captions/captions/captions.json

Source: contrastive and captioning loss on the same towers (Yu et al. 2022, arXiv:2205.01917).

LAB RECORD (two busy CPU cores, jax 0.10; the demo's towers of seed 0; 500 test clips, greedy; percent of captions whose
facts, read back by `demo.facts`, are right):

    seed   events   exact   attributes   size   texture   colour   shape   motion   twins   BLEU-4   CIDEr-D
    0      95.2     77.4    95.8         96.2   95.8      96.8     94.0    96.1     99.6    42.9     237.2
    1      95.8     79.6    96.5         96.8   96.1      97.5     94.5    97.5     100.0   42.6     232.9
    2      95.6     76.2    96.2         96.8   96.8      97.2     93.1    97.3     100.0   41.4     229.1

    events: captions with the right number of them; exact: all five attributes of all events in the right order;
    attributes: mean over the five; twins: captions nearer to their own clip than to its order twin. Goals: exact 70,
    attributes 90, twins 90. 12.3 minutes of CPU time a seed, the demo's towers not counted.

    Four beams, seed 0: BLEU-4 43.0, CIDEr-D 231.0; events 95.2, exact 77.8, attributes 96.8.

Retrieval, t2v R@1 among the 100 validation clips, is 100 at step 720. `demo_captions:git` is not yet run.

Half of the steps, seed 0, by what the decoder sees (loss of captions in nats a token at step 480):

                                                      loss    events   exact   attributes   shape   motion   twins
    8 frames, patches with their place in time        0.635   90.4     26.0    83.9         72.4    80.8     100.0
    16 frames, the same                               0.556   89.4     49.8    92.1         84.9    91.2     100.0
    16 frames, with the token of their step, too      0.517   90.0     54.0    92.3         86.2    92.7     99.6

Before, it saw the four time tokens of 8 frames (bfloat16 towers from scratch, 480 steps): events 90.4, exact 10.2,
attributes 75.6, shape 54.0, motion 74.2. The time tokens know what the contrastive loss asked for; patches know shapes.
At half of the steps clips of two events were often told as three, one of them twice.
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
