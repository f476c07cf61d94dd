"""Which shots are worth keeping? Importance along films of moving_shapes clips, a head on the demo's frozen towers.

Lab record
  Sources: scores of frames, kernel temporal segmentation and a knapsack: Potapov et al. 2014, Zhang et al. 2016
    (arXiv:1605.08110); annotators and figures: TVSum (Song et al. 2015), SumMe (Gygli et al. 2014), rank correlations
    (Otani et al. 2019, arXiv:1903.11328).
  Command: twinreel demo --workdir runs/demo --data films
      twinreel finetune --config demo_summarise --init runs/demo/pretrain --data runs/demo/shape_films
      --workdir runs/summaries
    64 test films of about 20 s; seed 0 of the demo, three seeds of the run. F of a summary of 15 %, mean over the five
    annotators and nearest annotator, and rank correlations; they share a taste for colours and motions.

    seed                        F mean, %   F max, %   Kendall   Spearman
    0                           43.8        63.1       0.362     0.462
    1                           45.7        62.9       0.366     0.469
    2                           45.1        63.0       0.369     0.470
    representative, untrained   9.7         19.7       0.010     0.014
    random scores               24.5        39.0       -0.004    -0.006
    evenly spread shots         16.3        29.6
    annotators                  54.5        73.1       0.551     0.622

    60 s of CPU time with the features of the frozen tower, which the three runs share; the films took 160 s. Without
    training nothing can know the annotators' taste; representative shots are long ones here, of which few fit.
    Change points of time tokens within 0.25 s: recall 87.4 %, precision 65.1 %; as many evenly spread: recall 58.9 %.
    Within 0.5 s: 98.0, 73.0 and 95.6 %. Of the demo's own embeddings of quarter seconds, with the same options
    (`twinreel summarise runs/demo/pretrain --seconds 0.25 --shortest 0.75 --penalty 3`): within 0.25 s 94.8, 84.5 and
    49.6 %, within 0.5 s 99.6, 88.7 and 94.2 %. Events last about a second, so the narrower distance tells more.
"""

import ml_collections

from twinreel.configs import common, demo_localise


def get_config() -> ml_collections.ConfigDict:
    """Return the config: data, optimizer and schedule of `demo_localise`, 128 frames of a film, shots of 0.75 s."""
    c = demo_localise.get_config()
    c.task = dict(name="summarise", share=0.15, shortest_s=0.75, penalty=3.0, margin=1.0, ranking_weight=1.0)
    c.task.update(common.encoder_over_time() | common.head_on_frozen_towers())
    c.data.update(dict(batch_size=16, num_frames=128))
    c.train.update(dict(steps=300, log_every=20, eval_every=30, checkpoint_every=30))
    return c
