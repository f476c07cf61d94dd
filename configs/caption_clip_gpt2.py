"""GPT-2 describes what CLIP sees: both are frozen, and a resampler and gated layers between them are trained.

Sources: Flamingo (Alayrac et al. 2022, arXiv:2204.14198) for the layers, CLIP ViT-B/32 (Radford et al. 2021) and GPT-2
(Radford et al. 2019) for the weights.

    twinreel prepare msrvtt --annotations DIR --videos DIR --out data/msrvtt --fps 1 --short_side 224
    twinreel pretrain --config caption_clip_gpt2 --data data/msrvtt --workdir runs/captions
    twinreel caption runs/captions --data data/msrvtt --split test --method beam --out runs/captions/captions

`--config.model.source=DIR` and `--config.model.heads.captioning.source=DIR` take the weights from folders; of GPT-2
with its tokenizer. `caption_clip_gpt2:smollm2` has SmolLM2-135M instead, with a gated layer in front of every third of
its 30 blocks, and `--config.model.heads.captioning.adapt.lora.rank=8` adds low-rank updates to either.

LAB RECORD: not yet run.
"""

import ml_collections

from twinreel.configs import common

_LANGUAGE_MODELS = {
    "gpt2": dict(source="hf:openai-community/gpt2", every=1),
    "smollm2": dict(source="hf:HuggingFaceTB/SmolLM2-135M", every=3),
}


def get_config(language_model: str = "gpt2") -> ml_collections.ConfigDict:
    """Return the config; the argument is what writes, `gpt2` or `smollm2`."""
    language_model = common.choice(language_model, tuple(_LANGUAGE_MODELS))
    head = dict(kind="language_model", latents=32, resampler_depth=2, dropout=0.1, dtype="bfloat16")
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.data = dict(dir="data/msrvtt", batch_size=64, num_frames=12, context_length=40, text="")
    c.model = dict(
        source="hf:openai/clip-vit-base-patch32",
        video=dict(over_time="mean", image=dict(dtype="bfloat16")),
        text=dict(dtype="bfloat16"),
        heads=dict(captioning=head | _LANGUAGE_MODELS[language_model]),
    )
    c.loss = dict(name="infonce", terms=dict(captioning=dict(weight=1.0)))
    frozen = ("^(video|text)(_projection)?/", "^log_scale$")
    c.optimizer = common.adamw(lr=1e-4, warmup_steps=500, weight_decay=0.1, frozen=frozen)
    c.update(common.pod())
    c.evaluations = dict()
    c.train = common.long_run(steps=10_000) | dict(best_metric="", checkpoint_every=1000)
    return c
