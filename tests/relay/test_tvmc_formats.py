"""Every format through the command line alone: encrypt, compile by what the file says it holds, run."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest

RNG = np.random.default_rng(0)
KERNEL = RNG.standard_normal((3, 3, 3, 4)).astype("float32")  # TensorFlow's order
IMAGE = RNG.standard_normal((2, 8, 8, 3)).astype("float32")
INPUT = "x"


@pytest.fixture(scope="module")
def wanted() -> np.ndarray:
    """relu(conv(IMAGE, KERNEL)), (2, 6, 6, 4), by PyTorch."""
    import torch

    image, kernel = torch.from_numpy(IMAGE), torch.from_numpy(KERNEL)
    result = torch.relu(torch.conv2d(image.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1)))
    return result.permute(0, 2, 3, 1).numpy()


def torch_module():
    import torch

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel = torch.nn.Parameter(torch.from_numpy(KERNEL.transpose(3, 2, 0, 1).copy()))

        def forward(self, x):
            return torch.relu(torch.conv2d(x, self.kernel))

    return Network().eval(), torch.from_numpy(IMAGE.transpose(0, 3, 1, 2).copy())


def keras_model():
    import keras

    image = keras.Input((8, 8, 3), batch_size=2, name=INPUT)
    layer = keras.layers.Conv2D(4, 3, activation="relu", use_bias=False)
    model = keras.Model(image, layer(image))
    layer.set_weights([KERNEL])
    return model


def concrete_function():
    import tensorflow as tf

    return tf.function(lambda x: tf.nn.relu(tf.nn.conv2d(x, KERNEL, 1, "VALID"))).get_concrete_function(
        tf.TensorSpec((2, 8, 8, 3), name=INPUT)
    )


def torchscript(folder: Path) -> list[Path]:
    import torch

    torch.jit.trace(*torch_module()).save(folder / "model.pt")
    return [folder / "model.pt"]


def pt2(folder: Path) -> list[Path]:
    import torch

    module, image = torch_module()
    torch.export.save(torch.export.export(module, (image,)), folder / "model.pt2")
    return [folder / "model.pt2"]


def onnx(folder: Path) -> list[Path]:
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("Conv", [INPUT, "w"], ["c"]), helper.make_node("Relu", ["c"], ["y"])],
        "g",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [2, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4, 6, 6])],
        [numpy_helper.from_array(KERNEL.transpose(3, 2, 0, 1).copy(), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return [folder / "model.onnx"]


def frozen_graph(folder: Path) -> list[Path]:
    (folder / "model.pb").write_bytes(concrete_function().graph.as_graph_def().SerializeToString())
    return [folder / "model.pb"]


def saved_model(folder: Path) -> list[Path]:
    import tensorflow as tf

    module = tf.Module()
    module.kernel = tf.Variable(KERNEL)
    module.call = tf.function(
        lambda x: tf.nn.relu(tf.nn.conv2d(x, module.kernel, 1, "VALID")),
        input_signature=[tf.TensorSpec((2, 8, 8, 3), name=INPUT)],
    )
    tf.saved_model.save(module, str(folder / "model"), signatures=module.call)
    return [folder / "model"]


def tflite(folder: Path) -> list[Path]:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete_function()])
    (folder / "model.tflite").write_bytes(converter.convert())
    return [folder / "model.tflite"]


def keras_archive(folder: Path) -> list[Path]:
    keras_model().save(folder / "model.keras")
    return [folder / "model.keras"]


def keras_hdf5(folder: Path) -> list[Path]:
    keras_model().save(folder / "model.h5")
    return [folder / "model.h5"]


def mxnet(folder: Path) -> list[Path]:
    """Written by hand: the symbol's JSON, and MXNet's binary list of one named array."""
    nodes = [
        {"op": "null", "name": INPUT, "inputs": []},
        {"op": "null", "name": "w", "inputs": []},
        {
            "op": "Convolution",
            "name": "c",
            "attrs": {"kernel": "(3, 3)", "num_filter": "4", "no_bias": "True"},
            "inputs": [[0, 0, 0], [1, 0, 0]],
        },
        {"op": "Activation", "name": "y", "attrs": {"act_type": "relu"}, "inputs": [[2, 0, 0]]},
    ]
    symbol = {"nodes": nodes, "arg_nodes": [0, 1], "heads": [[3, 0, 0]]}
    (folder / "model-symbol.json").write_text(json.dumps(symbol))
    kernel = KERNEL.transpose(3, 2, 0, 1).copy()
    params = io.BytesIO()
    params.write(struct.pack("<QQQ", 0x112, 0, 1))
    params.write(struct.pack("<Iii4q", 0xF993FAC9, 0, 4, *kernel.shape))
    params.write(struct.pack("<iii", 1, 0, 0) + kernel.tobytes())
    params.write(struct.pack("<QQ", 1, 5) + b"arg:w")
    (folder / "model-0000.params").write_bytes(params.getvalue())
    return [folder / "model-symbol.json", folder / "model-0000.params"]


CASES = {
    "torchscript": (torchscript, "pytorch", "NCHW"),
    "pt2": (pt2, "pytorch", "NCHW"),
    "onnx": (onnx, "onnx", "NCHW"),
    "frozen graph": (frozen_graph, "pb", "NHWC"),
    "SavedModel": (saved_model, "pb", "NHWC"),
    "tflite": (tflite, "tflite", "NHWC"),
    "keras": (keras_archive, "keras", "NHWC"),
    "hdf5": (keras_hdf5, "keras", "NHWC"),
    "mxnet": (mxnet, "mxnet", "NCHW"),
}
NEED_SHAPES = {"torchscript", "mxnet"}


@pytest.mark.parametrize("case", CASES)
def test_format_from_file_to_prediction(tmp_path, tvmc, wanted, case):
    make, name, layout = CASES[case]
    files = make(tmp_path)
    tvmc("encrypt", *files, "-o", "sealed")
    shape = "2,3,8,8" if layout == "NCHW" else "2,8,8,3"
    shapes = ["--input-shapes", f"{INPUT}:[{shape}]"] if case in NEED_SHAPES else []
    tvmc("compile", "-o", "guessed.tar", "sealed", *shapes)
    tvmc("compile", "--model-format", name, "-o", "model.tar", "sealed", *shapes)

    image = IMAGE if layout == "NHWC" else IMAGE.transpose(0, 3, 1, 2).copy()
    (only,) = inputs_of(tvmc)
    for tar in ("guessed.tar", "model.tar"):
        # TensorFlow's `:0` is accepted wherever its users write it.
        np.savez(tmp_path / "in.npz", **{f"{only}:0" if name == "pb" else only: image})
        tvmc("run", "-i", "in.npz", "-o", "out.npz", tar)
        with np.load(tmp_path / "out.npz") as outputs:
            (output,) = outputs.values()
        actual = output if layout == "NHWC" else output.transpose(0, 2, 3, 1)
        np.testing.assert_allclose(actual, wanted, rtol=0, atol=1e-4)


def inputs_of(tvmc) -> list[str]:
    from tvm_secret import context
    from tvm_secret.runtime import GraphModule

    with (
        context.use(identity=tvmc.keys.private, passphrase="correct horse battery"),
        GraphModule(tvmc.folder / "model.tar") as module,
    ):
        return [info.name for info in module.inputs]


@pytest.mark.parametrize("name", ["serving/image:0", "serving/image"])
def test_names_that_are_paths(tmp_path, tvmc, wanted, name):
    """TensorFlow's scopes make paths of names; they pass through shapes, artefact and .npz."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder("float32", (None, 8, 8, 3), name="serving/image")
        tf.nn.relu(tf.nn.conv2d(image, KERNEL, 1, "VALID"))
    (tmp_path / "model.pb").write_bytes(graph.as_graph_def().SerializeToString())
    tvmc("encrypt", "model.pb", "-o", "sealed")
    tvmc("compile", "--input-shapes", f"{name}:[2,8,8,3]", "-o", "model.tar", "sealed")
    np.savez(tmp_path / "in.npz", **{name: IMAGE})
    tvmc("run", "--inputs", "in.npz", "--output", "out.npz", "model.tar")
    with np.load(tmp_path / "out.npz") as outputs:
        np.testing.assert_allclose(outputs["output_0"], wanted, rtol=0, atol=1e-4)
    assert {path.name for path in tmp_path.iterdir()} == {
        "model.pb", "sealed", "model.tar", "in.npz", "out.npz",
    }  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_wrong_format_is_refused(tmp_path, tvmc, case):
    make, name, _ = CASES[case]
    tvmc("encrypt", *make(tmp_path), "-o", "sealed")
    other = "onnx" if name != "onnx" else "keras"
    tvmc.refuses("compile", "--model-format", other, "-o", "x.tar", "sealed", match="is wanted")


def test_incomplete_models_are_refused(tmp_path, tvmc):
    symbol, params = mxnet(tmp_path)
    for files in ([symbol], [params], [symbol, params, params]):
        tvmc.refuses("encrypt", *files, "-o", "sealed", match="-symbol.json")
    onnx(tmp_path)
    tvmc.refuses("encrypt", tmp_path / "model.onnx", symbol, "-o", "sealed", match="only an MXNet model")
