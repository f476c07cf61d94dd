"""Write open_clip/{mobileclip_*,eva*}: tiny models with random weights and what they give.

open_clip 3.3.0, timm 1.0.31, torch 2.13.0. Run once, elsewhere: `python make_timm_clip.py open_clip`. The tests read
the files only. timm's models are made smaller than their names say; `timm_model_kwargs` in the configs, which open_clip
does not have, holds their sizes as twinreel calls them.
"""

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import timm
import torch
from open_clip.transformer import TextTransformer
from safetensors.torch import save_file
from timm.layers import HybridEmbed
from timm.models.fastvit import LayerScale2d
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_hybrid import ConvStem
from timm.utils import reparameterize_model
from torch import nn

MEAN, STD = np.float32([0.48145466, 0.4578275, 0.40821073]), np.float32([0.26862954, 0.26130258, 0.27577711])
EMBED = 16


def hybrid(_):
    """Return MobileCLIP-B's ViT, whose widths timm fixes, put together from its pieces."""
    stem = ConvStem(channels=(6, 6, 24), stride=(4, 2, 2), kernel_size=(4, 2, 2), padding=0, act_layer=nn.GELU)
    embed = partial(HybridEmbed, backbone=stem, proj=False)
    sizes = {"embed_dim": 24, "depth": 2, "num_heads": 3, "no_embed_class": True, "img_size": 32, "patch_size": 1}
    return VisionTransformer(embed_layer=embed, **sizes, num_classes=EMBED, global_pool="token")


def small(name, **sizes):
    """Return a model of timm with other sizes."""
    return timm.create_model(name, num_classes=EMBED, **sizes)


FAST = {"embed_dims": (8, 8, 16, 32), "layers": (1, 2, 1, 1)}
LARGE = {"embed_dims": (8, 8, 16, 32, 64), "layers": (1, 1, 1, 1, 1), "mlp_ratios": (2,) * 5}
VIT = {"embed_dim": 24, "depth": 2, "num_heads": 3, "img_size": 32, "patch_size": 8, "dynamic_img_size": True}
TIMM = {"global_pool": "token"}
OURS = {"width": 24, "depth": 2, "heads": 3, "patch": 8}
FORMS = {
    "mobileclip_b": ("vit_base_mci_224", hybrid, OURS | {"patch": 16, "patch_stem": [6, 6]}, "token"),
    "mobileclip_l": ("vit_large_patch14_clip_224", partial(small, **VIT, **TIMM), OURS, "token"),
    "mobileclip_s0": (
        "fastvit_mci0",
        partial(small, **FAST),
        {"widths": [8, 8, 16, 32], "depths": [1, 2, 1, 1]},
        "avg",
    ),
    "mobileclip_s3": (
        *("fastvit_mci3", partial(small, **LARGE)),
        *({"widths": [8, 8, 16, 32, 64], "depths": [1] * 5, "mlp_ratios": [2.0] * 5}, "avg"),
    ),
    "eva02": (
        *("eva02_base_patch16_clip_224", partial(small, **VIT | {"num_heads": 2}, ref_feat_shape=(6, 6))),
        *(OURS | {"heads": 2, "rotary_side": 6}, "token"),
    ),
    "eva01": ("eva_giant_patch14_clip_224", partial(small, **VIT, mlp_ratio=2.5), OURS | {"mlp_ratio": 2.5}, "token"),
}


def randomised(model):
    """Give every parameter and every statistic a value that matters."""
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn_like(value) * (0.1 if value.ndim > 1 else 0.05))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)
            if isinstance(module, LayerScale2d):
                module.gamma.uniform_(0.5, 1)
    return model.eval()


def seen(frames, *, mean, std):
    """Return what the model sees of uint8 [B,H,W,3]."""
    return torch.tensor(((frames / 255).astype(np.float32) - mean) / std).permute(0, 3, 1, 2)


def write(folder, *, name, model, sizes, pool):
    """Write weights, config and io.npz of one model."""
    folder.mkdir(parents=True, exist_ok=True)
    side = 64 if "fastvit" in name else 32
    zero = "eva" not in name and "large" not in name and "mci3" not in name
    mean, std = (np.zeros(3, np.float32), np.ones(3, np.float32)) if zero else (MEAN, STD)
    length, causal = 9, pool == "token"
    text = {"context_length": length, "vocab_size": 31, "width": 16, "heads": 2, "layers": 1}
    words = randomised(TextTransformer(**text, output_dim=EMBED, no_causal_mask=not causal))
    tensors = {f"visual.trunk.{key}": value for key, value in model.state_dict().items()}
    tensors |= {f"text.{key}": value for key, value in words.state_dict().items() if key != "attn_mask"}
    save_file({**tensors, "logit_scale": torch.tensor(3.0)}, folder / "open_clip_model.safetensors")
    vision = {"timm_model_name": name, "timm_pool": pool, "timm_proj": None, "image_size": side}
    vision |= {"timm_model_kwargs": sizes}
    shown = {"mean": mean.tolist(), "std": std.tolist(), "interpolation": "bilinear", "resize_mode": "shortest"}
    config = {"embed_dim": EMBED, "vision_cfg": vision, "text_cfg": text | {"no_causal_mask": not causal}}
    config = {"model_cfg": config | {"custom_text": True}, "preprocess_cfg": shown}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=1))
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    ids = rng.integers(1, 29, (3, length))
    for row, end in enumerate((4, 8, 6)):
        ids[row, end], ids[row, end + 1 :] = 30, 0
    pixels = seen(frames, mean=mean, std=std)
    with torch.no_grad():
        found = {"image": model(pixels).numpy(), "text": words(torch.tensor(ids)).numpy()}
        if "mci_224" not in name:  # whose positions timm does not resize
            found["big"] = rng.integers(0, 256, (2, side + 16, side + 8, 3), dtype=np.uint8)
            found["big_image"] = model(seen(found["big"], mean=mean, std=std)).numpy()
    np.savez(folder / "io.npz", pixels=frames, ids=ids, **found)
    return pixels, found["image"]


def main(folder):
    """Write all forms."""
    for name, (public, make, sizes, pool) in FORMS.items():
        torch.manual_seed(0)
        model = randomised(make(public))
        pixels, image = write(folder / name, name=public, model=model, sizes=sizes, pool=pool)
        if name == "mobileclip_s0":  # the same model with the sums of its branches
            summed = reparameterize_model(model)
            tensors = {f"visual.trunk.{key}": value.numpy() for key, value in summed.state_dict().items()}
            kept = {key: value for key, value in tensors.items() if not key.endswith("num_batches_tracked")}
            np.savez(folder / name / "summed.npz", **kept)
            with torch.no_grad():
                print(np.abs(summed(pixels).numpy() - image).max())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
