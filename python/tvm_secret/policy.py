"""Conditions in the authenticated header that whatever opens a file checks first.

They bind honest software on a machine that its owner does not tamper with: whoever holds the private key and
changes this program, or the clock, can open the file all the same (docs/threat-model.md).
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timezone
from pathlib import Path

from .errors import PolicyError

__all__ = ["check", "check_form", "device_id", "make"]

_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_MACHINE_ID = Path("/etc/machine-id")


def make(
    *, not_before: datetime | None = None, not_after: datetime | None = None, device_id: str | None = None
) -> dict[str, str]:
    """A policy for the header; times are aware datetimes, kept as UTC seconds."""
    policy = {}
    for name, moment in (("not_before", not_before), ("not_after", not_after)):
        if moment is not None:
            policy[name] = moment.astimezone(timezone.utc).strftime(_FORMAT)
    if not_before is not None and not_after is not None and not_before >= not_after:
        raise PolicyError("not-before is not earlier than not-after: the file could never be opened")
    if device_id is not None:
        policy["device_id"] = device_id
    check_form(policy)
    return policy


def inherited(policy: dict[str, str]) -> dict[str, str]:
    """What of a value's policy holds for what is made from it: its times, not the device it was opened on."""
    return {name: value for name, value in policy.items() if name != "device_id"}


def check_form(policy: dict) -> None:
    """Raise `PolicyError` unless each field is known and of its form."""
    for name, value in policy.items():
        try:
            if name in ("not_before", "not_after"):
                datetime.strptime(value, _FORMAT)
            elif name != "device_id" or not (len(value) == 32 and int(value, 16) >= 0):
                raise ValueError
        except (ValueError, TypeError):
            raise PolicyError(f"unknown or malformed policy field {name!r}") from None


def check(policy: dict) -> None:
    """Raise `PolicyError`, naming the condition, unless all of them hold here and now."""
    now = datetime.now(timezone.utc)
    if "not_before" in policy and now < _moment(policy["not_before"]):
        raise PolicyError(f"it must not be opened before {policy['not_before']}")
    if "not_after" in policy and now > _moment(policy["not_after"]):
        raise PolicyError(f"it expired at {policy['not_after']}")
    if "device_id" in policy and policy["device_id"] != device_id():
        raise PolicyError(f"it is bound to the device {policy['device_id']}; this one is {device_id()}")


def device_id() -> str:
    """This machine's id: 16 bytes in hex, derived from machine-id(5) as that page asks, never it itself."""
    try:
        machine = _MACHINE_ID.read_text().strip()
    except OSError as error:
        raise PolicyError(f"this machine has no id: {_MACHINE_ID}: {error.strerror}") from None
    if not machine:
        raise PolicyError(f"this machine has no id: {_MACHINE_ID} is empty")
    return hashlib.sha256(b"tvm-secret/v1/device\0" + machine.encode()).hexdigest()[:32]


def _moment(text: str) -> datetime:
    return datetime.strptime(text, _FORMAT).replace(tzinfo=timezone.utc)
