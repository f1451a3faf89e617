"""An interface is read to fields of their declared types, or `AuthenticationError` is raised."""

from __future__ import annotations

from collections.abc import Iterator

from tvm_secret.artefact import Interface, TensorInfo
from tvm_secret.errors import AuthenticationError


def seeds() -> Iterator[bytes]:
    info = TensorInfo("x", [1, "n"], "float32")
    yield Interface([info], [info], [3], features=["avx2"], versions={"tvm": "0.27"}).to_json()
    yield b"[]"


def check(data: bytes) -> None:
    try:
        interface = Interface.from_json(data)
    except AuthenticationError:
        return
    for info in interface.inputs + interface.outputs:
        assert isinstance(info.name, str)
        assert isinstance(info.dtype, str)
        assert all(type(size) in (int, str) for size in info.shape)
    assert all(type(size) is int and size >= 0 for size in interface.objects)
    assert all(isinstance(name, str) for name in [interface.entry, interface.target, *interface.features])
    assert isinstance(interface.features, list)
    assert isinstance(interface.versions, dict)
    assert interface.to_json()
