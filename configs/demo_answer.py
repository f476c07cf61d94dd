"""What falls after the red square? Questions about moving_shapes, answered by a head on the demo's frozen video tower.

Lab record
  Source: tokens of question, frames and sound in one transformer (merged attention, VIOLET, Fu et al. 2021,
    arXiv:2111.12681).
  Command: twinreel finetune --config demo_answer --init runs/demo/pretrain --data runs/demo/moving_shapes
      --workdir runs/answers
    Not yet run to its end, so nothing is shown yet of what the clip adds. Seed 0, on towers of step 240 of 480 of the
    demo, with a learning rate of 2e-3: at step 80 of 300 the accuracy on the batch of 64 train questions was 31 % with
    the clip and 33 % by the question alone. A step of 64 questions took about 1.5 s of CPU time on a server of two
    cores with twenty other programs.
"""

import ml_collections
from ml_collections import config_dict

from twinreel.configs import common


def get_config(kind: str = "closed") -> ml_collections.ConfigDict:
    """Return the config.

    Fields of `data` that are None take the checkpoint's value. Clips are not augmented, so the features of the frozen
    video tower are computed once. The demo's checkpoint has no sound tower: a small one is trained with the head, and
    the text tower, which has read no questions, is trained, too.

    Args:
      kind: `closed` (default): answers of a vocabulary; `deaf`: the same without sound.
    """
    kind = common.choice(kind, ("closed", "deaf"))
    hears = kind == "closed"
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.task = dict(
        name="answer",
        kind="closed",
        vocabulary=100,
        min_count=2,
        loss="softmax",
        questions_per_clip=8,
        sound_tower=dict(family="cnn", mels=40, channels=(16, 32, 32, 64, 64)) if hears else {},
        **common.head_on_frozen_towers(trainable=("^text/",)) | dict(width=96, depth=2, heads=4, dropout=0.0),
    )
    c.data = common.clips_without_draws(batch_size=16, audio_seconds=3.0 if hears else 0.0)
    c.data["num_frames"] = config_dict.placeholder(int)
    c.model = dict(video=dict(image_size=config_dict.placeholder(int)))
    c.optimizer = common.muon(lr=2e-3, warmup_steps=50, weight_decay=0.05)
    c.mesh = common.mesh()
    c.train = dict(steps=400, log_every=20, eval_every=200, checkpoint_every=200, keep_last=2, keep_best=1, patience=0)
    return c
