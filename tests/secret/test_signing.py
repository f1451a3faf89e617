"""Signatures and policies: what an attacker tries, and the refusal each must meet."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest

import tvm_secret as secret
from tvm_secret import context, errors, policy
from tvm_secret.header import Header


@pytest.fixture
def signed(keys, alice):
    with context.use(sign_key=alice.sign_private):
        return lambda plain=b"model", **options: secret.seal(plain, content_type="params", **options)


@pytest.fixture
def trusting_alice(keys, alice):
    with context.use(signers=[alice.sign_public]):
        yield


def make_signed(alice, plain=b"model", **options) -> bytes:
    with context.use(sign_key=alice.sign_private):
        return secret.seal(plain, content_type="params", **options)


def opened(sealed) -> bytes:
    with secret.unseal(sealed, content_type="params") as plain:
        return bytes(plain)


def rebuilt(sealed: bytes, **changes) -> bytes:
    """The same file with parts of its header exchanged, and nothing re-authenticated."""
    old = secret.inspect(sealed)
    parts = {
        "core": old.core,
        "recipients": old.recipients,
        "signature": old.signature,
        "tag": old.tag,
    } | changes
    return bytes(Header(**parts)) + sealed[-old.payload_size :]


def test_signed_by_a_trusted_signer_opens(trusting_alice, alice):
    assert opened(make_signed(alice)) == b"model"
    assert secret.verify(make_signed(alice)).signer


def test_unsigned_is_refused(trusting_alice):
    with pytest.raises(errors.SignatureError, match="not signed"):
        opened(secret.seal(b"model", content_type="params"))


def test_raw_layout_is_refused(trusting_alice):
    with pytest.raises(errors.SignatureError, match="not signed"):
        opened(secret.seal(b"model", content_type="params", layout="raw"))


def test_a_stranger_with_the_public_key_alone_is_refused(trusting_alice, alice, bob):
    hostile = make_signed(bob, recipients=[alice.public])
    with pytest.raises(errors.SignatureError, match="not among the trusted signers"):
        opened(hostile)


def test_a_stranger_cannot_claim_to_be_the_signer(trusting_alice, alice, bob):
    hostile = make_signed(bob, recipients=[alice.public])
    core = secret.inspect(hostile).core | {"signer": secret.inspect(make_signed(alice)).signer}
    with pytest.raises(errors.SignatureError, match="does not fit"):
        opened(rebuilt(hostile, core=core))


def test_a_signature_cannot_be_moved_to_another_file(trusting_alice, alice):
    first, second = make_signed(alice, b"one"), make_signed(alice, b"two")
    with pytest.raises(errors.SignatureError, match="does not fit"):
        opened(rebuilt(first, signature=secret.inspect(second).signature))


def test_a_signed_header_cannot_take_another_payload(trusting_alice, alice):
    first, second = make_signed(alice, b"one"), make_signed(alice, b"two")
    size = secret.inspect(first).payload_size
    with pytest.raises(errors.AuthenticationError, match="payload was altered"):
        opened(first[:-size] + second[-size:])


def test_a_recipient_cannot_put_another_payload_under_the_signature(trusting_alice, alice):
    """Whoever opens a file knows its keys; the signature has to stop what the AEAD cannot."""
    from tvm_secret import envelope

    sealed = make_signed(alice, b"one")
    header = secret.inspect(sealed)
    session_key = envelope._session_key(header, context.current().identity())
    forged: list[bytes] = []
    offset, tag = header.suite.encrypt(
        header.payload_key(session_key), header.core_bytes, [b"two"], forged.append
    )
    payload = bytearray(b"".join(forged))
    payload[offset : offset + 16] = tag
    forgery = sealed[: -header.payload_size] + bytes(payload)
    with pytest.raises(errors.AuthenticationError, match="not the one that was signed"):
        opened(forgery)
    with context.use(signers=()):
        assert opened(forgery) == b"two"  # which shows that the forgery is a good one


def test_the_signature_cannot_be_removed(keys, alice):
    sealed = make_signed(alice)
    with pytest.raises(errors.SignatureError, match="was removed"):
        opened(rebuilt(sealed, signature=b""))
    core = {name: value for name, value in secret.inspect(sealed).core.items() if name != "signer"}
    with pytest.raises(errors.AuthenticationError, match="header was altered"):
        opened(rebuilt(sealed, core=core, signature=b""))


@pytest.mark.parametrize("field", ["content", "salt", "size", "suite", "bundle", "signer", "policy"])
@pytest.mark.parametrize("trusted", [False, True])
def test_every_field_of_the_core_is_authenticated(keys, alice, field, trusted):
    limits = policy.make(not_after=datetime.now(timezone.utc) + timedelta(days=1))
    sealed = make_signed(alice, policy=limits)
    other = {
        "content": "inputs",
        "salt": "00" * 32,
        "size": 4,
        "suite": "cobblestone-256",
        "bundle": "00" * 16,
        "signer": "00" * 16,
        "policy": {},
    }
    broken = rebuilt(sealed, core=secret.inspect(sealed).core | {field: other[field]})
    with context.use(signers=[alice.sign_public] if trusted else None), pytest.raises(errors.SecretError):
        opened(broken)


def test_recipients_cannot_be_added_by_who_cannot_open(trusting_alice, alice, bob):
    sealed = make_signed(alice)
    stanzas = secret.inspect(sealed).recipients
    extra = secret.inspect(secret.seal(b"", content_type="params", recipients=[bob.public])).recipients
    with pytest.raises(errors.AuthenticationError, match="header was altered"):
        opened(rebuilt(sealed, recipients=stanzas + extra))


def test_a_signer_taken_off_the_list_is_refused(keys, alice, bob):
    sealed = make_signed(alice)
    with context.use(signers=[bob.sign_public]), pytest.raises(errors.SignatureError, match="not among"):
        opened(sealed)


def test_signers_from_the_environment_and_from_a_folder(keys, alice, bob, tmp_path, monkeypatch):
    (tmp_path / "owner.pem").write_bytes(alice.sign_public.read_bytes())
    monkeypatch.setenv("TVM_SECRET_SIGNERS", str(tmp_path))
    with context.use():
        assert opened(make_signed(alice)) == b"model"
        with pytest.raises(errors.SignatureError):
            opened(make_signed(bob, recipients=[alice.public]))


def test_unusable_signers(keys, alice, tmp_path):
    (tmp_path / "text.pem").write_text("no key")
    for path, message in {
        tmp_path / "missing.pem": "cannot read",
        tmp_path / "text.pem": "not a public key",
        alice.public: "not a signer's public key",
    }.items():
        with context.use(signers=[path]), pytest.raises(errors.SignatureError, match=message):
            opened(make_signed(alice))
    with context.use(sign_key=alice.private), pytest.raises(errors.SignatureError, match="not a signing key"):
        secret.seal(b"", content_type="params")


def test_verify_needs_no_private_key(alice):
    with context.use(recipients=[alice.public], passphrase="correct horse battery"):
        sealed = make_signed(alice)
    with context.use(signers=[alice.sign_public], identity="nowhere"):
        assert secret.verify(sealed).signer == secret.inspect(sealed).signer
        with pytest.raises(errors.AuthenticationError, match="not the one that was signed"):
            secret.verify(sealed[:-1] + bytes([sealed[-1] ^ 1]))
    with context.use(identity="nowhere"), pytest.raises(errors.SignatureError, match="no signer to verify"):
        secret.verify(sealed)


# --- policies


def at(monkeypatch, moment: datetime) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return moment.astimezone(tz)

    monkeypatch.setattr(policy, "datetime", Clock)


NOON = datetime(2026, 6, 1, 12, tzinfo=timezone.utc)


def test_times_are_kept(keys, monkeypatch):
    limits = policy.make(not_before=NOON, not_after=NOON + timedelta(hours=1))
    sealed = secret.seal(b"m", content_type="params", policy=limits)
    at(monkeypatch, NOON - timedelta(seconds=1))
    with pytest.raises(errors.PolicyError, match="must not be opened before 2026-06-01T12:00:00Z"):
        opened(sealed)
    at(monkeypatch, NOON)
    assert opened(sealed) == b"m"
    at(monkeypatch, NOON + timedelta(hours=1, seconds=1))
    with pytest.raises(errors.PolicyError, match="expired at 2026-06-01T13:00:00Z"):
        opened(sealed)


def test_devices_are_told_apart(keys, monkeypatch, tmp_path):
    machine = tmp_path / "machine-id"
    machine.write_text("0123456789abcdef0123456789abcdef\n")
    monkeypatch.setattr(policy, "_MACHINE_ID", machine)
    sealed = secret.seal(b"m", content_type="params", policy=policy.make(device_id=policy.device_id()))
    assert opened(sealed) == b"m"
    assert machine.read_text().strip() not in json.dumps(secret.inspect(sealed).core)
    machine.write_text("f123456789abcdef0123456789abcdef\n")
    with pytest.raises(errors.PolicyError, match="bound to the device"):
        opened(sealed)


def test_policies_that_make_no_sense(keys):
    with pytest.raises(errors.PolicyError, match="never be opened"):
        policy.make(not_before=NOON, not_after=NOON)
    for wrong in ({"runs": "3"}, {"not_after": "tomorrow"}, {"device_id": "this one"}):
        with pytest.raises(errors.PolicyError, match="unknown or malformed"):
            policy.check_form(wrong)


def test_revoked_signers_are_refused_with_and_without_a_list_of_trusted_ones(keys, alice, bob, tmp_path):
    sealed = make_signed(alice)
    revoked = tmp_path / "revoked.txt"
    revoked.write_text(f"# leaked in May\n{secret.inspect(sealed).signer}  # alice\n\n")
    for signers in ((), [alice.sign_public, bob.sign_public]):
        with context.use(signers=signers, revoked=revoked):
            with pytest.raises(errors.SignatureError, match="who is revoked"):
                opened(sealed)
            assert opened(make_signed(bob, recipients=[alice.public])) == b"model"
    with (
        context.use(signers=[alice.sign_public], revoked=revoked),
        pytest.raises(errors.SignatureError, match="who is revoked"),
    ):
        secret.verify(sealed)


def test_a_list_of_revoked_signers_that_cannot_be_read_stops_everything(keys, alice, tmp_path, monkeypatch):
    (tmp_path / "names").write_text("alice\n")
    for path, message in {tmp_path / "names": "not a key id", tmp_path / "missing": "cannot read"}.items():
        monkeypatch.setenv("TVM_SECRET_REVOKED", str(path))
        with context.use(), pytest.raises(errors.SignatureError, match=message):
            opened(make_signed(alice))


def test_what_is_made_from_a_model_inherits_its_times(keys, monkeypatch):
    import small_model
    from tvm import relay
    from tvm_secret import artefact
    from tvm_secret.runtime import GraphModule

    limits = policy.make(not_after=datetime.now(timezone.utc) + timedelta(hours=1))
    model = secret.seal(small_model.onnx_bytes(), content_type="model/onnx", policy=limits)
    module, params = relay.frontend.from_onnx(model)
    later = policy.make(not_before=NOON)
    parts = relay.build(module, params=params, policy=later)
    for part in parts:
        assert secret.inspect(part).policy == limits | later
    artefact.open_artefact(parts).close()
    at(monkeypatch, datetime.now(timezone.utc) + timedelta(hours=2))
    with pytest.raises(errors.PolicyError, match="expired"):
        GraphModule(parts)
