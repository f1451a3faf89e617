"""tvmc completion"""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import extras

DESCRIPTION = """Print the script that completes tvmc's commands, options and files in a shell.

The script is plain shell: nothing of tvmc runs when a key is pressed. In ~/.bashrc, source the file; for zsh,
write it as _tvmc to a folder of $fpath, before compinit runs."""
EXAMPLE = "  tvmc completion bash > tvmc.bash && source tvmc.bash"

SHELLS = ("bash", "zsh")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS)


def run(arguments: argparse.Namespace) -> None:
    from . import build_parser

    shtab = extras.require("shtab", "completion", "printing the script")
    parser = build_parser()
    for action in _actions(parser):
        if _takes_a_file(action):
            action.complete = shtab.FILE
    print(shtab.complete(parser, arguments.shell))


def _actions(parser: argparse.ArgumentParser):
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from _actions(sub)


_FILES = ("FILE", "KEY", "LIST", "MODEL", "NPZ", "PUB", "D")
"""What options that take a file or a folder call it; a key may be one."""


def _takes_a_file(action: argparse.Action) -> bool:
    return action.type is Path or action.metavar in _FILES
