"""Add to processors/ what six further public models give for the film and for strings.

Run once, elsewhere: `python make_film_vectors.py processors FRAMES`, with open_clip 3.3.0, timm 1.0.31, transformers
5.24.0, torchvision 0.28.0 and torch 2.13.0. FRAMES has the decoded frames, which `make_processors.py film` writes; the
pixels in processors/NAME.npz are its public processors' as well. The tests read the files only.

`viclip` and `internvideo2`: their repositories are in no package index, so the networks are written out here from the
layouts of the weights; each is first held against what the repository's own code gave (io.npz of the neighbouring
folders). The words of the three tokenizers of CLIP's kind are few: their public class, with a small table of its own.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as f

HERE = Path(__file__).parent
ENDS = ["<|startoftext|>", "<|endoftext|>"]
TEXTS = ["a  tree", " THE Sun on the SEA", "on" + 15 * " a hat"]
WORDS = {
    "mobileclip": ("aehinorstu", ["t h", "th e</w>", "o n</w>", "s t", "r e", "i n", "a n", "s e", "e a</w>"]),
    "viclip": (
        "abcdefghijklmnopqrstuvwxyz",
        ["t h", "th e</w>", "o n</w>", "s t", "r e", "re d</w>", "i n", "a n", "s e", "u n</w>"],
    ),
}
WORDS["internvideo2"] = WORDS["viclip"]


def film(frames, places):
    """Return frames uint8 `[T,3,H,W]`."""
    return torch.tensor(frames[list(places)]).permute(0, 3, 1, 2)


def weights(name):
    from safetensors.torch import load_file

    file = "open_clip_model" if (HERE / name / "open_clip_config.json").exists() else "model"
    return load_file(HERE / name / f"{file}.safetensors")


def given(name):
    with np.load(HERE / name / "io.npz") as file:
        return {key: torch.tensor(file[key]) for key in file.files}


def normalised(pixels, mean, std):
    """Pixels `[T,H,W,3]` of 0..255 as a model sees them, `[T,3,H,W]`."""
    return torch.tensor((np.asarray(pixels, np.float32) / 255 - np.float32(mean)) / np.float32(std)).permute(0, 3, 1, 2)


def same(found, wanted, rtol=1e-4):
    """Fail unless the network is that of the golden outputs."""
    away = float((found - wanted).abs().max() / wanted.abs().max())
    assert away < rtol, away


def few_words(name, folder, context_length):
    """open_clip's (and OpenAI's) tokenizer with a small table, whose files of Hugging Face's form go to `folder`."""
    from open_clip.tokenizer import SimpleTokenizer

    letters, merges = WORDS[name]
    table = [*letters, *(f"{one}</w>" for one in letters), *("".join(pair.split()) for pair in merges), *ENDS]
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(table)}) + "\n")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    tokenizer = SimpleTokenizer(context_length=context_length)
    tokenizer.encoder = {word: number for number, word in enumerate(table)}
    tokenizer.bpe_ranks = {tuple(pair.split()): rank for rank, pair in enumerate(merges)}
    tokenizer.sot_token_id, tokenizer.eot_token_id = len(table) - 2, len(table) - 1
    return tokenizer


def siglip(frames, arrays, folder):
    """open_clip's model and tokenizer class, the latter with the SentencePiece model of the neighbouring folder."""
    del frames, folder
    import open_clip.timm_model
    from open_clip.model import CustomTextCLIP
    from open_clip.tokenizer import HFTokenizer

    about = json.loads((HERE / "open_clip/siglip_exact/open_clip_config.json").read_text())["model_cfg"]
    create = open_clip.timm_model.timm.create_model
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
    open_clip.timm_model.timm.create_model = lambda name, **more: create(name, **more, **sizes)
    vision = {key: value for key, value in about["vision_cfg"].items() if key != "timm_model_kwargs"}
    own = {"embed_dim": about["embed_dim"], "vision_cfg": vision, "text_cfg": about["text_cfg"]}
    model = CustomTextCLIP(**own, init_logit_bias=-10.0).eval()
    open_clip.timm_model.timm.create_model = create
    model.load_state_dict(weights("open_clip/siglip_exact"))
    golden = given("open_clip/siglip_exact")
    same(model.encode_text(golden["ids"]), golden["text"])
    tokenizer = HFTokenizer(str(HERE / "siglip"), context_length=12, clean="canonicalize")
    ids = tokenizer(TEXTS)
    vector = model.encode_image(normalised(arrays["pixels"], 0.5, 0.5)).mean(0)
    return {"vector": vector, "ids": ids, "text_vectors": model.encode_text(ids)}


def mobileclip(frames, arrays, folder):
    """timm's FastViT and open_clip's text tower."""
    del frames
    from make_timm_clip import EMBED, FAST, small
    from open_clip.transformer import TextTransformer

    about = json.loads((HERE / "open_clip/mobileclip_s0/open_clip_config.json").read_text())["model_cfg"]["text_cfg"]
    tensors, golden = weights("open_clip/mobileclip_s0"), given("open_clip/mobileclip_s0")
    model, words = small("fastvit_mci0", **FAST).eval(), TextTransformer(**about, output_dim=EMBED).eval()
    for part, prefix in ((model, "visual.trunk."), (words, "text.")):
        own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        part.load_state_dict(own, strict=part is model)
    same(words(golden["ids"]), golden["text"])
    ids = few_words("mobileclip", folder, about["context_length"])(TEXTS)
    return {"vector": model(normalised(arrays["pixels"], 0, 1)).mean(0), "ids": ids, "text_vectors": words(ids)}


def timm_resnet(frames, arrays, folder):
    del frames, folder
    from timm.models.resnet import Bottleneck, ResNet

    model = ResNet(Bottleneck, [1, 2, 1, 1], channels=(4, 6, 8, 8), num_classes=3).eval()
    model.load_state_dict(weights("resnet/timm"))
    about = json.loads((HERE / "resnet/timm/config.json").read_text())["pretrained_cfg"]
    x = normalised(arrays["pixels"], about["mean"], about["std"])
    return {"vector": model.forward_head(model.forward_features(x), pre_logits=True).mean(0)}


def r2plus1d(frames, arrays, folder):
    del folder
    from make_processors import grey_levels, uniform
    from make_torchvision import Tiny
    from torchvision.models.video import R2Plus1D_18_Weights

    model, golden = Tiny().eval(), given("r2plus1d")
    model.load_state_dict(weights("r2plus1d"))
    preset = R2Plus1D_18_Weights.KINETICS400_V1.transforms()
    x = preset(film(frames, uniform(len(frames), 16)))  # [C,T,H,W]
    levels = grey_levels(x.permute(1, 0, 2, 3), preset.mean, preset.std)[arrays["places"]]
    away = np.abs(levels.round() - arrays["pixels"].astype(np.float32))
    assert away.max() <= 1 and away.mean() < 1e-3  # measured 1 and 3e-5: machines round apart
    seen = golden["video"].float() / 255 - torch.tensor(preset.mean)
    seen = (seen / torch.tensor(preset.std)).permute(0, 4, 1, 2, 3)
    same(model(seen).permute(0, 2, 3, 4, 1), golden["video_maps"])
    return {"vector": model(x[None])[0].mean((1, 2, 3))}  # `avgpool`, before the classifier


def linear(tensors, name, x):
    return f.linear(x, tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))


def layer_norm(tensors, name, x):
    weight = tensors[f"{name}.weight"]
    return f.layer_norm(x, weight.shape, weight, tensors[f"{name}.bias"], 1e-5)


def rms(weight, x):
    return weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def attend(q, k, v, heads, *, causal=False):
    """Softmax attention of `[B,L,D]`."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if causal:
        scores = scores + torch.full(scores.shape[-2:], -torch.inf).triu(1)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(-2)


def at_largest(x, ids):
    return x[torch.arange(len(ids)), ids.argmax(-1)]


def clip_blocks(tensors, prefix, x, heads, *, causal=False):
    """CLIP's pre-norm blocks with QuickGELU."""
    number = 0
    while f"{prefix}{number}.ln_1.weight" in tensors:
        at = f"{prefix}{number}."
        y = layer_norm(tensors, at + "ln_1", x)
        qkv = f.linear(y, tensors[at + "attn.in_proj_weight"], tensors[at + "attn.in_proj_bias"]).chunk(3, -1)
        x = x + linear(tensors, at + "attn.out_proj", attend(*qkv, heads, causal=causal))
        y = linear(tensors, at + "mlp.c_fc", layer_norm(tensors, at + "ln_2", x))
        x = x + linear(tensors, at + "mlp.c_proj", y * torch.sigmoid(1.702 * y))
        number += 1
    return x


def viclip_video(tensors, frames):
    """Frames `[B,T,3,H,W]` as the model sees them: all tokens at once, place outermost, time innermost."""
    own = {key.removeprefix("vision_encoder."): value for key, value in tensors.items()}
    x = f.conv2d(frames.flatten(0, 1), own["conv1.weight"][:, :, 0], stride=own["conv1.weight"].shape[-1])
    x = x.flatten(2).transpose(1, 2).unflatten(0, frames.shape[:2])  # [B,T,N,D]
    x = x + own["positional_embedding"][1:] + own["temporal_positional_embedding"][0, :, None]
    begin = (own["class_embedding"] + own["positional_embedding"][0]).expand(len(x), 1, -1)
    x = torch.cat([begin, x.transpose(1, 2).flatten(1, 2)], 1)
    x = clip_blocks(own, "transformer.resblocks.", layer_norm(own, "ln_pre", x), 3)
    return layer_norm(own, "ln_post", x[:, 0]) @ own["proj"]


def viclip_text(tensors, ids):
    own = {key.removeprefix("text_encoder."): value for key, value in tensors.items()}
    x = own["token_embedding.weight"][ids] + own["positional_embedding"]
    x = clip_blocks(own, "transformer.resblocks.", x, 4, causal=True)
    return at_largest(layer_norm(own, "ln_final", x), ids) @ own["text_projection"]


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def viclip(frames, arrays, folder):
    """`frames2tensor` of its demo: every n // T-th frame, `cv2.resize` to a square."""
    del arrays
    import cv2

    tensors, golden = weights("viclip"), given("viclip")
    seen = torch.stack([normalised(clip, *IMAGENET) for clip in golden["frames"]])
    same(viclip_video(tensors, seen), golden["video_embeddings"])
    same(viclip_text(tensors, golden["text_ids"]), golden["text_embeddings"])
    drawn = list(frames)[:: len(frames) // 4][:4]
    pixels = np.stack([cv2.resize(frame, (32, 32)) for frame in drawn])
    ids = few_words("viclip", folder, 12)(TEXTS)
    vector = viclip_video(tensors, normalised(pixels, *IMAGENET)[None])[0]
    return {"pixels": pixels, "vector": vector, "ids": ids, "text_vectors": viclip_text(tensors, ids)}


def internvideo2_video(tensors, frames):
    """Frames `[B,T,3,H,W]` as the model sees them: all tokens at once, time outermost; MLPs with the tanh GELU."""
    own = {key.removeprefix("vision_encoder."): value for key, value in tensors.items()}
    kernel, bias = own["patch_embed.proj.weight"][:, :, 0], own["patch_embed.proj.bias"]
    x = f.conv2d(frames.flatten(0, 1), kernel, bias, stride=kernel.shape[-1]).flatten(2).transpose(1, 2)
    x = x.unflatten(0, frames.shape[:2]).flatten(1, 2)
    x = torch.cat([own["cls_token"].expand(len(x), 1, -1), x], 1) + own["pos_embed"]
    number = 0
    while f"blocks.{number}.norm1.weight" in own:
        at = f"blocks.{number}."
        q, k, v = linear(own, at + "attn.qkv", rms(own[at + "norm1.weight"], x)).chunk(3, -1)
        q, k = rms(own[at + "attn.q_norm.weight"], q), rms(own[at + "attn.k_norm.weight"], k)
        x = x + own[at + "ls1.gamma"] * linear(own, at + "attn.proj", attend(q, k, v, 3))
        y = f.gelu(linear(own, at + "mlp.fc1", rms(own[at + "norm2.weight"], x)), approximate="tanh")
        x = x + own[at + "ls2.gamma"] * linear(own, at + "mlp.fc2", y)
        number += 1
    at, parts = "clip_projector.", []
    for name, y in (("q", x.mean(1, keepdim=True)), ("k", x), ("v", x)):
        y = layer_norm(own, f"{at}norm1_{name}", y)
        parts.append(linear(own, f"{at}cross_attn.{name}", y) + own[f"{at}cross_attn.{name}_bias"])
    x = linear(own, at + "cross_attn.proj", attend(*parts, 4))[:, 0]
    return linear(tensors, "vision_align.1", layer_norm(tensors, "vision_align.0", x))


def internvideo2_text(tensors, ids):
    own = {key.removeprefix("text_encoder."): value for key, value in tensors.items()}
    x = own["embedding_layer.weight"][ids] + own["positional_embedding.pos_embed.pos_embed"][0, 0]
    number = 0
    while f"transformer.{number}.pre_norm_mha.0.weight" in own:
        at = f"transformer.{number}."
        y = layer_norm(own, at + "pre_norm_mha.0", x)
        parts = linear(own, at + "pre_norm_mha.1.qkv_proj", y).chunk(3, -1)
        x = x + linear(own, at + "pre_norm_mha.1.out_proj", attend(*parts, 4, causal=True))
        y = linear(own, at + "pre_norm_ffn.1", layer_norm(own, at + "pre_norm_ffn.0", x))
        x = x + linear(own, at + "pre_norm_ffn.4", f.gelu(y))
        number += 1
    return at_largest(layer_norm(own, "final_layer_norm", x), ids) @ own["projection_layer"]


def internvideo2(frames, arrays, folder):
    del frames
    tensors, golden = weights("internvideo2"), given("internvideo2")
    seen = torch.stack([normalised(clip, *IMAGENET) for clip in golden["frames"]])
    same(internvideo2_video(tensors, seen), golden["video_embeddings_tanh_gelu"])
    same(internvideo2_text(tensors, golden["text_ids"]), golden["text_embeddings"])
    ids = few_words("internvideo2", folder, 12)(TEXTS)
    vector = internvideo2_video(tensors, normalised(arrays["pixels"], *IMAGENET)[None])[0]
    return {"vector": vector, "ids": ids, "text_vectors": internvideo2_text(tensors, ids)}


CASES = {"open_clip_siglip": siglip, "mobileclip": mobileclip, "timm": timm_resnet, "r2plus1d": r2plus1d}
CASES |= {"viclip": viclip, "internvideo2": internvideo2}


def main(folder, frames):
    """Write all, or those named after FRAMES."""
    torch.set_grad_enabled(False)
    for name, make in CASES.items():
        if sys.argv[3:] and name not in sys.argv[3:]:
            continue
        path = folder / f"{name}.npz"
        arrays = dict(np.load(path)) if path.exists() else {}
        arrays |= {key: np.asarray(value) for key, value in make(frames, arrays, folder / name).items()}
        if "ids" in arrays:
            arrays |= {"texts": np.array(TEXTS), "ids": arrays["ids"].astype(np.int32)}
        np.savez_compressed(path, **arrays)
        print(name, {key: np.shape(value) for key, value in arrays.items()})


if __name__ == "__main__":
    main(Path(sys.argv[1]), np.load(sys.argv[2])["frames"])
