"""Private keys, passphrases, session keys and plaintext appear in no message, repr, log or traceback."""

from __future__ import annotations

import logging
import traceback

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import tvm_secret as secret
from conftest import PASSPHRASE
from tvm_secret import artefact, context, envelope, errors, tensors
from tvm_secret.memory import SecretBuffer

PLAIN = b"the plaintext that nobody may print"


@pytest.fixture
def secrets(keys):
    """Every form in which a secret of this test could show."""
    session_key = bytes(range(100, 132))
    key = keys.identity()._private_key
    numbers = key.private_numbers()
    found = {
        "passphrase": PASSPHRASE.encode(),
        "session key": session_key,
        "plaintext": PLAIN,
        "private key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())[60:120],
        "prime": str(numbers.p).encode()[:40],
        "exponent": hex(numbers.d).encode()[2:42],
    }
    return session_key, found


def appears(value: bytes, text: str) -> bool:
    import base64

    forms = {repr(value)[2:-1], value.hex(), base64.b64encode(value).decode()[:-4], str(list(value))[1:-1]}
    return any(form in text for form in forms)


def test_nothing_secret_is_printed(keys, alice, bob, secrets, monkeypatch, caplog, capfd, tmp_path):
    session_key, forms = secrets
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(envelope.os, "urandom", lambda size: (session_key * 4)[:size])
    sealed = secret.seal(PLAIN, content_type="params")
    parts = artefact.seal_artefact([PLAIN], artefact.Interface([], [], []), {})
    monkeypatch.undo()

    said = [repr(value) for value in (keys, keys.identity(), secret.inspect(sealed), SecretBuffer(8))]
    said += [repr(context.current().recipients()), repr(secret.unseal(sealed, content_type="params"))]
    attempts = [
        lambda: secret.unseal(sealed[:-1] + b"x", content_type="params"),
        lambda: secret.unseal(sealed, content_type="ir-module"),
        lambda: secret.unseal(PLAIN * 100, content_type="params"),
        lambda: secret.unseal_json(secret.seal(PLAIN, content_type="inputs"), content_type="inputs"),
        lambda: artefact.open_artefact([*parts[:2], sealed]),
        lambda: tensors.load(PLAIN),
        lambda: secret.seal(PLAIN, content_type="params", recipients=["nowhere.pem"]),
    ]
    for attempt in attempts:
        with pytest.raises(errors.SecretError) as caught:
            attempt()
        said.append("".join(traceback.format_exception(caught.value)))
    with context.use(identity=bob.private), pytest.raises(errors.SecretError) as caught:
        secret.unseal(sealed, content_type="params")
    said.append(str(caught.value))
    with (
        context.use(identity=bob.private, passphrase=PASSPHRASE + "x"),
        pytest.raises(errors.SecretError) as caught,
    ):
        secret.unseal(sealed, content_type="params")
    said.append("".join(traceback.format_exception(caught.value)))

    text = "\n".join([*said, caplog.text, *capfd.readouterr()])
    assert len(said) > 10
    for name, value in forms.items():
        assert not appears(value, text), name


def test_the_search_itself_finds_secrets(secrets):
    _, forms = secrets
    for value in forms.values():
        assert appears(value, f"leaked: {value!r}")
        assert appears(value, f"leaked: {value.hex()}")
