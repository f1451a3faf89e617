"""A header is read to the very bytes that it came from, or `SecretError` is raised."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

from fuzz.harness import vectors
from tvm_secret.errors import SecretError
from tvm_secret.header import read_header


def seeds() -> Iterator[bytes]:
    for case in vectors()["good"]:
        sealed = base64.b64decode(case["sealed"])
        if len(case["plaintext"]) < 1000:
            yield sealed
    yield from (base64.b64decode(case["sealed"])[:4200] for case in vectors()["broken"])


def check(data: bytes) -> None:
    file = io.BytesIO(data)
    try:
        header = read_header(file, len(data))
    except SecretError:
        return
    assert bytes(header) == data[: file.tell()]
    assert file.tell() + header.payload_size == len(data)
    header.check_content_type((header.content_type,))
    text = "".join(value for stanza in header.recipients for value in stanza.values())
    assert text.isprintable(), "a stanza could send control characters to a terminal"
