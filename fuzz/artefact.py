"""Any change to an artefact's tar makes opening raise `SecretError` before anything of it is used.

An input is edits of a known-answer artefact.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator

import tvm_secret as secret
from fuzz.harness import VectorIdentity, as_file, edited, vectors
from tvm_secret import artefact
from tvm_secret.errors import SecretError

GOOD = base64.b64decode(vectors()["artefact"])
IDENTITY = VectorIdentity()


def seeds() -> Iterator[bytes]:
    yield b""
    for position in (0, 100, 124, 148, 156, 257, 345, 500, 512, 4608, len(GOOD) - 1, len(GOOD) - 1024):
        for what in range(7):
            yield bytes([what, *position.to_bytes(3, "little"), 7, 1])


def check(data: bytes) -> None:
    tar = edited(GOOD, data)
    with as_file(tar) as path, secret.use(identity=IDENTITY):
        try:
            opened = artefact.open_artefact(path)
        except SecretError:
            assert tar != GOOD, "a good artefact does not open"
            return
    opened.close()
    assert tar == GOOD, "a changed artefact opens"
    assert opened.objects == [b"object code"]
