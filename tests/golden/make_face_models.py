"""Makes faces/*.onnx: networks with the inputs and outputs of YuNet and SFace that take white squares for faces.

    pip install onnx
    python tests/golden/make_face_models.py

The detector's score is near 1 where a cell of 8 x 8 pixels is white and 0 where its mean is below 80 % of white; a
"face" is 16 x 16 pixels around such a cell. The recogniser's features are differences of colours in a grid of 4 x 4.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OUT = Path(__file__).parent / "faces"
STRIDES = (8, 16, 32)
SHARP = 5.0
LANDMARKS = (0.2, 0.3, 0.8, 0.3, 0.5, 0.5, 0.25, 0.75, 0.75, 0.75)  # eyes, nose, corners of the mouth, of a cell


def detector() -> onnx.ModelProto:
    """Build the network of the detector."""
    nodes, weights, outputs = [], [], []
    for stride in STRIDES:
        seen = np.full((1, 3, 8, 8), SHARP / 192 / 255, np.float32)
        bias = {
            **{key: [1 - SHARP if stride == 8 else -1.0] for key in ("cls", "obj")},
            "bbox": [0.5, 0.5, float(np.log(2)), float(np.log(2))],
            "kps": LANDMARKS,
        }
        for name, values in bias.items():
            full = f"{name}_{stride}"
            looks = stride == 8 and name in ("cls", "obj")
            kernel = seen if looks else np.zeros((len(values), 3, 1, 1), np.float32)
            weights += [
                numpy_helper.from_array(kernel, f"{full}_w"),
                numpy_helper.from_array(np.array(values, np.float32), f"{full}_b"),
                numpy_helper.from_array(np.array([1, -1, len(values)], np.int64), f"{full}_shape"),
            ]
            nodes += [
                helper.make_node("Conv", ["input", f"{full}_w", f"{full}_b"], [f"{full}_c"], strides=[stride] * 2),
                helper.make_node("Transpose", [f"{full}_c"], [f"{full}_t"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"{full}_t", f"{full}_shape"], [full]),
            ]
            outputs.append(helper.make_tensor_value_info(full, TensorProto.FLOAT, [1, None, len(values)]))
    order = [f"{name}_{stride}" for name in ("cls", "obj", "bbox", "kps") for stride in STRIDES]
    outputs.sort(key=lambda value: order.index(value.name))
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, "height", "width"])
    return _model(helper.make_graph(nodes, "white_squares", [given], outputs, weights))


def recogniser() -> onnx.ModelProto:
    """Build the network of the recogniser."""
    kernel = np.zeros((8, 3, 1, 1), np.float32)
    for channel, (plus, minus) in enumerate([(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2), (0, 1), (1, 2)]):
        kernel[channel, plus], kernel[channel, minus] = 1 / 255, -1 / 255
    weights = [numpy_helper.from_array(kernel, "w")]
    nodes = [
        helper.make_node("AveragePool", ["data"], ["mean"], kernel_shape=[28, 28], strides=[28, 28]),
        helper.make_node("Conv", ["mean", "w"], ["grid"]),
        helper.make_node("Flatten", ["grid"], ["fc1"]),
    ]
    given = helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, 112, 112])
    found = helper.make_tensor_value_info("fc1", TensorProto.FLOAT, [1, 128])
    return _model(helper.make_graph(nodes, "colours", [given], [found], weights))


def _model(graph: onnx.GraphProto) -> onnx.ModelProto:
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(made)
    return made


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    onnx.save(detector(), OUT / "white_squares.onnx")
    onnx.save(recogniser(), OUT / "colours.onnx")
