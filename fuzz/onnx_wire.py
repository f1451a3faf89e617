"""The weights of an ONNX message are views within it, or `ValueError` is raised."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tvm.relay.frontend._onnx.wire import split_weights


def seeds() -> Iterator[bytes]:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [300])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [300])],
        [numpy_helper.from_array(np.ones(300, "float32"), "w")],
    )
    yield helper.make_model(graph).SerializeToString()


def check(data: bytes) -> None:
    try:
        rest, raw = split_weights(memoryview(data))
    except ValueError:
        return
    assert len(rest) + sum(map(len, raw.values())) <= 2 * len(data) + 64
