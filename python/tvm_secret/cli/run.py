"""tvmc run"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

from .. import retired
from ..errors import SecretError
from ..runner import FILL_MODES, TVMCPackage, get_top_results, load_inputs, run_module
from ..runtime import OperatorTime
from ..suites import DEFAULT_SUITE
from . import options

DESCRIPTION = """Run a sealed artefact. Code, graph and weights are decrypted in memory only.

Inputs are arrays by name in an .npz (plain, or sealed by 'tvmc encrypt'); outputs are written as output_0,
output_1, ... to another. With --seal-outputs they are sealed to the recipients, and 'tvmc decrypt' opens
them: whoever runs the model then finds neither inputs nor outputs on the disk."""
EXAMPLE = """  tvmc run -i in.npz -o out.npz --print-top 5 model.tar
  tvmc run -i in.npz.sealed -o out.npz.sealed --seal-outputs -r rsa_public_key.pem model.tar"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", type=Path, help="the artefact (.tar) that 'tvmc compile' wrote"
    )
    parser.add_argument("-i", "--inputs", type=Path, metavar="NPZ", help="inputs by name")
    parser.add_argument("-o", "--outputs", type=Path, metavar="NPZ", help="where to write the outputs")
    parser.add_argument(
        "--seal-outputs", action="store_true", help="seal the outputs to the recipients, as type 'outputs'"
    )
    parser.add_argument(
        "--fill-mode",
        choices=FILL_MODES,
        default="random",
        help="what to fill inputs with that are not given (default: %(default)s)",
    )
    parser.add_argument(
        "--print-top", type=_positive, metavar="N", help="print the N largest of the first output"
    )
    parser.add_argument("--print-time", action="store_true", help="print a summary of the time it took")
    parser.add_argument(
        "--profile",
        action="store_true",
        help="print the time of each operator; this shows what kinds of layers the model has",
    )
    parser.add_argument("--repeat", type=_positive, metavar="N", help="timed series (default: 1)")
    parser.add_argument("--number", type=_positive, metavar="N", help="runs in a series (default: 1)")
    parser.add_argument(
        "--end-to-end", action="store_true", help="time the copying of inputs and outputs too"
    )
    parser.add_argument("--device", metavar="cpu", default="cpu", help="artefacts run on the CPU")
    options.add_sealing(parser)
    options.add_keys(parser, opens=True, seals=True, signs=True)
    options.add_retired(
        parser,
        retired.RUN,
        {"hostname": ("--rpc-tracker",), "rpc_key": ("--rpc-key",), "options": ("--project-option",)},
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def run(arguments: argparse.Namespace) -> None:
    _check(arguments)
    with options.keys(arguments):
        result = run_module(
            TVMCPackage(arguments.file),
            arguments.device,
            inputs=load_inputs(arguments.inputs) if arguments.inputs else None,
            fill_mode=arguments.fill_mode,
            repeat=arguments.repeat or 1,
            number=arguments.number or 1,
            profile=arguments.profile,
            end_to_end=arguments.end_to_end,
            timed=arguments.print_time,
        )
        if arguments.outputs:
            result.save(arguments.outputs, seal=arguments.seal_outputs, suite=arguments.suite)
    if result.operators is not None:
        _print_profile(result.operators)
    if arguments.print_time:
        print(result.format_times())
    if arguments.print_top:
        print(get_top_results(result, arguments.print_top))


def _check(arguments: argparse.Namespace) -> None:
    options.check_retired(arguments, retired.RUN)
    if arguments.seal_outputs:
        if not arguments.outputs:
            raise SecretError("--seal-outputs seals the file that -o/--outputs names, and there is none")
        if arguments.print_top:
            raise SecretError("--print-top would show what --seal-outputs hides: give one of them")
    elif arguments.recipient or arguments.sign_key or arguments.suite != DEFAULT_SUITE:
        raise SecretError("-r, --sign-key and --suite are for sealed outputs: give --seal-outputs too")
    if not arguments.print_time:
        for name in ("repeat", "number", "end_to_end"):
            if getattr(arguments, name):
                warnings.warn(f"--{name.replace('_', '-')} times nothing without --print-time", stacklevel=2)


def _print_profile(operators: list[OperatorTime]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    total = sum(operator.seconds for operator in operators)
    table = Table(box=box.SIMPLE_HEAD, show_footer=True)
    table.add_column("operator", "all", overflow="fold")
    table.add_column("calls", str(sum(operator.calls for operator in operators)), justify="right")
    table.add_column("ms", f"{total * 1e3:.4f}", justify="right")
    table.add_column("share", "100.0%", justify="right")
    for operator in operators:
        share = operator.seconds / total if total else 0.0
        table.add_row(operator.name, str(operator.calls), f"{operator.seconds * 1e3:.4f}", f"{share:.1%}")
    console = Console()
    if not console.is_terminal:  # a line for each operator, for whatever reads it
        console.width = 1000
    console.print(table)
