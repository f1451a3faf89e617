"""What upstream's tvmc v0.9 could choose and this one cannot: ignored with a warning, or refused.

The command line and the Python API ask here, so that both say the same.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from .errors import SecretError

__all__ = ["COMMANDS", "COMPILE", "RUN", "Retired", "check"]


@dataclass(frozen=True)
class Retired:
    """A choice that no longer is one: `subject` says what it was, `reason` why."""

    subject: str
    reason: str
    ignored: tuple | None = ()
    """Values that a warning is enough for, since what they ask for happens anyway; None: every value."""
    kept: tuple = ()
    """Values that still mean what they meant."""
    shown: bool = True
    """Whether `--help` lists it."""


_NO_LINKER = (
    "no compiler or linker is called; say what machine to compile for in the target, as in "
    "'llvm -mtriple=aarch64-linux-gnu'"
)
_NO_MICRO = "microTVM is gone from TVM"
_NO_RPC = "a sealed artefact is opened on the machine that runs it: copy it there and call 'tvmc run' there"

COMPILE = {
    "cross": Retired("a cross compiler", _NO_LINKER, ignored=None),
    "cross_options": Retired("an option for the cross compiler", _NO_LINKER, ignored=None),
    "desired_layout": Retired(
        "a desired layout",
        "the compiler lays out each operator's data as the CPU likes it; inputs and outputs keep the model's",
        ignored=None,
    ),
    "dump_code": Retired(
        "a dump of the model's code",
        "it would lie plain on the disk; if that is what you want, name the file that may hold it "
        "(--allow-plaintext-dump)",
    ),
    "executor": Retired("the executor", "TVM has one left, its virtual machine", ignored=("graph", "vm")),
    "executor_options": Retired(
        "an option of the executor", "Relay's executors are gone from TVM", shown=False
    ),
    "mod_name": Retired("the module's name", "an artefact holds one module", ignored=None, kept=("default",)),
    "output_format": Retired(
        "the output format",
        "an artefact is a .tar of sealed members; a shared object or model library would be plain",
        kept=("tar",),
    ),
    "runtime": Retired("the runtime", "TVM has one left, 'cpp'", ignored=("cpp",)),
    "runtime_options": Retired("an option of the runtime", "Relay's runtimes are gone from TVM", shown=False),
    "target_host": Retired("a target for the host", "the code runs on the CPU that the target names"),
    "tuning_records": Retired(
        "a file of tuning records",
        "schedules follow from the CPU's figures, and nothing is tuned",
        ignored=None,
    ),
}
"""Parameter of v0.9's `tvmc.compile` -> what became of it."""

RUN = {
    "device": Retired("the device", "artefacts are compiled for the CPU", kept=("cpu",)),
    "hostname": Retired("an RPC tracker or server", _NO_RPC),
    "rpc_key": Retired("an RPC key", _NO_RPC),
    "options": Retired("an option of a microTVM project", _NO_MICRO),
    "project_dir": Retired("a microTVM project", _NO_MICRO),
}
"""Parameter of v0.9's `tvmc.run` and `TVMCPackage` -> what became of it."""

COMMANDS = {
    "tune": "there is nothing to tune: schedules follow from the CPU's figures, and need no trials",
    "micro": _NO_MICRO,
    "-v": "it belongs behind the command, as in 'tvmc compile -v'",
    "--verbose": "it belongs behind the command, as in 'tvmc compile --verbose'",
    "--config": "give options on the command line: its files named Relay's targets and passes",
}
"""Command or leading option of v0.9 -> why it is refused."""


def check(table: dict[str, Retired], **values: Any) -> None:
    """Warn of, or refuse, each value given; None is none given.

    Raises `SecretError` for a value that neither means anything nor can be done without.
    """
    for name, value in values.items():
        retired = table[name]
        if value is None or value in retired.kept:
            continue
        shown = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        if retired.ignored is None or value in retired.ignored:
            warnings.warn(f"{retired.subject} ({shown}) has no effect: {retired.reason}", stacklevel=3)
        else:
            raise SecretError(f"{retired.subject} ({shown}) is refused: {retired.reason}")
