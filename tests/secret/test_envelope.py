"""Seal and open: every boundary length, then tamper, swap, cut and extend."""

from __future__ import annotations

import os
import random
import threading

import pytest
from Crypto.Cipher import AES, PKCS1_OAEP
from Crypto.PublicKey import RSA

import tvm_secret as secret
from tvm_secret import context, envelope, errors, keyfiles
from tvm_secret.recipients.rsa import RsaRecipient
from tvm_secret.suites import SUITES

CHUNK = 16384
LENGTHS = [
    0,
    1,
    15,
    16,
    17,
    63,
    64,
    65,
    CHUNK - 1,
    CHUNK,
    CHUNK + 1,
    1 << 20,
    (1 << 20) + 1,
    3 * CHUNK,
    (5 << 20) - 7,
]


def sealed_params(plain=b"weights" * 100, **options) -> bytes:
    return secret.seal(plain, content_type="params", **options)


def opened(sealed, content_type="params") -> bytes:
    with secret.unseal(sealed, content_type=content_type) as plain:
        return bytes(plain)


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("length", LENGTHS)
def test_what_was_sealed_comes_back(keys, suite, length):
    plain = os.urandom(length)
    assert opened(sealed_params(plain, suite=suite)) == plain


@pytest.mark.parametrize("length", LENGTHS)
def test_raw_layout_comes_back(keys, length):
    plain = os.urandom(length)
    assert opened(sealed_params(plain, layout="raw")) == plain


@pytest.mark.parametrize("suite", SUITES)
def test_plaintext_is_aligned_in_memory(keys, suite):
    import ctypes

    buffer = secret.unseal(sealed_params(suite=suite), content_type="params")
    assert ctypes.addressof(ctypes.c_char.from_buffer(buffer.view)) % 64 == 0


def test_two_seals_of_one_plaintext_share_no_bytes_that_matter(keys):
    first, second = (secret.inspect(sealed_params()) for _ in range(2))
    assert first.core["salt"] != second.core["salt"]
    assert first.recipients[0]["wrapped"] != second.recipients[0]["wrapped"]
    assert first.tag != second.tag


def test_raw_layout_is_what_the_original_system_read_and_wrote(keys, alice):
    """PyCryptodome alone, as the original system used it, on both sides."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    public = RSA.import_key(alice.public.read_bytes())
    key = os.urandom(16)
    cipher = AES.new(key, AES.MODE_EAX)
    body, tag = cipher.encrypt_and_digest(b"an old model")
    old = PKCS1_OAEP.new(public).encrypt(key) + cipher.nonce + tag + body
    assert opened(old) == b"an old model"

    new = sealed_params(b"for an old reader", layout="raw")
    der = keys.identity()._private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    size = public.size_in_bytes()
    session_key = PKCS1_OAEP.new(RSA.import_key(der)).decrypt(new[:size])
    assert len(session_key) == 16
    cipher = AES.new(session_key, AES.MODE_EAX, new[size : size + 16])
    assert cipher.decrypt_and_verify(new[size + 32 :], new[size + 16 : size + 32]) == b"for an old reader"


# --- refusals


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("signed", [False, True])
def test_any_flipped_byte_is_refused(keys, alice, suite, signed):
    plain = os.urandom(300)
    with context.use(sign_key=alice.sign_private if signed else None):
        sealed = sealed_params(plain, suite=suite)
    with context.use(signers=[alice.sign_public] if signed else None):
        assert opened(sealed) == plain
        blanks = range(sealed.index(b"]    ") + 1, 4096 - 200)
        for place in sorted({*range(len(sealed))} - {*blanks[::2], *blanks[1::7]}):
            broken = bytearray(sealed)
            broken[place] ^= 1 << random.randrange(8)
            with pytest.raises(errors.SecretError):
                opened(bytes(broken))


@pytest.mark.parametrize("suite", SUITES)
def test_any_cut_is_refused(keys, suite):
    sealed = sealed_params(os.urandom(200), suite=suite)
    for length in {*range(0, len(sealed), 13), *range(4000, len(sealed))}:
        with pytest.raises(errors.SecretError):
            opened(sealed[:length])


@pytest.mark.parametrize("suite", SUITES)
def test_anything_appended_is_refused(keys, suite):
    sealed = sealed_params(suite=suite)
    for tail in (b"\0", b"x" * 16, sealed):
        with pytest.raises(errors.AuthenticationError, match="appended"):
            opened(sealed + tail)


@pytest.mark.parametrize("suite", SUITES)
def test_no_thread_outlives_a_refusal(keys, tmp_path, suite):
    sealed = bytearray(secret.seal(bytes(6 << 20), content_type="params", suite=suite))
    sealed[-(6 << 20)] ^= 1  # the first of its pieces, while others are being read
    (tmp_path / "altered").write_bytes(sealed)
    before = set(threading.enumerate())
    with pytest.raises(errors.AuthenticationError) as refusal:
        secret.unseal(tmp_path / "altered", content_type="params")
    assert set(threading.enumerate()) == before
    assert refusal.value.__context__ is not None  # which keeps alive what had begun


def test_raw_layout_refuses_flips_cuts_and_tails(keys):
    sealed = sealed_params(b"w" * 100, layout="raw")
    for place in range(0, len(sealed), 3):
        broken = bytearray(sealed)
        broken[place] ^= 0x40
        with pytest.raises(errors.SecretError):
            opened(bytes(broken))
    for changed in (sealed[:-1], sealed[:100], sealed + b"\0"):
        with pytest.raises(errors.SecretError):
            opened(changed)


def test_large_chunks_cannot_be_exchanged_or_dropped(keys):
    sealed = sealed_params(os.urandom(4 * CHUNK), suite="cobblestone-256")
    start = len(sealed) - secret.inspect(sealed).payload_size + 56
    chunk = CHUNK + 16
    first, second = (sealed[start + i * chunk : start + (i + 1) * chunk] for i in (0, 1))
    swapped = sealed[:start] + second + first + sealed[start + 2 * chunk :]
    with pytest.raises(errors.AuthenticationError, match="payload"):
        opened(swapped)


def test_payloads_of_two_files_cannot_be_exchanged(keys):
    first, second = sealed_params(b"a" * 64), sealed_params(b"b" * 64)
    size = secret.inspect(first).payload_size
    with pytest.raises(errors.AuthenticationError, match="payload was altered"):
        opened(first[:-size] + second[-size:])


def test_headers_of_two_files_cannot_be_mixed(keys):
    first, second = (envelope.inspect(sealed_params(b"a" * 64)) for _ in range(2))
    mixed = envelope.Header(first.core, second.recipients, tag=first.tag)
    with pytest.raises(errors.AuthenticationError, match="header was altered"):
        opened(bytes(mixed) + bytes(first.payload_size))


def test_a_stranger_cannot_open(keys, bob):
    sealed = sealed_params()
    with (
        context.use(identity=bob.private),
        pytest.raises(errors.IdentityError, match="wrong key, or not among its recipients"),
    ):
        opened(sealed)


def test_raw_layout_for_another_key(keys, bob):
    sealed = sealed_params(layout="raw")
    with (
        context.use(identity=bob.private),
        pytest.raises(errors.NotSealedError, match="not sealed to this private key"),
    ):
        opened(sealed)


def test_wrong_passphrase(alice):
    with (
        context.use(identity=alice.private, recipients=[alice.public], passphrase="not the one"),
        pytest.raises(errors.PassphraseError, match="does not open the private key"),
    ):
        opened(sealed_params())


def test_no_passphrase_and_no_terminal(alice):
    with (
        context.use(identity=alice.private, recipients=[alice.public]),
        pytest.raises(errors.PassphraseError, match="TVM_SECRET_PASSPHRASE"),
    ):
        opened(sealed_params())


def test_wrong_content_type(keys):
    with pytest.raises(errors.ContentTypeError, match="holds params, where ir-module is wanted"):
        opened(sealed_params(), "ir-module")


def test_content_type_cannot_be_edited(keys):
    sealed = sealed_params()
    with pytest.raises(errors.AuthenticationError, match="header was altered"):
        opened(sealed.replace(b'"content":"params"', b'"content":"inputs"'), "inputs")


@pytest.mark.parametrize("plain", [b"", b"\x08\x07\x12\x07pytorch" + bytes(4000)])
def test_plain_bytes_are_not_sealed(keys, plain):
    with pytest.raises(errors.NotSealedError):
        opened(plain)


def test_plain_bytes_name_the_remedy(keys):
    with pytest.raises(errors.NotSealedError, match="tvmc encrypt"):
        opened(b"\x08\x07\x12\x07pytorch" + bytes(4000))
    with pytest.raises(errors.NotSealedError, match="tvmc encrypt"):
        secret.unseal({"data": [1, 3]}, content_type="input-shapes")


def test_a_newer_version_says_so(keys):
    sealed = bytearray(sealed_params())
    sealed[8] = 2
    with pytest.raises(errors.NotSealedError, match="format version 2"):
        opened(bytes(sealed))


def test_unknown_names_are_refused_when_sealing(keys):
    with pytest.raises(errors.ContentTypeError, match="unknown content type"):
        secret.seal(b"", content_type="model/unknown")
    with pytest.raises(errors.SecretError, match="unknown suite"):
        sealed_params(suite="rot13")
    with pytest.raises(errors.SecretError, match="unknown layout"):
        sealed_params(layout="flat")


def test_raw_layout_has_one_recipient_and_no_header(keys, alice, bob):
    with pytest.raises(errors.RecipientError, match="exactly one"):
        sealed_params(layout="raw", recipients=[alice.public, bob.public])
    with pytest.raises(errors.NotSealedError):
        secret.inspect(sealed_params(layout="raw"))
    with (
        context.use(sign_key=alice.sign_private),
        pytest.raises(errors.SecretError, match="can be neither signed"),
    ):
        sealed_params(layout="raw")


# --- files


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("signed", [False, True])
def test_files_equal_bytes(keys, alice, tmp_path, suite, signed):
    plain = os.urandom((2 << 20) + 77)
    (tmp_path / "plain").write_bytes(plain)
    with context.use(sign_key=alice.sign_private if signed else None):
        secret.seal_file(tmp_path / "plain", tmp_path / "x", content_type="model/onnx", suite=suite)
    with context.use(signers=[alice.sign_public] if signed else None):
        assert opened(tmp_path / "x", "model/onnx") == plain
        assert opened((tmp_path / "x").read_bytes(), "model/onnx") == plain


def test_a_failed_seal_leaves_nothing(keys, tmp_path, monkeypatch):
    (tmp_path / "plain").write_bytes(b"x" * 1000)
    (tmp_path / "out").write_bytes(b"what was there")

    def fail(*_):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        secret.seal_file(tmp_path / "plain", tmp_path / "out", content_type="model/onnx", progress=fail)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "plain"]
    assert (tmp_path / "out").read_bytes() == b"what was there"


def test_errors_about_files_name_them(keys, tmp_path):
    path = tmp_path / "model.sealed"
    path.write_bytes(sealed_params()[:-1])
    with pytest.raises(errors.AuthenticationError, match=r"model\.sealed: it was cut short"):
        opened(path)


# --- recipients


def test_every_recipient_opens_and_nobody_else(keys, alice, bob, tmp_path):
    sealed = sealed_params(b"for two", recipients=[alice.public, bob.public])
    assert opened(sealed) == b"for two"
    with context.use(identity=bob.private):
        assert opened(sealed) == b"for two"


def test_recipients_from_a_folder_and_from_one_file(keys, alice, bob, tmp_path):
    folder = tmp_path / "devices"
    folder.mkdir()
    (folder / "a.pem").write_bytes(alice.public.read_bytes())
    (folder / "b.pem").write_bytes(bob.public.read_bytes())
    (tmp_path / "all.pem").write_bytes(b"# devices\n" + alice.public.read_bytes() + bob.public.read_bytes())
    for source in (folder, tmp_path / "all.pem"):
        header = secret.inspect(sealed_params(recipients=[source, alice.public]))
        assert len({stanza["key"] for stanza in header.recipients}) == len(header.recipients) == 2


def test_unusable_recipients(keys, alice, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.pem").write_text("no key")
    (tmp_path / "cut.pem").write_bytes(alice.public.read_bytes() + b"-----BEGIN PUBLIC KEY-----\n" * 50_000)
    cases = {
        tmp_path / "missing.pem": "cannot read the public key",
        tmp_path / "empty": r"holds no \.pem file",
        tmp_path / "text.pem": "holds no public key",
        tmp_path / "cut.pem": "a PEM block in it has no end",
        alice.private: "not a recipient's public key",
        alice.sign_public: "not a public key that can be sealed to",
    }
    for source, message in cases.items():
        with pytest.raises(errors.RecipientError, match=message):
            sealed_params(recipients=[source])
    with pytest.raises(errors.RecipientError, match="empty"):
        sealed_params(recipients=[])


def test_rewrap_replaces_recipients_and_nothing_else(keys, alice, bob, tmp_path):
    with context.use(sign_key=alice.sign_private):
        (tmp_path / "a").write_bytes(sealed_params(b"model" * 1000))
    secret.rewrap(tmp_path / "a", tmp_path / "b", [bob.public])
    old, new = (tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes()
    header = secret.inspect(new)
    assert new[-header.payload_size :] == old[-header.payload_size :]
    assert header.core_bytes == secret.inspect(old).core_bytes
    with context.use(signers=[alice.sign_public]):
        with pytest.raises(errors.IdentityError):
            opened(new)
        with context.use(identity=bob.private):
            assert opened(new) == b"model" * 1000


@pytest.mark.parametrize("recipients", [1, 12])
def test_rewrap_in_place(keys, bob, tmp_path, recipients):
    """With a header of one block, which is overwritten, and a longer one, which takes a new file."""
    path = tmp_path / "a"
    path.write_bytes(sealed_params(b"model"))
    before = path.stat().st_ino
    strangers = [RsaRecipient(keyfiles.generate_rsa(2048).public_key()) for _ in range(recipients - 1)]
    secret.rewrap(path, path, [bob.public, *strangers])
    with context.use(identity=bob.private):
        assert opened(path) == b"model"
    assert (path.stat().st_ino == before) == (recipients == 1)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("signed", [False, True])
def test_payloads_start_at_whole_blocks(keys, alice, bob, signed):
    with context.use(sign_key=alice.sign_private if signed else None):
        for recipients in ([alice.public], [alice.public, bob.public]):
            sealed = sealed_params(recipients=recipients)
            assert (len(sealed) - secret.inspect(sealed).payload_size) % 4096 == 0


def test_rewrap_needs_a_key_that_opens(keys, bob, tmp_path):
    (tmp_path / "a").write_bytes(sealed_params(recipients=[bob.public]))
    with pytest.raises(errors.IdentityError):
        secret.rewrap(tmp_path / "a", tmp_path / "b", [bob.public])
    assert not (tmp_path / "b").exists()


def test_no_keys_anywhere_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(errors.RecipientError, match="tvmc keygen"):
        sealed_params()
    with pytest.raises(errors.IdentityError, match="tvmc keygen"):
        opened(b"x" * 1000)


def test_keys_of_the_current_folder_are_the_default(alice, tmp_path, monkeypatch):
    for path in (alice.private, alice.public):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TVM_SECRET_PASSPHRASE", "correct horse battery")
    with context.use():
        assert opened(sealed_params(b"here")) == b"here"


def test_json_comes_back(keys):
    shapes = {"data": [1, 3, 224, 224], "ids": ["n", 8]}
    sealed = secret.seal_json(shapes, content_type="input-shapes")
    assert secret.unseal_json(sealed, content_type="input-shapes") == shapes


def test_a_thousand_recipients_cost_one_private_key_operation(keys, alice, monkeypatch):
    """The stanza is found by its key id; no other is tried."""
    identity = keys.identity()
    mine = identity.recipient()
    sealed = sealed_params(b"for a fleet")
    header = secret.inspect(sealed)
    strangers = [header.recipients[0] | {"key": f"{number:032x}"} for number in range(999)]
    session_key = identity.unwrap(header.recipients[0])
    fleet = header.replace_recipients([*strangers, mine.wrap(session_key)])
    fleet.authenticate(session_key)
    calls, unwrap = [], type(identity).unwrap
    monkeypatch.setattr(type(identity), "unwrap", lambda *a: calls.append(1) or unwrap(*a))
    assert opened(bytes(fleet) + sealed[-header.payload_size :]) == b"for a fleet"
    assert len(calls) == 1


@pytest.mark.parametrize("character", ["\x1b[2J", "\x07", "é", "\\", "\x7f"])
def test_an_unauthenticated_header_carries_no_control_characters(keys, character):
    sealed = secret.seal(b"x", content_type="params")
    header = secret.inspect(sealed)
    stanza = {**header.recipients[0], "note": character}
    altered = bytes(header.replace_recipients([stanza])) + sealed[len(bytes(header)) :]
    with pytest.raises(errors.AuthenticationError, match="characters that none has"):
        secret.inspect(altered)
