"""The command line `tvmc`: one file a subcommand, each imported only when it is called.

A subcommand's module has `DESCRIPTION`, `EXAMPLE`, `add_arguments(parser)` and `run(arguments)`. Exit codes:
0 done, 1 refused or failed (one line on stderr says why), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import Any

__all__ = ["COMMANDS", "build_parser", "main"]

COMMANDS = {
    "keygen": ("tvm_secret.cli.keygen", "make a key pair"),
    "encrypt": ("tvm_secret.cli.encrypt", "seal a model, or its inputs, to recipients"),
    "inspect": ("tvm_secret.cli.inspect", "show what a sealed file says of itself; needs no key"),
    "verify": ("tvm_secret.cli.verify", "check who signed a sealed file; needs no private key"),
    "rewrap": ("tvm_secret.cli.rewrap", "seal a file to other recipients, its payload untouched"),
    "compile": ("tvm_secret.cli.compile", "compile a sealed model to a sealed artefact"),
    "run": ("tvm_secret.cli.run", "run a sealed artefact; only its outputs come out"),
    "decrypt": ("tvm_secret.cli.decrypt", "open sealed outputs, or inputs; never a model"),
    "completion": ("tvm_secret.cli.completion", "print the script that completes commands in a shell"),
}

_USAGE = "usage: tvmc COMMAND [options]      (tvmc COMMAND --help teaches each)"
_OUTLINE = """
A first session:
  tvmc keygen
  tvmc encrypt model.onnx -o model.onnx.sealed
  tvmc compile --target llvm -o model.tar model.onnx.sealed
  tvmc run -i in.npz -o out.npz --print-top 5 model.tar
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `tvmc` with these arguments (default: the process's) and return its exit code."""
    from ..errors import SecretError

    try:
        code = _dispatch(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()  # a full disk shows here, or else as the interpreter ends
        return code
    except SecretError as error:
        return _fail(str(error))
    except BrokenPipeError:
        _discard_output()
        return 1
    except OSError as error:
        if error.filename is None:
            _discard_output()
        return _fail(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except MemoryError:
        return _fail("out of memory")
    except KeyboardInterrupt:
        return _fail("interrupted")
    except Exception as error:
        # A traceback could quote what was being handled; the place is enough to report a fault by.
        return _fail(f"internal error: {type(error).__name__} at {_place(error)}; please report it")


def _discard_output() -> None:
    """For an output that nobody takes: what Python would still flush to it must not raise again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        return _print_overview()
    if arguments[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"tvmc {version('tvm-secret')}")
        return 0
    command, *rest = arguments
    if command not in COMMANDS:
        return _unknown(command)
    from ..memory import harden_process

    warnings.showwarning = _show_warning
    harden_process()
    return _run(command, rest)


def _print_overview() -> int:
    print(_USAGE, "\n", sep="")
    for name, (_, summary) in COMMANDS.items():
        print(f"  {name:<11} {summary}")
    print(_OUTLINE, end="")
    return 0


def _unknown(command: str) -> int:
    from ..retired import COMMANDS as RETIRED

    name = command.partition("=")[0]
    if name in RETIRED:
        print(f"tvmc: error: {name} is refused: {RETIRED[name]}", file=sys.stderr)
        return 2
    import difflib

    close = difflib.get_close_matches(command, COMMANDS, 1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    print(f"tvmc: error: unknown command {command!r}{hint}\n{_USAGE}", file=sys.stderr)
    return 2


def _run(command: str, rest: list[str]) -> int:
    module = importlib.import_module(COMMANDS[command][0])
    parser = argparse.ArgumentParser(prog=f"tvmc {command}", **_settings(module))
    module.add_arguments(parser)
    try:
        arguments = parser.parse_args(rest)
    except SystemExit as stop:
        return int(stop.code or 0)
    return module.run(arguments) or 0


def _settings(module: ModuleType) -> dict[str, Any]:
    return {
        "description": module.DESCRIPTION,
        "epilog": f"example:\n{module.EXAMPLE}",
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


def build_parser() -> argparse.ArgumentParser:
    """All commands as one parser, for what describes the command line: completion, the reference manual."""
    parser = argparse.ArgumentParser(prog="tvmc", description="Confidential Apache TVM.")
    parser.add_argument("-V", "--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for name, (path, summary) in COMMANDS.items():
        module = importlib.import_module(path)
        module.add_arguments(commands.add_parser(name, help=summary, **_settings(module)))
    return parser


def _fail(message: str) -> int:
    print(f"tvmc: error: {' '.join(message.split())}", file=sys.stderr)
    return 1


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "an unknown place"
    return f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"tvmc: warning: {' '.join(str(message).split())}", file=sys.stderr)
