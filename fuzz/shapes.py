"""Shapes, on the command line or as sealed JSON, are sizes and names, or refused with the caller's own error.

The first byte chooses between the two.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

import tvm_secret as secret
from fuzz.harness import KnownKey
from tvm.relay.frontend.common import _shapes
from tvm_secret.cli.compile import parse_shapes
from tvm_secret.errors import SecretError

KEY = KnownKey()


def seeds() -> Iterator[bytes]:
    yield b"\0data:[1,3,224,224] mask:[n,8]"
    yield b"\0x:0:[1, 2],y:[]"
    yield b"\1" + json.dumps({"data": [1, 3, 224, "n"], "y": []}).encode()


def check(data: bytes) -> None:
    shapes = _parsed(data[1:]) if data[:1] < b"\1" else _sealed(data[1:])
    for name, dimensions in (shapes or {}).items():
        assert isinstance(name, str)
        for size in dimensions:
            assert (type(size) is int and size >= 0) or (isinstance(size, str) and size)


def _parsed(data: bytes) -> dict | None:
    try:
        return parse_shapes(data.decode("utf-8", "surrogateescape"))
    except (argparse.ArgumentTypeError, ValueError):  # what argparse makes a usage error of
        return None


def _sealed(data: bytes) -> dict | None:
    with secret.use(identity=KEY, recipients=[KEY]):
        sealed = secret.seal(data, content_type="input-shapes")
        try:
            return _shapes(secret.unseal_json(sealed, content_type="input-shapes"))
        except SecretError:
            return None
