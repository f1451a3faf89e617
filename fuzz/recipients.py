"""Whatever a list of recipients holds, unwrapping it raises `SecretError` or gives a session key."""

from __future__ import annotations

import json
from collections.abc import Iterator

from fuzz.harness import VectorIdentity
from tvm_secret import keyfiles
from tvm_secret.errors import SecretError
from tvm_secret.header import _parse_recipients
from tvm_secret.recipients import hpke

IDENTITIES = (VectorIdentity(), hpke.HpkeIdentity(keyfiles.generate_post_quantum()))


def seeds() -> Iterator[bytes]:
    for identity in IDENTITIES:
        stanza = identity.recipient().wrap(bytes(32))
        yield json.dumps([stanza]).encode()
        yield json.dumps([stanza | {"hash": "sha1"}, stanza | {"wrapped": "AAAA"}]).encode()


def check(data: bytes) -> None:
    try:
        stanzas = _parse_recipients(data)
    except SecretError:
        return
    for stanza in stanzas:
        for identity in IDENTITIES:
            try:
                assert isinstance(identity.unwrap(stanza), bytes)
            except SecretError:
                continue
