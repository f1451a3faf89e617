"""Key pairs on disk, read back by other libraries."""

from __future__ import annotations

import stat

import pytest
from Crypto.IO import PKCS8
from Crypto.PublicKey import ECC, RSA
from cryptography.hazmat.primitives import serialization

from tvm_secret import errors, keyfiles

PASSPHRASE = b"correct horse battery"


def test_rsa_pair_is_read_by_pycryptodome(tmp_path):
    private, public = keyfiles.write_pair(
        keyfiles.generate_rsa(2048), tmp_path / "new" / "folder", keyfiles.RSA_NAMES, PASSPHRASE
    )
    assert private.name == "rsa_private_key.bin"
    assert public.name == "rsa_public_key.pem"
    key = RSA.import_key(private.read_bytes(), PASSPHRASE)
    assert key.public_key() == RSA.import_key(public.read_bytes())
    assert key.size_in_bits() == 2048
    assert key.e == 65537


def test_signing_pair_is_read_by_pycryptodome(alice):
    key = ECC.import_key(alice.sign_private.read_text(), PASSPHRASE.decode())
    assert key.curve == "Ed25519"
    assert key.public_key() == ECC.import_key(alice.sign_public.read_text())


def test_default_size():
    assert keyfiles.DEFAULT_BITS == 3072


@pytest.mark.parametrize("bits", [0, 1024, 2047, 20000])
def test_sizes_that_are_refused(bits):
    with pytest.raises(errors.SecretError, match="2048 to 16384"):
        keyfiles.generate_rsa(bits)


def test_private_key_is_encrypted_and_for_its_owner_only(alice):
    text = alice.private.read_bytes()
    assert text.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert stat.S_IMODE(alice.private.stat().st_mode) == 0o600
    with pytest.raises(TypeError):
        serialization.load_pem_private_key(text, None)


def test_work_factor_is_scrypt_at_its_current_minimum(alice):
    """The parameters, in DER: scrypt's OID, then N = 32768, r = 8, p = 3."""
    import base64

    der = base64.b64decode(b"".join(alice.private.read_bytes().splitlines()[1:-1]))
    assert bytes.fromhex("06092b06010401da47040b") in der  # 1.3.6.1.4.1.11591.4.11
    assert bytes.fromhex("0203008000" + "020108" + "020103") in der


def test_a_pair_is_not_replaced_by_accident(tmp_path):
    key = keyfiles.generate_signing()
    keyfiles.write_pair(key, tmp_path, keyfiles.SIGNING_NAMES, PASSPHRASE)
    before = (tmp_path / keyfiles.SIGNING_NAMES[0]).read_bytes()
    with pytest.raises(errors.SecretError, match="exists"):
        keyfiles.write_pair(key, tmp_path, keyfiles.SIGNING_NAMES, PASSPHRASE)
    assert (tmp_path / keyfiles.SIGNING_NAMES[0]).read_bytes() == before
    keyfiles.write_pair(key, tmp_path, keyfiles.SIGNING_NAMES, PASSPHRASE, overwrite=True)
    assert (tmp_path / keyfiles.SIGNING_NAMES[0]).read_bytes() != before


def test_short_passphrases_are_refused(tmp_path):
    with pytest.raises(errors.PassphraseError, match="at least 8"):
        keyfiles.write_pair(keyfiles.generate_signing(), tmp_path, keyfiles.SIGNING_NAMES, b"short")
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_private_key(tmp_path, alice):
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").write_bytes(b"")
    for path in (tmp_path / "text", tmp_path / "empty", alice.public):
        with pytest.raises(errors.IdentityError, match="is not a private key"):
            keyfiles.load_private_key(path, lambda _: PASSPHRASE)
    with pytest.raises(errors.IdentityError, match="cannot read"):
        keyfiles.load_private_key(tmp_path / "missing", None)


def test_der_and_unencrypted_keys_are_read_too(tmp_path):
    key = keyfiles.generate_signing()
    path = tmp_path / "key"
    for encoding in (serialization.Encoding.DER, serialization.Encoding.PEM):
        path.write_bytes(
            key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        loaded = keyfiles.load_private_key(path, None)
        assert loaded.public_key() == key.public_key()


SCRYPT, PBKDF2 = "scryptAndAES256-CBC", "PBKDF2WithHMAC-SHA256AndAES256-CBC"


def encrypted(protection: str, **parameters: int) -> bytes:
    """A signing key in DER under `PASSPHRASE`."""
    key = keyfiles.generate_signing()
    form = (serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    oid, inner, key_parameters = PKCS8.unwrap(key.private_bytes(*form))
    return PKCS8.wrap(
        inner,
        oid,
        passphrase=PASSPHRASE,
        protection=protection,
        prot_params=parameters,
        key_params=key_parameters,
    )


COSTLY = [
    (SCRYPT, {"iteration_count": 2**22, "block_size": 8, "parallelization": 1}),
    (SCRYPT, {"iteration_count": 2**12, "block_size": 8, "parallelization": 2**10}),
    (PBKDF2, {"iteration_count": 10**9}),
]


@pytest.mark.parametrize(("protection", "parameters"), COSTLY, ids=str)
def test_a_key_that_costs_too_much_is_refused_unopened(tmp_path, monkeypatch, protection, parameters):
    """The files are made without paying the cost, so their passphrase would not open them either."""
    import Crypto.IO._PBES as pbes

    monkeypatch.setattr(pbes, "scrypt", lambda *_, **__: bytes(32))
    monkeypatch.setattr(pbes, "PBKDF2", lambda *_, **__: bytes(32))
    (tmp_path / "key").write_bytes(encrypted(protection, **parameters))
    with pytest.raises(errors.IdentityError, match="more work than a passphrase should cost"):
        keyfiles.load_private_key(tmp_path / "key", lambda path: PASSPHRASE)


def test_a_key_whose_encryption_cannot_be_is_refused(tmp_path):
    der = encrypted(SCRYPT, iteration_count=2**14, block_size=8, parallelization=1)
    (tmp_path / "key").write_bytes(der.replace(b"\x02\x02\x40\x00", b"\x02\x02\x40\x01"))
    with pytest.raises(errors.IdentityError, match="is damaged"):
        keyfiles.load_private_key(tmp_path / "key", lambda path: PASSPHRASE)


@pytest.mark.parametrize(
    ("protection", "parameters"),
    [
        (SCRYPT, {"iteration_count": 2**10, "block_size": 8, "parallelization": 1}),
        (PBKDF2, {"iteration_count": 2000}),
    ],
)
def test_keys_of_other_software_open(tmp_path, protection, parameters):
    (tmp_path / "key").write_bytes(encrypted(protection, **parameters))
    keyfiles.load_private_key(tmp_path / "key", lambda path: PASSPHRASE)
