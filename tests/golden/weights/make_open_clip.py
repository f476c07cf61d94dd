"""Write open_clip/: tiny models with random weights and what they give (open_clip 3.3.0, timm 1.0.31, torch 2.13.0).

Run once, elsewhere: `python make_open_clip.py open_clip`. The tests read the files only. The image towers of timm are
made smaller than their names say; `timm_model_kwargs` in the configs, which open_clip does not have, holds their sizes.
"""

import json
import sys
from pathlib import Path

import numpy as np
import open_clip.timm_model
import timm
import torch
from make_clip import MEAN, STD, randomised
from open_clip.model import CLIP, CustomTextCLIP
from safetensors.torch import save_file

VOCABULARY, LENGTH = 79, 12
HALF = np.float32([0.5] * 3)
TEXT = {"context_length": LENGTH, "vocab_size": VOCABULARY, "width": 20, "heads": 2, "layers": 2}
NATIVE = {"image_size": 32, "layers": 3, "width": 24, "head_width": 8, "patch_size": 8}
SIGLIP_TEXT = {"width": 24, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
SIGLIP_TEXT |= {"norm_kwargs": {"eps": 1e-6}, "tokenizer_kwargs": {"clean": "canonicalize"}}


def write(folder, *, model, config, mean, std, interpolation="bicubic", resize="shortest"):
    """Write one model and io.npz."""
    folder.mkdir(parents=True, exist_ok=True)
    randomised(model)
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    seen = torch.tensor(((frames / 255).astype(np.float32) - mean) / std).permute(0, 3, 1, 2)
    ids, rng = np.zeros((3, LENGTH), np.int64), np.random.default_rng(3)
    for row, length in enumerate((3, 6, LENGTH - 1)):
        ids[row, :length] = rng.integers(1, VOCABULARY - 2, length)
        ids[row, length] = VOCABULARY - 1
    with torch.no_grad():
        image, text = model.encode_image(seen).numpy(), model.encode_text(torch.tensor(ids)).numpy()
    np.savez(folder / "io.npz", pixels=frames, ids=ids, image=image, text=text)
    save_file({key: value.contiguous().clone() for key, value in model.state_dict().items()},
              folder / "open_clip_model.safetensors")  # fmt: skip
    shown = {"mean": mean.tolist(), "std": std.tolist(), "interpolation": interpolation, "resize_mode": resize}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": shown}))


def smaller(**sizes):
    """Let open_clip build timm's models with other sizes."""
    open_clip.timm_model.timm.create_model = lambda name, **given: REAL(name, **given, **sizes)


REAL = timm.create_model


def main(out):
    """Write all models."""
    torch.manual_seed(0)
    for name, quick in (("native", {}), ("quick", {"quick_gelu": True})):
        model = CLIP(embed_dim=12, vision_cfg=NATIVE, text_cfg=TEXT, **quick)
        config = {"embed_dim": 12, "vision_cfg": NATIVE, "text_cfg": TEXT, **quick}
        write(out / name, model=model, config=config, mean=MEAN, std=STD)
    kind = {"image_size": 32, "timm_model_pretrained": False, "timm_pool": "map"}
    smaller(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3)
    own = {"timm_model_kwargs": {"patch": 8, "width": 24, "depth": 2, "heads": 3}}
    forms = (("exact", "vit_base_patch16_siglip_224", {}),
             ("tanh", "vit_so400m_patch16_siglip_256", {"act_kwargs": {"approximate": "tanh"}}))  # fmt: skip
    for name, trunk, more in forms:
        text, vision = TEXT | SIGLIP_TEXT | more, kind | {"timm_model_name": trunk, "timm_proj": "none"}
        model = CustomTextCLIP(embed_dim=24, vision_cfg=vision, text_cfg=text, init_logit_bias=-10.0)
        config = {"embed_dim": 24, "vision_cfg": vision | own, "text_cfg": text, "init_logit_bias": -10}
        config["custom_text"] = True
        write(out / f"siglip_{name}", model=model, config=config, mean=HALF, std=HALF, resize="squash")
    sizes = {"patch": 8, "width": 48, "depth": 2, "heads": 3, "pool_heads": 4}
    smaller(img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3, ref_feat_shape=(4, 4), attn_pool_num_heads=4)
    vision = kind | {"timm_model_name": "vit_pe_core_base_patch16_224", "timm_proj": None}
    model = CustomTextCLIP(embed_dim=24, vision_cfg=vision, text_cfg=TEXT)
    vision |= {"timm_model_kwargs": sizes}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT, "custom_text": True}
    write(out / "pe_core", model=model, config=config, mean=HALF, std=HALF, interpolation="bilinear", resize="squash")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
