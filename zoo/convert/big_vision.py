"""SigLIP and SigLIP 2 as big_vision writes them, one npz of arrays (Zhai et al. 2023; Tschannen et al. 2025).

There is no config: all sizes are read from the shapes. Taken for granted are the forms that all published files share:
a ViT without class token and with a MAP head, a text tower that pools its last token, tanh GELU, norms with an epsilon
of 1e-6. A patch embedding of two axes is that of the NaFlex form, see `siglip`. Layers may be numbered
(`encoderblock_0`) or stacked in one array each (`encoderblock`).
"""

import math
from collections.abc import Sequence
from typing import Any

from ...base.errors import UserError
from ...data.options import InputSpec
from ...data.text.pieces import SentencePieceTokenizer
from ..spec import ModelSpec
from .family import Conversion, Family, depth_of, shape_of, side_of
from .files import SourceFiles
from .rules import Rule, prefixed, rule
from .transforms import each_layer, headed_biases, headed_kernels, rearranged, reshaped

_PROBE = "img/MAPHead_0/probe"
_STACKS = {"img": "img/Transformer", "txt": "txt/Encoder_0"}
_ATTENTION = "MultiHeadDotProductAttention_0"
_SIDES = ("query", "key", "value")
_GEMMA = 256_000  # entries of SigLIP 2's vocabulary; SigLIP's has 32,000


def _conversion(files: SourceFiles) -> Conversion:
    start = "params/" if f"params/{_PROBE}" in files.tensors else ""
    scanned = f"{start}{_STACKS['img']}/encoderblock/LayerNorm_0/scale" in files.tensors
    image, text = (_stack(files, f"{start}{_STACKS[side]}", scanned=scanned) for side in ("img", "txt"))
    naflex = _axes(files, f"{start}img/embedding/kernel", wanted=(4, 2)) == 2
    patch = _patch(files, f"{start}img/embedding/kernel", naflex=naflex)
    shapes = {side: _positions(files, f"{start}{side}/pos_embedding") for side in _STACKS}
    side = side_of(math.prod(shapes["img"][:-1]), files=files, what="the positions of patches")
    image |= {"image_size": side * patch, "patch": patch, "pool": "attention", "position_method": "bilinear"}
    image |= {"position_antialias": True, "naflex": True} if naflex else {"position_align_corners": True}
    vocabulary = shape_of(files, f"{start}txt/Embed_0/embedding", axes=2)[0]
    length = math.prod(shapes["txt"][:-1])
    text |= {"vocab_size": vocabulary, "pool": "last", "padding_seen": True}
    embed_dim = shape_of(files, f"{start}txt/head/bias", axes=1)[0]
    if embed_dim != image["width"]:
        raise UserError(
            f"{files.name}: text vectors of width {embed_dim} (txt/head) and picture vectors of width "
            f"{image['width']} have no common space; this is not the file of a SigLIP model"
        )
    spec = ModelSpec(
        towers={"video": {"family": "frames", "image": image}, "text": {"family": "transformer", **text}},
        projections={"video": "none", "text": "affine"},
        embed_dim=embed_dim,
        initial_scale=10.0,
        initial_bias=-10.0,
        input=_input(side=side, patch=patch, length=length, gemma=vocabulary >= _GEMMA, naflex=naflex),
        tokenizer=_tokenizer(files, vocabulary=vocabulary),
    )
    rules = table(image=image, text=text, shapes=shapes, naflex=naflex, scanned=scanned)
    return Conversion(spec=spec, rules=prefixed(rules, source=start))


def table(
    *, image: dict[str, Any], text: dict[str, Any], shapes: dict[str, tuple[int, ...]], naflex: bool, scanned: bool
) -> list[Rule]:
    """Return the table of a model with these towers, without a prefix before the names of its arrays.

    Args:
      image: arguments of the image tower.
      text: arguments of the text tower.
      shapes: "img" and "txt" -> shape of the array of positions.
      naflex: the embedding of patches is a linear map of flat patches instead of a convolution.
      scanned: each array of a layer holds those of all layers.
    """
    patches = reshaped(tensor=(-1, image["width"]), parameter=(-1, image["width"]))
    if not naflex:
        patches = rearranged("p q c d", "(p q c) d", p=image["patch"], q=image["patch"], c=3)
    vision = [
        rule("embedding/kernel", "embed/out/kernel", patches),
        rule("embedding/bias", "embed/out/bias"),
        _flat("pos_embedding", "space_position", shape=shapes["img"]),
        *_layers("Transformer", heads=image["heads"], scanned=scanned),
        *prefixed(_map_head(heads=image["heads"]), source="MAPHead_0/", path="pooler/"),
    ]
    words = [
        rule("Embed_0/embedding", "embedding"),
        _flat("pos_embedding", "position", shape=shapes["txt"]),
        *_layers("Encoder_0", heads=text["heads"], scanned=scanned),
    ]
    return [
        *prefixed(vision, source="img/", path="video/image/"),
        *prefixed(words, source="txt/", path="text/"),
        *_pair("txt/head", "text_projection"),
        rule("t", "log_scale", reshaped(tensor=(1,), parameter=())),
        rule("b", "bias", reshaped(tensor=(1,), parameter=())),
    ]


def _layers(stack: str, *, heads: int, scanned: bool) -> list[Rule]:
    """Return the rules of one stack and of the norm after it."""
    own = [
        rule([f"{_ATTENTION}/{side}/kernel" for side in _SIDES], "attention/qkv/kernel", headed_kernels(heads=heads)),
        rule([f"{_ATTENTION}/{side}/bias" for side in _SIDES], "attention/qkv/bias", headed_biases(heads=heads)),
        rule(f"{_ATTENTION}/out/kernel", "attention/out/kernel", rearranged("k d o", "(k d) o", k=heads)),
        rule(f"{_ATTENTION}/out/bias", "attention/out/bias"),
        *(*_pair("LayerNorm_0", "norm1", of="scale"), *_pair("LayerNorm_1", "norm2", of="scale")),
        *(*_pair("MlpBlock_0/Dense_0", "up"), *_pair("MlpBlock_0/Dense_1", "down")),
    ]
    if scanned:
        own = [Rule(one.sources, one.paths, each_layer(one.transform)) for one in own]
    number = "" if scanned else "_#"
    return [
        *prefixed(own, source=f"{stack}/encoderblock{number}/", path="blocks/layers/"),
        *_pair(f"{stack}/encoder_norm", "blocks/norm", of="scale"),
    ]


def _map_head(*, heads: int) -> list[Rule]:
    into, bias = rearranged("i k d", "i (k d)", k=heads), rearranged("k d", "(k d)", k=heads)
    attention = [
        *(rule(f"{side}/kernel", f"{side}/kernel", into) for side in _SIDES),
        *(rule(f"{side}/bias", f"{side}/bias", bias) for side in _SIDES),
        rule("out/kernel", "out/kernel", rearranged("k d o", "(k d) o", k=heads)),
        rule("out/bias", "out/bias"),
    ]
    return [
        rule("probe", "query", reshaped(tensor=(1, 1, -1), parameter=(1, -1))),
        *prefixed(attention, source=f"{_ATTENTION}/", path="attention/"),
        *_pair("LayerNorm_0", "norm_mlp", of="scale"),
        *(*_pair("MlpBlock_0/Dense_0", "mlp/up"), *_pair("MlpBlock_0/Dense_1", "mlp/down")),
    ]


def _pair(source: str, path: str, *, of: str = "kernel") -> list[Rule]:
    return [rule(f"{source}/{name}", f"{path}/{name}") for name in (of, "bias")]


def _flat(source: str, path: str, *, shape: tuple[int, ...]) -> Rule:
    return rule(source, path, reshaped(tensor=shape, parameter=(-1, shape[-1])))


def _axes(files: SourceFiles, name: str, *, wanted: Sequence[int]) -> int:
    """Return how many axes an array has; the first of `wanted` if it has none of these numbers, or is not there."""
    found = files.tensors[name].ndim if name in files.tensors else 0
    return found if found in wanted else wanted[0]


def _patch(files: SourceFiles, name: str, *, naflex: bool) -> int:
    if not naflex:
        return shape_of(files, name, axes=4)[0]
    return side_of(shape_of(files, name, axes=2)[0] // 3, files=files, what="the pixels of a patch")


def _positions(files: SourceFiles, name: str) -> tuple[int, ...]:
    """Return the shape of positions: [1,N,D] or [N,D], or with a grid instead of N."""
    return shape_of(files, name, axes=_axes(files, name, wanted=(3, 2, 4)))


def _stack(files: SourceFiles, stack: str, *, scanned: bool) -> dict[str, Any]:
    """Return width, depth, heads and MLP of one tower."""
    first = f"{stack}/encoderblock" + ("" if scanned else "_0")
    query = shape_of(files, f"{first}/{_ATTENTION}/query/kernel", axes=4 if scanned else 3)
    depth = query[0] if scanned else depth_of(files, f"{stack}/encoderblock_", end="/")
    hidden = shape_of(files, f"{first}/MlpBlock_0/Dense_0/bias", axes=2 if scanned else 1)[-1]
    width, heads = query[-3:-1]
    return {
        **{"width": width, "depth": depth, "heads": heads, "activation": "gelu"},
        "block": {"mlp_hidden": hidden, "norm_epsilon": 1e-6},
    }


def _input(*, side: int, patch: int, length: int, gemma: bool, naflex: bool) -> InputSpec:
    size = side * patch
    return InputSpec(
        num_frames=8,
        eval_video=f"naflex({side * side},{patch})" if naflex else f"resize_tensorflow({size},{size})",
        text="lower" if gemma else "canonicalize",
        context_length=length,
    )


def _tokenizer(files: SourceFiles, *, vocabulary: int) -> dict[str, Any]:
    """Return the tokenizer's meta, {} if the folder has none: SentencePiece without begin, with a sticky end."""
    if files.has("tokenizer.json"):
        return files.tokenizer()
    models = sorted(files.folder.glob("*.model"))
    if not models:
        return {}
    padding = 0 if vocabulary >= _GEMMA else 1  # c4_en: the end token
    return SentencePieceTokenizer(models[0].read_bytes(), add_bos=False, add_eos=True, pad_id=padding).to_meta()


FAMILY = Family(
    name="big_vision",
    models=("SigLIP and SigLIP 2 on gs://big_vision: webli_en_*.npz, siglip2_*.npz",),
    licence="Apache-2.0",
    matches=lambda files: (
        not files.config
        and any(files.folder.glob("*.npz"))
        and (f"params/{_PROBE}" in files.tensors or _PROBE in files.tensors)
    ),
    conversion=_conversion,
)
