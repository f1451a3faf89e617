"""Any change to a sealed file, in either layout, makes opening raise `SecretError`; unchanged, it opens.

An input is the number of a known-answer file and edits of it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

from cryptography.hazmat.primitives.serialization import load_pem_public_key

import tvm_secret as secret
from fuzz.harness import VectorIdentity, edited, vectors
from tvm_secret.envelope import open_stream
from tvm_secret.errors import SecretError
from tvm_secret.signing import Trust, Verifier

GOOD = [case for case in vectors()["good"] if len(case["plaintext"]) < 1000]
IDENTITY = VectorIdentity()
SIGNER = Verifier(load_pem_public_key(vectors()["signer"].encode()))


def seeds() -> Iterator[bytes]:
    for number in range(len(GOOD)):
        for what in range(7):
            yield bytes([number, what, 40 * what, 1, 0, 3, 1])
        yield bytes([number])


def check(data: bytes) -> None:
    case = GOOD[data[0] % len(GOOD)] if data else GOOD[0]
    good = base64.b64decode(case["sealed"])
    sealed = edited(good, data[1:])
    with secret.use(identity=IDENTITY) as keys:
        if case.get("signed"):
            object.__setattr__(keys, "trust", lambda: Trust({SIGNER.key_id: SIGNER}))
        try:
            with open_stream(io.BytesIO(sealed), len(sealed), content_type=case["content_type"])[0] as plain:
                opened = bytes(plain)
        except SecretError:
            assert sealed != good, "a good file does not open"
            return
    assert sealed == good, "a changed file opens"
    assert opened == base64.b64decode(case["plaintext"])
