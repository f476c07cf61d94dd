"""Write big_vision/: the tiny SigLIP of siglip/ under the names and in the layout of big_vision's npz files.

Run once: `python make_big_vision.py` (NumPy and safetensors). The names are those that transformers'
`convert_siglip2_to_hf.py` reads. What the model gives is in siglip/io.npz.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

HERE = Path(__file__).parent
HEADS = {"img": 3, "txt": 2}
LAYERS = {"img": 3, "txt": 2}
MLP = {"MlpBlock_0/Dense_0": "mlp.fc1", "MlpBlock_0/Dense_1": "mlp.fc2"}
ATTENTION = "MultiHeadDotProductAttention_0"


def main():
    """Write the npz."""
    old, new = load_file(HERE / "siglip" / "model.safetensors"), {}

    def dense(name, source):
        new[f"{name}/kernel"], new[f"{name}/bias"] = old[f"{source}.weight"].T, old[f"{source}.bias"]

    def norm(name, source):
        new[f"{name}/scale"], new[f"{name}/bias"] = old[f"{source}.weight"], old[f"{source}.bias"]

    def heads(name, weight, bias, count):
        """A Linear [K*d, D] as a kernel [D,K,d]: row k*d+i of the weight is channel i of head k."""
        rows, width = weight.shape
        kernel = np.zeros((width, count, rows // count), np.float32)
        for row in range(rows):
            kernel[:, row // (rows // count), row % (rows // count)] = weight[row]
        new[f"{name}/kernel"], new[f"{name}/bias"] = kernel, bias.reshape(count, -1)

    def out(name, source, count):
        weight = old[f"{source}.weight"]  # [D, K*d]
        new[f"{name}/kernel"] = weight.T.reshape(count, -1, weight.shape[0])
        new[f"{name}/bias"] = old[f"{source}.bias"]

    for side, tower, stack in (("img", "vision_model", "Transformer"), ("txt", "text_model", "Encoder_0")):
        for layer in range(LAYERS[side]):
            name, source = f"params/{side}/{stack}/encoderblock_{layer}", f"{tower}.encoder.layers.{layer}"
            norm(f"{name}/LayerNorm_0", f"{source}.layer_norm1")
            norm(f"{name}/LayerNorm_1", f"{source}.layer_norm2")
            for ours, theirs in MLP.items():
                dense(f"{name}/{ours}", f"{source}.{theirs}")
            for one in ("query", "key", "value"):
                linear = f"{source}.self_attn.{one[0]}_proj"
                heads(f"{name}/{ATTENTION}/{one}", old[f"{linear}.weight"], old[f"{linear}.bias"], HEADS[side])
            out(f"{name}/{ATTENTION}/out", f"{source}.self_attn.out_proj", HEADS[side])
    norm("params/img/Transformer/encoder_norm", "vision_model.post_layernorm")
    norm("params/txt/Encoder_0/encoder_norm", "text_model.final_layer_norm")
    new["params/img/embedding/kernel"] = old["vision_model.embeddings.patch_embedding.weight"].transpose(2, 3, 1, 0)
    new["params/img/embedding/bias"] = old["vision_model.embeddings.patch_embedding.bias"]
    new["params/img/pos_embedding"] = old["vision_model.embeddings.position_embedding.weight"][None]
    new["params/txt/Embed_0/embedding"] = old["text_model.embeddings.token_embedding.weight"]
    new["params/txt/pos_embedding"] = old["text_model.embeddings.position_embedding.weight"][None]
    dense("params/txt/head", "text_model.head")
    pool, source = "params/img/MAPHead_0", "vision_model.head"
    new[f"{pool}/probe"] = old[f"{source}.probe"]
    weights, biases = (np.split(old[f"{source}.attention.in_proj_{kind}"], 3) for kind in ("weight", "bias"))
    for one, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
        heads(f"{pool}/{ATTENTION}/{one}", weight, bias, HEADS["img"])
    out(f"{pool}/{ATTENTION}/out", f"{source}.attention.out_proj", HEADS["img"])
    norm(f"{pool}/LayerNorm_0", f"{source}.layernorm")
    for ours, theirs in MLP.items():
        dense(f"{pool}/{ours}", f"{source}.{theirs}")
    new["params/t"], new["params/b"] = old["logit_scale"], old["logit_bias"]
    (HERE / "big_vision").mkdir(exist_ok=True)
    np.savez(HERE / "big_vision" / "siglip.npz", **{key: np.ascontiguousarray(value) for key, value in new.items()})


if __name__ == "__main__":
    main()
