"""The JSON of an MXNet symbol is read to a graph without cycles, or `ModelError` is raised."""

from __future__ import annotations

import json
from collections.abc import Iterator

from fuzz.mxnet_import import SYMBOL
from tvm.relay.frontend._mxnet.model import read_symbol
from tvm_secret.errors import ModelError


def seeds() -> Iterator[bytes]:
    yield json.dumps(SYMBOL).encode()
    old = {"op": "BatchNorm", "name": "b", "param": {"eps": "1"}, "inputs": [[0, 0]] * 3}
    null = {"op": "null", "name": "x", "inputs": []}
    graph = {"nodes": [null, old], "heads": [[1, 0]], "attrs": {"mxnet_version": ["int", 800]}}
    yield json.dumps(graph).encode()


def check(data: bytes) -> None:
    try:
        outputs = read_symbol(memoryview(data))
    except ModelError:
        return
    assert outputs
