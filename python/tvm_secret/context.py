"""Which identity, recipients, signers and signing key this process uses.

First match wins: a `use(...)` block (the command line's flags are one), the environment, the files that
`tvmc keygen` leaves in the current folder.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from .errors import IdentityError, PassphraseError, RecipientError
from .keyfiles import RSA_NAMES
from .recipients import Identity, Recipient, load_identity, load_recipients
from .signing import Signer, Trust, Verifier, load_revoked, load_signer, load_verifiers

__all__ = ["Context", "current", "use"]

IDENTITY_VARIABLE = "TVM_SECRET_IDENTITY"
RECIPIENTS_VARIABLE = "TVM_SECRET_RECIPIENTS"
SIGNERS_VARIABLE = "TVM_SECRET_SIGNERS"
REVOKED_VARIABLE = "TVM_SECRET_REVOKED"
PASSPHRASE_VARIABLE = "TVM_SECRET_PASSPHRASE"


@dataclass(frozen=True)
class Context:
    """The keys of one block of code; a field left None falls back to the environment."""

    identity_source: object = None
    recipient_sources: tuple | None = None
    signer_sources: tuple | None = None
    revoked_sources: tuple | None = None
    signing_source: object = None
    passphrase_source: bytes | None = field(default=None, repr=False)
    _cache: dict = field(default_factory=dict, repr=False, compare=False)

    def identity(self) -> Identity:
        """The private key that opens; loaded once. Raises `IdentityError` when there is none."""
        return self._cached("identity", self._identity_source(), self._load_identity)

    def _identity_source(self) -> object:
        if self.identity_source is not None:
            return self.identity_source
        return os.environ.get(IDENTITY_VARIABLE) or RSA_NAMES[0]

    def _load_identity(self, source: object) -> Identity:
        from .memory import harden_process

        chosen = self.identity_source is not None or IDENTITY_VARIABLE in os.environ
        if not chosen and not Path(RSA_NAMES[0]).exists():
            raise IdentityError(
                f"no private key: give --identity, set {IDENTITY_VARIABLE}, "
                f"or have {RSA_NAMES[0]} in the current folder ('tvmc keygen' makes one)"
            )
        harden_process()
        return load_identity(source, self.passphrase)

    def recipients(self) -> list[Recipient]:
        """The public keys to seal to. Raises `RecipientError` when there are none."""
        sources = self.recipient_sources
        if sources is None:
            sources = _path_list(RECIPIENTS_VARIABLE)
        if not sources:
            if not Path(RSA_NAMES[1]).exists():
                raise RecipientError(
                    f"nobody to seal to: give -r/--recipient, set {RECIPIENTS_VARIABLE}, "
                    f"or have {RSA_NAMES[1]} in the current folder ('tvmc keygen' makes one)"
                )
            sources = (RSA_NAMES[1],)
        return self._cached("recipients", tuple(sources), load_recipients)

    def trust(self) -> Trust:
        """Whose signatures count here: the signers set, less those revoked."""
        sources = self.revoked_sources
        if sources is None:
            sources = _path_list(REVOKED_VARIABLE)
        return Trust(self._signers(), self._cached("revoked", tuple(sources), load_revoked))

    def _signers(self) -> dict[str, Verifier] | None:
        sources = self.signer_sources
        if sources is None:
            sources = _path_list(SIGNERS_VARIABLE)
        if not sources:
            return None
        trusted = dict(self._cached("signers", tuple(sources), load_verifiers))
        for own in filter(None, (self.signer(), _process_signer())):
            trusted[own.key_id] = own.verifier()
        return trusted

    def signer(self) -> Signer | None:
        """The key that new sealed values are signed with, if any."""
        if self.signing_source is None:
            return None
        return self._cached("signer", self.signing_source, self._load_signer)

    def _load_signer(self, source: str | Path) -> Signer:
        from .memory import harden_process

        harden_process()
        return load_signer(source, self.passphrase)

    def own_signer(self) -> Signer | None:
        """What intermediate values, opened again by this process, are signed with.

        Where signers are set everything that is opened has to be signed; a process without a signing key
        then vouches to itself with a key that ends with it.
        """
        return self.signer() or (_process_signer() if self._signers() is not None else None)

    def passphrase(self, key: Path | str) -> bytes:
        """The passphrase of the private key `key`: given, from the environment, or typed on a terminal."""
        if self.passphrase_source is not None:
            return self.passphrase_source
        value = os.environb.get(PASSPHRASE_VARIABLE.encode())
        if value is not None:
            return value
        return ask_passphrase(f"Passphrase of {key}: ")

    def _cached(self, what: str, source, load: Callable):
        # Relative paths name other files after a change of folder.
        key = (what, source, self.passphrase_source, os.getcwd())
        if key not in self._cache:
            self._cache[key] = load(source)
        return self._cache[key]


def new_passphrase() -> bytes:
    """The passphrase of a key about to be made: from the environment, or typed twice."""
    value = os.environb.get(PASSPHRASE_VARIABLE.encode())
    return value if value is not None else ask_passphrase("New passphrase: ", confirm=True)


def ask_passphrase(prompt: str, *, confirm: bool = False) -> bytes:
    """Ask on the terminal, and nowhere else. Raises `PassphraseError` where there is none."""
    import getpass

    if not (sys.stdin and sys.stdin.isatty()):
        raise PassphraseError(
            f"a passphrase is needed: set {PASSPHRASE_VARIABLE}, give --passphrase-file, or use a terminal"
        )
    first = getpass.getpass(prompt)
    if confirm and getpass.getpass("The same again: ") != first:
        raise PassphraseError("the two passphrases differ")
    return first.encode()


def _path_list(variable: str) -> tuple[str, ...]:
    return tuple(part for part in os.environ.get(variable, "").split(os.pathsep) if part)


@functools.cache
def _process_signer() -> Signer:
    from .keyfiles import generate_signing

    return Signer(generate_signing())


_PROCESS = Context()
_current: contextvars.ContextVar[Context] = contextvars.ContextVar("tvm_secret", default=_PROCESS)


def current() -> Context:
    """The context in force here."""
    return _current.get()


@contextlib.contextmanager
def use(
    *,
    identity: str | Path | Identity | None = None,
    recipients: Iterable[str | Path | Recipient] | str | Path | None = None,
    signers: Iterable[str | Path] | str | Path | None = None,
    revoked: Iterable[str | Path] | str | Path | None = None,
    sign_key: str | Path | None = None,
    passphrase: str | bytes | None = None,
) -> Iterator[Context]:
    """Use these keys inside the block; what is not given stays as it was.

    Args:
        identity: the private key that opens: a file, or a URI of a PKCS#11 token (`pkcs11:...`) or of AWS KMS
            (`awskms:...`).
        recipients: public keys to seal to: PEM files, folders of them, or both.
        signers: public keys whose signatures count. Once any is set, unsigned values are refused.
        revoked: files with the key ids of signers to refuse, one a line.
        sign_key: the Ed25519 private key that new values are signed with.
        passphrase: of the private keys; a token's PIN.

    Keys are read when they are first needed, and errors about them are raised there.

    Examples:
        >>> import tvm_secret as secret
        >>> with secret.use(recipients=["rsa_public_key.pem", "stranger"]):
        ...     sealed = secret.seal(b"a model", content_type="model/onnx")
        >>> len(secret.inspect(sealed).recipients)
        2
    """
    given = {
        "identity_source": identity,
        "recipient_sources": _several(recipients),
        "signer_sources": _several(signers),
        "revoked_sources": _several(revoked),
        "signing_source": sign_key,
        "passphrase_source": passphrase.encode() if isinstance(passphrase, str) else passphrase,
    }
    changed = {name: value for name, value in given.items() if value is not None}
    # Keys loaded outside the block serve inside it; those loaded inside are forgotten with it.
    outer = _current.get()
    token = _current.set(replace(outer, **changed, _cache=dict(outer._cache)))
    try:
        yield _current.get()
    finally:
        _current.reset(token)


def _several(value) -> tuple | None:
    if value is None:
        return None
    return (value,) if isinstance(value, (str, Path)) else tuple(value)
