"""Every error that a user can cause or meet, under one base class.

The command line prints the message alone, on one line, so each message names the cause and, where there is
one, the remedy. A message never holds a key, a passphrase or a part of a model's weights.
"""

__all__ = [
    "AuthenticationError",
    "ContentTypeError",
    "IdentityError",
    "MissingExtraError",
    "ModelError",
    "NotSealedError",
    "PassphraseError",
    "PolicyError",
    "RecipientError",
    "SecretError",
    "SignatureError",
    "TargetError",
]


class SecretError(Exception):
    """Base class: catching it catches everything that this package refuses."""


class NotSealedError(SecretError):
    """The bytes are in neither sealed layout: a plain model, an empty file, or something else."""


class AuthenticationError(SecretError):
    """The bytes were altered, cut, extended or exchanged after they were sealed."""


class IdentityError(SecretError):
    """No private key at hand opens this: it is missing, unreadable, or not among the recipients."""


class PassphraseError(IdentityError):
    """The passphrase of a private key is missing or wrong."""


class RecipientError(SecretError):
    """No public key to seal to, or one that cannot be used."""


class SignatureError(SecretError):
    """A signature is missing, is not by a trusted signer, or does not fit."""


class PolicyError(SecretError):
    """The sealed header's own conditions (time, device) forbid opening."""


class ContentTypeError(SecretError):
    """A sealed value of one kind was given where another kind is wanted."""


class ModelError(SecretError):
    """A model, its shapes or its inputs cannot be used: the message names the operator, node or input."""


class TargetError(SecretError):
    """The compilation target is unknown, or this machine cannot run an artefact made for it."""


class MissingExtraError(SecretError):
    """A format's own packages are not installed: the message says which extra brings them."""
