"""The tensor format, beside the library that defines it."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from tvm_secret import errors, tensors

DTYPES = [
    "float64",
    "float32",
    "float16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint64",
    "uint32",
    "uint8",
    "bool",
]


def sample() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    found = {f"t.{dtype}": rng.integers(0, 2, (3, 5)).astype(dtype) for dtype in DTYPES}
    found["bf16"] = rng.standard_normal(7).astype(ml_dtypes.bfloat16)
    found["empty"] = np.zeros((0, 4), "float32")
    found["scalar"] = np.array(2.5, "float32")
    found["strided"] = np.arange(12, dtype="float32").reshape(3, 4).T
    return found


def test_round_trip_keeps_order_dtype_shape_and_values():
    loaded = tensors.load(tensors.dump(sample()))
    assert list(loaded) == list(sample())
    for name, array in sample().items():
        assert loaded[name].dtype == array.dtype
        assert loaded[name].shape == array.shape
        assert loaded[name].tobytes() == array.tobytes()


def test_the_safetensors_library_reads_what_we_write():
    wanted = {name: array for name, array in sample().items() if name != "bf16"}
    theirs = safetensors.numpy.load(tensors.dump(wanted))
    for name, array in wanted.items():
        np.testing.assert_array_equal(theirs[name], array)


def test_we_read_what_the_safetensors_library_writes():
    theirs = {name: np.ascontiguousarray(array) for name, array in sample().items() if name != "bf16"}
    ours = tensors.load(safetensors.numpy.save(theirs, {"key": "value"}))
    assert set(ours) == set(theirs)
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array)


def test_every_tensor_is_aligned():
    data = np.empty(len(tensors.dump(sample())) + 64, np.uint8)
    start = -data.ctypes.data % 64
    data[start : start + len(tensors.dump(sample()))] = np.frombuffer(tensors.dump(sample()), np.uint8)
    for array in tensors.load(data.data[start:]).values():
        assert array.size == 0 or array.ctypes.data % tensors.ALIGNMENT == 0


def test_size_is_known_before_the_pieces():
    size, pieces = tensors.pieces(sample())
    assert size == sum(memoryview(piece).nbytes for piece in pieces)


def test_unknown_dtypes_are_refused():
    with pytest.raises(ValueError, match="unsupported dtype complex64"):
        tensors.dump({"c": np.zeros(1, "complex64")})


@pytest.mark.parametrize(
    "index",
    [
        [],
        {"a": {}},
        {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 64]}},
        {"a": {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]}},
        {"a": {"dtype": "F32", "shape": [5], "data_offsets": [0, 16]}},
        {"a": {"dtype": "F32", "shape": [-1, 3], "data_offsets": [0, 16]}},
        {"a": {"dtype": "X", "shape": [4], "data_offsets": [0, 16]}},
        {"a": {"dtype": "F32", "shape": "4", "data_offsets": [0, 16]}},
        {"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}},
        {"a": {"dtype": "F32", "shape": [2**62], "data_offsets": [0, 16]}},
    ],
)
def test_lying_indices_are_refused(index):
    header = json.dumps(index).encode()
    with pytest.raises(errors.AuthenticationError, match="malformed"):
        tensors.load(len(header).to_bytes(8, "little") + header + bytes(16))


@pytest.mark.parametrize("data", [b"", b"\xff" * 8, b"\4" + bytes(7) + b"{", b"\2" + bytes(7) + b"\xff\xfe"])
def test_garbage_is_refused(data):
    with pytest.raises(errors.AuthenticationError, match="malformed"):
        tensors.load(data)
