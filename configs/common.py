"""What the shipped configs share: towers by size (`zoo.variants`), optimizers, schedules of long runs, pods.

Each function returns a section of a config, or a part of one, as a new dict; keyword arguments change single fields. A
config of your own may import from here as well: `from twinreel.configs import common`.
"""

from collections.abc import Sequence
from typing import Any

from ml_collections import config_dict

from ..base.errors import unknown

_EMBED_DIM = {"S": 384, "B": 512, "L": 768, "So400m": 1152}


def video_tower(size: str, *, image_size: int, temporal_depth: int, tubelet: int, **changes: Any) -> dict[str, Any]:
    """Return `config.model.video`: frames of `image_size` pixels, spatial blocks of a size, then temporal blocks."""
    return dict(variant=size, image_size=image_size, tubelet=tubelet, temporal_depth=temporal_depth) | changes


def text_tower(size: str, **changes: Any) -> dict[str, Any]:
    """Return `config.model.text` of a size."""
    return dict(variant=size) | changes


def dual_tower(size: str, *, remat: str = "none") -> dict[str, Any]:
    """Return `config.model` of an accelerator's size ("S/16" to "So400m/14") in bfloat16, for frames of 224 pixels.

    Four temporal blocks follow the spatial ones (Arnab et al. 2021, ViViT model 2).
    """
    letter, dtype = size.split("/")[0], "bfloat16"
    return dict(
        embed_dim=_EMBED_DIM[letter],
        remat=remat,
        unroll=1,
        video=video_tower(size, image_size=224, temporal_depth=4, tubelet=1, patch_dropout=0.0, dtype=dtype),
        text=text_tower(letter, dtype=dtype),
    )


def clips(*, batch_size: int, num_frames: int, vocab_size: int = 32_000, **changes: Any) -> dict[str, Any]:
    """Return `config.data`: random crops of 224 pixels, mirrored at random; `dir` is usually given by --data."""
    found = dict(
        dir="data/mine",
        batch_size=batch_size,
        num_frames=num_frames,
        train_sampling="uniform_jitter",
        eval_sampling="uniform",
        train_video="random_resized_crop(224, min_scale=0.5)|flip_lr",
        eval_video="resize_short(224)|center_crop(224)",
        context_length=64,
        vocab_size=vocab_size,
    )
    return found | changes


def evaluations(**others: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return `config.evaluations`: retrieval on split `val` of the run's own data as "val", and others by name."""
    return dict(val=dict(protocol="retrieval", split="val")) | others


def adamw(
    *, lr: float, warmup_steps: int, weight_decay: float, b2: float = 0.98, clip_norm: float = 1.0, **changes: Any
) -> dict[str, Any]:
    """Return `config.optimizer`: AdamW (Loshchilov & Hutter 2019) with warm-up and cosine decay."""
    found = dict(
        name="adamw",
        lr=lr,
        warmup_steps=warmup_steps,
        schedule="cosine",
        weight_decay=weight_decay,
        b2=b2,
        clip_norm=clip_norm,
    )
    return found | changes


def muon(*, lr: float, warmup_steps: int, weight_decay: float, **changes: Any) -> dict[str, Any]:
    """Return `config.optimizer`: Muon (Jordan et al. 2024) for the kernels of blocks, AdamW for all else."""
    return adamw(lr=lr, warmup_steps=warmup_steps, weight_decay=weight_decay, name="muon", **changes)


def clip_adamw(*, lr: float, weight_decay: float = 0.2, b2: float = 0.98) -> dict[str, Any]:
    """Return `config.optimizer`: AdamW as CLIP has it for transformers (Radford et al. 2021, table 19)."""
    options: dict[str, Any] = dict(eps=1e-6, frozen=(), lr_scale=(), layer_decay=1.0, ema_decay=0.0, mu_dtype="float32")
    return adamw(lr=lr, warmup_steps=2000, weight_decay=weight_decay, b2=b2, **options)


def slow_sources(factor: float) -> tuple[tuple[str, float], ...]:
    """Return `config.optimizer.lr_scale`: image and text tower learn at a part of the rate of new layers over time."""
    return (("^(video/image|text|text_projection|log_scale|bias)(/|$)", factor),)


def mesh(*, fsdp: int = 1) -> dict[str, int]:
    """Return `config.mesh`: parameters over `fsdp` devices, as many replicas as there are devices left."""
    return dict(replica=-1, fsdp=fsdp, tensor=1)


def pod(*, fsdp: int = 1) -> dict[str, dict[str, Any]]:
    """Return the sections `mesh` and `sharding`: parameters replicated on every chip, or sharded over `fsdp` chips."""
    return dict(mesh=mesh(fsdp=fsdp), sharding=dict(rules="fsdp" if fsdp > 1 else "replicated"))


def long_run(*, steps: int) -> dict[str, Any]:
    """Return `config.train` of a run of days: evaluations every 2,000 steps, a checkpoint every 1,000.

    The best checkpoint is that of `evaluations`.
    """
    return dict(
        steps=steps,
        unmasked_steps=0,
        log_every=50,
        eval_every=2000,
        checkpoint_every=1000,
        keep_last=2,
        best_metric="val/t2v_R@1",
    )


def choice(given: str, known: Sequence[str]) -> str:
    """Return the argument of a config that is one of a few names.

    Raises:
      UserError: it is none of them.
    """
    if given not in known:
        raise unknown("argument of the config", given, known)
    return given


def frozen_towers() -> dict[str, Any]:
    """Return the fields of `config.task` by which heads are trained alone, on features that are computed once."""
    return dict(train_towers=False, trainable=(), cache_features=True, features_dir="")


def head_on_frozen_towers(**changes: Any) -> dict[str, Any]:
    """Return the fields of `frozen_towers`, and the splits to validate and to report on."""
    return frozen_towers() | dict(val_split="val", test_split="test") | changes


def encoder_over_time(**changes: Any) -> dict[str, Any]:
    """Return the fields of `config.task` of a small transformer over the time steps of a clip."""
    return dict(width=128, depth=2, heads=4, encoder="transformer", dropout=0.1) | changes


def clips_without_draws(**changes: Any) -> dict[str, Any]:
    """Return `config.data` of fine-tuning: clips as the checkpoint has them (None), not augmented ("")."""
    found = dict(dir=config_dict.placeholder(str), train_split="train", train_sampling="", train_video="")
    found |= dict(eval_sampling=config_dict.placeholder(str), eval_video=config_dict.placeholder(str))
    return found | dict(audio_seconds=0.0, num_threads=0, prefetch=2) | changes


def long_head_run() -> dict[str, Any]:
    """Return `config.train` of a head on the cached features of real videos."""
    every = dict(log_every=50, eval_every=500, checkpoint_every=500)
    return dict(steps=10_000, keep_last=2, keep_best=1, patience=0) | every
