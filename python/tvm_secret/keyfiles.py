"""Key pairs in files: private keys as encrypted PKCS#8, public keys as SubjectPublicKeyInfo, both PEM.

Private keys are encrypted with AES-256-CBC under a key that scrypt (RFC 7914, RFC 8018's PBES2) derives from
the passphrase with N = 2**15, r = 8, p = 3: OWASP's current minimum, in 32 MiB.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

from .errors import IdentityError, PassphraseError, RecipientError, SecretError
from .files import atomic_writer

__all__ = [
    "DEFAULT_BITS",
    "generate_post_quantum",
    "generate_rsa",
    "generate_signing",
    "key_id",
    "load_private_key",
    "load_public_key",
    "public_pem",
    "read_passphrase",
    "refuse_existing",
    "write_pair",
    "write_public",
]

DEFAULT_BITS = 3072
MINIMUM_PASSPHRASE = 8
RSA_NAMES = ("rsa_private_key.bin", "rsa_public_key.pem")
POST_QUANTUM_NAMES = ("pq_private_key.bin", "pq_public_key.pem")
SIGNING_NAMES = ("signing_private_key.bin", "signing_public_key.pem")
_SCRYPT = {"iteration_count": 2**15, "block_size": 8, "parallelization": 3, "salt_size": 16}


def generate_rsa(bits: int = DEFAULT_BITS) -> object:
    """A new RSA private key of 2048 to 16384 bits, public exponent 65537."""
    from cryptography.hazmat.primitives.asymmetric import rsa

    if not 2048 <= bits <= 16384:
        raise SecretError(f"an RSA key has 2048 to 16384 bits, not {bits}")
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def generate_post_quantum() -> object:
    """A new X-Wing private key: ML-KEM-768 beside X25519."""
    from .xwing import XWingPrivateKey

    return XWingPrivateKey.generate()


def generate_signing() -> object:
    """A new Ed25519 private key (RFC 8032)."""
    from cryptography.hazmat.primitives.asymmetric import ed25519

    return ed25519.Ed25519PrivateKey.generate()


def key_id(public_key) -> str:
    """First 16 bytes, in hex, of SHA-256 over the key's SubjectPublicKeyInfo (RFC 5280) in DER."""
    import hashlib

    from cryptography.hazmat.primitives import serialization as s

    der = public_key.public_bytes(s.Encoding.DER, s.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()[:32]


def write_pair(
    key, folder: Path, names: tuple[str, str], passphrase: bytes, *, overwrite: bool = False
) -> tuple[Path, Path]:
    """Write the pair into `folder` (made if absent) and return the two paths, private key first."""
    private, public = folder / names[0], folder / names[1]
    refuse_existing(folder, names, overwrite=overwrite)
    if len(passphrase) < MINIMUM_PASSPHRASE:
        raise PassphraseError(f"a passphrase has at least {MINIMUM_PASSPHRASE} characters")
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_writer(private, 0o600) as file:
        file.write(_encrypted_pem(key, passphrase))
    with atomic_writer(public, 0o644) as file:
        file.write(public_pem(key.public_key()))
    return private, public


def write_public(recipient, folder: Path, *, overwrite: bool = False) -> Path:
    """Write the public key file of `recipient` into `folder` (made if absent) and return its path."""
    name = recipient.file_names[1]
    refuse_existing(folder, (name,), overwrite=overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_writer(folder / name, 0o644) as file:
        file.write(recipient.to_pem())
    return folder / name


def refuse_existing(folder: Path, names: tuple[str, ...], *, overwrite: bool) -> None:
    """Raise `SecretError` when a key is there already and is not to be replaced."""
    for path in (folder / name for name in names):
        if path.exists() and not overwrite:
            raise SecretError(
                f"{path} exists; what was sealed to it opens with no other key (--force replaces it)"
            )


def _encrypted_pem(key, passphrase: bytes) -> bytes:
    from Crypto.IO import PEM, PKCS8
    from cryptography.hazmat.primitives import serialization as s

    # `cryptography` decrypts scrypt but offers no way to write it, hence PyCryptodome's PKCS8.
    plain = key.private_bytes(s.Encoding.DER, s.PrivateFormat.PKCS8, s.NoEncryption())
    oid, inner, parameters = PKCS8.unwrap(plain)
    der = PKCS8.wrap(
        inner,
        oid,
        passphrase=passphrase,
        protection="scryptAndAES256-CBC",
        prot_params=_SCRYPT,
        key_params=parameters,
    )
    return PEM.encode(der, "ENCRYPTED PRIVATE KEY").encode() + b"\n"


def public_pem(public_key) -> bytes:
    """SubjectPublicKeyInfo in PEM."""
    from cryptography.hazmat.primitives import serialization as s

    return public_key.public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)


def load_public_key(pem: bytes, path: Path) -> object:
    """Read one PEM block of the file `path`. Raises `RecipientError` when it is no public key."""
    from Crypto.IO import PEM
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization as s

    try:
        try:
            return s.load_pem_public_key(pem)
        except UnsupportedAlgorithm:
            from . import xwing

            return xwing.load_public_key(PEM.decode(pem.decode("ascii"))[0])
    except (ValueError, UnsupportedAlgorithm):
        raise RecipientError(f"{path} holds no public key that can be read") from None


def load_private_key(path: Path, passphrase: Callable[[Path], bytes] | None) -> object:
    """Read a PKCS#8 private key, PEM or DER, asking `passphrase` for what decrypts it.

    Raises `IdentityError` when it is no private key, `PassphraseError` when the passphrase does not fit.
    """
    from cryptography.exceptions import InternalError, UnsupportedAlgorithm

    try:
        data = path.read_bytes()
    except OSError as error:
        raise IdentityError(f"cannot read the private key {path}: {error.strerror}") from None
    try:
        return _parse_private_key(data, None)
    except TypeError:
        pass  # encrypted
    except (ValueError, UnsupportedAlgorithm, InternalError):  # the last for a key of a wrong length
        raise IdentityError(f"{path} is not a private key (PKCS#8)") from None
    if passphrase is None:
        raise PassphraseError(f"the private key {path} needs its passphrase")
    _check_cost(data, path)
    secret = passphrase(path)
    try:
        return _parse_private_key(data, secret)
    except UnsupportedAlgorithm:
        raise IdentityError(f"{path} holds a kind of private key that is not used here") from None
    except InternalError:  # OpenSSL's parameters of an encryption that it then cannot do
        raise IdentityError(f"{path} is damaged: it says how it is encrypted, and that cannot be") from None
    except (ValueError, TypeError):
        raise PassphraseError(f"the passphrase does not open the private key {path}") from None


def _check_cost(data: bytes, path: Path) -> None:
    """Raise `IdentityError` where deriving the key's key takes more than 128 MiB or some seconds.

    Reads the EncryptedPrivateKeyInfo (RFC 5958) with PBES2 (RFC 8018); other forms are left to the parser.
    """
    from Crypto.Util.asn1 import DerObjectId, DerSequence

    try:
        scheme = DerSequence().decode(DerSequence().decode(_der(data))[0])
        if DerObjectId().decode(scheme[0]).value != _PBES2:
            return
        derivation = DerSequence().decode(DerSequence().decode(scheme[1])[0])
        method, parameters = DerObjectId().decode(derivation[0]).value, DerSequence().decode(derivation[1])
        if method == _SCRYPT_OID:
            cost, block, lanes = parameters[1:4]
            fits = 128 * cost * block <= _COST_LIMIT >= 128 * lanes * block and lanes <= _LANES_LIMIT
        else:
            fits = method != _PBKDF2 or parameters[1] <= _ITERATIONS_LIMIT
    except (ValueError, IndexError, TypeError):
        return
    if not fits:
        raise IdentityError(
            f"{path} asks for more work than a passphrase should cost: write it anew with "
            "'openssl pkcs8 -topk8 -scrypt'"
        )


_PBES2, _PBKDF2, _SCRYPT_OID = "1.2.840.113549.1.5.13", "1.2.840.113549.1.5.12", "1.3.6.1.4.1.11591.4.11"
_COST_LIMIT = 128 << 20  # what PyCryptodome takes by default
_LANES_LIMIT = 8
_ITERATIONS_LIMIT = 5_000_000


def _is_pem(data: bytes) -> bool:
    return data.lstrip().startswith(b"-----BEGIN")


def _der(data: bytes) -> bytes:
    """A key file's DER; of PEM (RFC 7468) what stands between the markers, where it is well-formed.

    PyCryptodome's PEM would bring all its ciphers along, a tenth of the time that a command takes.
    """
    if not _is_pem(data):
        return data
    return base64.b64decode(b"".join(data.split(b"-----")[2].split()), validate=True)


def _parse_private_key(data: bytes, passphrase: bytes | None) -> object:
    """As the loaders of `cryptography`, and for X-Wing keys, which they do not know."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization as s

    load = s.load_pem_private_key if _is_pem(data) else s.load_der_private_key
    try:
        # The validation skipped tests primes for 100 ms. OpenSSL checks the result of every private
        # operation against the public exponent, so a key that was tampered with fails and tells nothing.
        return load(data, passphrase, unsafe_skip_rsa_key_validation=True)
    except UnsupportedAlgorithm:
        from . import xwing

        return xwing.load_private_key(_der(data), passphrase)


def read_passphrase(path: Path) -> bytes:
    """The first line of the file `path`. Raises `PassphraseError` when that is empty."""
    lines = path.read_bytes().splitlines()
    if not lines or not lines[0]:
        raise PassphraseError(f"{path} is empty: its first line is the passphrase")
    return lines[0]
