"""A small ONNX classifier, made with `onnx` and checked with ONNX Runtime."""

from __future__ import annotations

import numpy as np

SHAPE = (1, 3, 32, 32)


def onnx_bytes(seed: int = 0, *, name: str = "weight", batch: int | str = 1) -> bytes:
    """Convolution, ReLU, pooling and a dense layer: input `data`, output `scores` (batch, 10)."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(seed)
    kernel = rng.standard_normal((16, 3, 3, 3)).astype("float32")
    dense = rng.standard_normal((16, 10)).astype("float32")
    graph = helper.make_graph(
        [
            helper.make_node(
                "Conv", ["data", f"{name}.kernel"], ["c"], pads=[1, 1, 1, 1], name=f"{name}.conv"
            ),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("GlobalAveragePool", ["r"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("MatMul", ["f", f"{name}.dense"], ["scores"], name=f"{name}.matmul"),
        ],
        "classifier",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [batch, *SHAPE[1:]])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 10])],
        [numpy_helper.from_array(kernel, f"{name}.kernel"), numpy_helper.from_array(dense, f"{name}.dense")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def image(seed: int = 1, batch: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, *SHAPE[1:])).astype("float32")


def reference(model: bytes, data: np.ndarray) -> np.ndarray:
    """What ONNX Runtime gives."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {"data": data})[0]
