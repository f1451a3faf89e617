"""What a sealer with the right keys wrote, however strange, opens to what was sealed or raises `SecretError`.

An input is the header's core, its recipients and the plaintext, with zeros between them. They are encrypted,
authenticated and signed for the fuzzer, so that it meets what stands behind those checks.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator

import tvm_secret as secret
from fuzz.harness import KnownKey
from tvm_secret.envelope import open_stream
from tvm_secret.errors import SecretError
from tvm_secret.header import CONTENT_TYPES, Header
from tvm_secret.suites import SUITES

KEY = KnownKey()


def seeds() -> Iterator[bytes]:
    stanzas = json.dumps([{"type": "known", "key": KEY.key_id}]).encode()
    for suite in SUITES:
        for size in (0, 5):
            core = {"content": "params", "salt": "ab" * 32, "size": size, "suite": suite}
            yield b"\0".join([json.dumps(core).encode(), stanzas, b"x" * size])
    core |= {"bundle": "12" * 16, "policy": {"not_before": "2026-01-01T00:00:00Z", "device_id": "34" * 16}}
    yield b"\0".join([json.dumps(core).encode(), stanzas, b"01234"])
    core |= {"signer": "56" * 16, "policy": {"not_after": "2126-01-01T00:00:00Z"}}
    yield b"\0".join([json.dumps(core).encode(), stanzas, b"01234"])


def check(data: bytes) -> None:
    core_bytes, recipients_bytes, plaintext = (*data.split(b"\0", 2), b"", b"")[:3]
    try:
        core = json.loads(core_bytes)
        suite, salt = SUITES[core["suite"]], bytes.fromhex(core["salt"])
    except (ValueError, KeyError, TypeError, RecursionError):
        core, suite, salt = {}, SUITES["aes-eax"], b""
    known = {"salt": salt.hex(), "suite": suite.name}
    header = Header(known, [], core_bytes or b" ", recipients_bytes or b" ")
    payload = io.BytesIO()
    mended = suite.encrypt(header.payload_key(KEY.session_key), header.core_bytes, [plaintext], payload.write)
    if mended:
        payload.seek(mended[0])
        payload.write(mended[1])
    if isinstance(core, dict) and "signer" in core:
        header.signature = hashlib.sha256(payload.getvalue()).digest() + bytes(64)
    header.authenticate(KEY.session_key)
    sealed = bytes(header) + payload.getvalue()
    with secret.use(identity=KEY):
        try:
            opened, read = open_stream(io.BytesIO(sealed), len(sealed), content_type=tuple(CONTENT_TYPES))
        except SecretError:
            return
    with opened:
        assert bytes(opened) == plaintext
    assert read.core == core
