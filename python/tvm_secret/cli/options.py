"""Options that several subcommands share: keys, sealing, policy."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from .. import context, keyfiles, memory
from ..retired import Retired, check
from ..suites import DEFAULT_SUITE, SUITES

__all__ = [
    "add_keys",
    "add_policy",
    "add_retired",
    "add_sealing",
    "add_signer",
    "check_retired",
    "keys",
    "passphrase_from",
    "policy",
    "progress_bar",
]


def add_keys(parser: argparse.ArgumentParser, *, opens: bool, seals: bool, signs: bool = False) -> None:
    """Options that say which keys to use; `keys` puts them into force."""
    group = parser.add_argument_group("keys (default: the environment, then the current folder)")
    if opens:
        group.add_argument(
            "--identity",
            metavar="KEY",
            help=f"private key that opens: a file, pkcs11:... or awskms:... [${context.IDENTITY_VARIABLE}]",
        )
        add_signer(group)
        group.add_argument(
            "--require-locked-memory",
            action="store_true",
            help="refuse to decrypt where memory cannot be kept from the swap, instead of a warning "
            f"[${memory.LOCKED_VARIABLE}]",
        )
    if seals:
        group.add_argument(
            "-r",
            "--recipient",
            action="append",
            metavar="PUB",
            help=f"public key to seal to, a file or a folder of them; may be repeated "
            f"[${context.RECIPIENTS_VARIABLE}]",
        )
    if signs:
        group.add_argument("--sign-key", metavar="KEY", help="Ed25519 private key to sign with")
    group.add_argument(
        "--passphrase-file",
        metavar="FILE",
        type=Path,
        help=f"first line: the private keys' passphrase [${context.PASSPHRASE_VARIABLE}, or asked for]",
    )


def add_signer(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--signer",
        action="append",
        metavar="PUB",
        help=f"open only what this public key signed; may be repeated [${context.SIGNERS_VARIABLE}]",
    )
    group.add_argument(
        "--revoked",
        action="append",
        metavar="LIST",
        help=f"key ids of signers to refuse, one a line; may be repeated [${context.REVOKED_VARIABLE}]",
    )


def add_sealing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--suite",
        choices=list(SUITES),
        default=DEFAULT_SUITE,
        help="payload cipher; cobblestone-256 is several times faster (default: %(default)s)",
    )


def add_policy(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("conditions for opening, which honest software keeps to")
    group.add_argument(
        "--not-before", type=_moment, metavar="TIME", help="ISO 8601, such as 2027-01-31T12:00Z"
    )
    group.add_argument("--not-after", type=_moment, metavar="TIME", help="ISO 8601")
    group.add_argument(
        "--device-id", metavar="ID", help="only on the machine with this id (tvmc inspect --device)"
    )


def add_retired(
    parser: argparse.ArgumentParser, table: dict[str, Retired], flags: dict[str, tuple[str, ...]]
) -> None:
    """Options of upstream's tvmc whose meaning is gone: `flags` names those of each entry of `table`."""
    group = parser.add_argument_group("options of upstream's tvmc v0.9 without a meaning here")
    for name, spellings in flags.items():
        text = table[name].reason if table[name].shown else argparse.SUPPRESS
        for spelling in spellings:
            group.add_argument(spelling, dest=name, metavar="VALUE", help=text)


def check_retired(arguments: argparse.Namespace, table: dict[str, Retired]) -> None:
    """Warn of, or refuse, what was given of them."""
    check(table, **{name: value for name, value in vars(arguments).items() if name in table})


def policy(arguments: argparse.Namespace) -> dict[str, str]:
    from .. import policy as policies

    return policies.make(
        not_before=arguments.not_before, not_after=arguments.not_after, device_id=arguments.device_id
    )


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text.removesuffix("Z") + ("+00:00" if text.endswith("Z") else ""))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2027-01-31T12:00Z") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


@contextlib.contextmanager
def keys(arguments: argparse.Namespace) -> Iterator[context.Context]:
    """Put the key options given into force."""
    if getattr(arguments, "require_locked_memory", False):
        memory.require_locked_memory()
    with context.use(
        identity=getattr(arguments, "identity", None),
        recipients=getattr(arguments, "recipient", None),
        signers=getattr(arguments, "signer", None),
        revoked=getattr(arguments, "revoked", None),
        sign_key=getattr(arguments, "sign_key", None),
        passphrase=passphrase_from(arguments.passphrase_file),
    ) as chosen:
        yield chosen


def passphrase_from(path: Path | None) -> bytes | None:
    return None if path is None else keyfiles.read_passphrase(path)


@contextlib.contextmanager
def progress_bar(description: str) -> Iterator:
    """A bar of bytes on a terminal, nothing elsewhere; gives a `progress(done, total)`, or None."""
    import sys

    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description)
        yield lambda done, total: bar.update(task, completed=done, total=total)
