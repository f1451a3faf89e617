"""tvmc compile: its options. The compiler itself is the overlay's, and is imported when it is called."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from .. import formats, retired
from ..errors import SecretError
from . import options

DESCRIPTION = """Compile a sealed model to a sealed artefact: code, interface and weights in one .tar.

The model is opened, compiled and sealed again in memory; nothing plain touches the disk. Give -r for each
device that is to run the artefact."""
EXAMPLE = "  tvmc compile --target llvm --model-format onnx -o model.tar model.onnx.sealed"

_TARGET_OPTIONS = ("mcpu", "mattr", "mtriple", "num-cores", "opt-level")
_GONE = {
    "cross": ("--cross-compiler",),
    "cross_options": ("--cross-compiler-options",),
    "desired_layout": ("--desired-layout",),
    "executor": ("--executor",),
    "executor_options": (
        "--executor-graph-link-params",
        "--executor-aot-link-params",
        "--executor-aot-unpacked-api",
        "--executor-aot-interface-api",
        "--executor-aot-workspace-byte-alignment",
        "--executor-aot-constant-byte-alignment",
    ),
    "mod_name": ("--module-name",),
    "runtime": ("--runtime",),
    "runtime_options": ("--runtime-cpp-system-lib", "--runtime-crt-system-lib"),
    "tuning_records": ("--tuning-records",),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="the sealed model")
    parser.add_argument(
        "--target",
        default="llvm",
        help="'llvm' for this machine's CPU, with options as in 'llvm -mcpu=x86-64-v3', JSON, or the path of "
        "a .json file (default: %(default)s)",
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("module.tar"), help="default: %(default)s")
    parser.add_argument(
        "-f",
        "--output-format",
        metavar="tar",
        default="tar",
        help="an artefact is a tar of sealed members; so and mlf are refused (default: %(default)s)",
    )
    parser.add_argument(
        "--model-format",
        choices=list(formats.FORMATS),
        help="default: what the sealed file says it holds",
    )
    parser.add_argument(
        "--input-shapes",
        type=parse_shapes,
        metavar="SHAPES",
        help="shapes in place of the model's: 'data:[1,3,224,224] mask:[n,128]'; a name or -1 is any size",
    )
    parser.add_argument(
        "--exact",
        action="store_true",
        help="keep to transformations that hardly change rounding (no Winograd)",
    )
    parser.add_argument(
        "-O",
        "--opt-level",
        type=int,
        choices=range(4),
        default=3,
        metavar="[0-3]",
        help="leave out the passes above this level (default: %(default)s)",
    )
    parser.add_argument(
        "--pass-config",
        action="append",
        metavar="NAME=VALUE",
        help="set an option of TVM's passes, such as tirx.disable_vectorize=1; may be repeated",
    )
    parser.add_argument(
        "--disabled-pass", metavar="NAMES", help="leave out these passes, such as FuseOps,FoldConstant"
    )
    parser.add_argument(
        "--dump-code",
        type=lambda text: [name.strip() for name in text.split(",")],
        metavar="FORMATS",
        help="of relax, ll and asm: the code in clear; refused without --allow-plaintext-dump",
    )
    parser.add_argument(
        "--allow-plaintext-dump",
        type=Path,
        metavar="FILE",
        help="where --dump-code writes; whoever reads this file sees the model, but for most of its weights",
    )
    parser.add_argument("-v", "--verbose", action="count", default=0, help="name each stage as it starts")
    group = parser.add_argument_group("target llvm")
    for name in _TARGET_OPTIONS:
        group.add_argument(f"--target-llvm-{name}", metavar="VALUE", help=f"the target's -{name}")
    options.add_sealing(parser)
    options.add_policy(parser)
    options.add_keys(parser, opens=True, seals=True, signs=True)
    options.add_retired(parser, retired.COMPILE, _GONE)


def run(arguments: argparse.Namespace) -> None:
    chosen = vars(arguments)
    dumps = arguments.allow_plaintext_dump
    if dumps and not arguments.dump_code:
        raise SecretError("--allow-plaintext-dump: give --dump-code too, which says what to write")
    options.check_retired(
        argparse.Namespace(**{**chosen, "dump_code": None if dumps else arguments.dump_code}), retired.COMPILE
    )
    target_options = {name: chosen[f"target_llvm_{name.replace('-', '_')}"] for name in _TARGET_OPTIONS}

    from ..runtime import without_torch

    with without_torch():
        from tvm.driver import tvmc

    with options.keys(arguments), _stages(arguments.verbose) as stage:
        stage("importing")
        model = tvmc.load(arguments.file, arguments.model_format, arguments.input_shapes)
        tvmc.compile(
            model,
            arguments.target,
            opt_level=arguments.opt_level,
            package_path=arguments.output,
            dump_code=arguments.dump_code,
            disabled_pass=arguments.disabled_pass,
            pass_context_configs=arguments.pass_config,
            additional_target_options={
                "llvm": {name: value for name, value in target_options.items() if value is not None}
            },
            exact=arguments.exact,
            suite=arguments.suite,
            policy=options.policy(arguments),
            allow_plaintext_dump=dumps,
            progress=stage,
        )


def parse_shapes(text: str) -> dict[str, list[int | str]]:
    """Parse upstream's `name:[1,3,224,224] other:[n,8]`; a name in place of a size is a symbolic dimension.

    A negative size is upstream's way to say any size: a symbolic dimension of its own. Names of inputs may
    hold any character but blanks and brackets, colons included.
    """
    shapes = {}
    entry = re.compile(r"\s*,?\s*(?P<name>[^\s\[\]]+):\s*\[(?P<sizes>[^\[\]]*)\]\s*")
    unnamed = (f"any_{number}" for number in itertools.count())
    position = 0
    while position < len(text):
        match = entry.match(text, position)
        if match is None:
            raise argparse.ArgumentTypeError(f"{text!r} is not of the form 'name:[1,3,224,224] other:[1,8]'")
        sizes = (size.strip() for size in match["sizes"].split(","))
        shapes[match["name"]] = [_size(size, unnamed) for size in sizes if size]
        position = match.end()
    return shapes


def _size(text: str, unnamed: Iterator[str]) -> int | str:
    if re.fullmatch(r"-?\d+", text):
        return int(text) if int(text) >= 0 else next(unnamed)
    if not text.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a size nor a name")
    return text


@contextlib.contextmanager
def _stages(verbose: int) -> Iterator[Callable[[str], None]]:
    """Say on a terminal what is going on and for how long; gives the function that starts a stage."""
    if not sys.stderr.isatty():
        yield lambda stage: print(f"tvmc: {stage}", file=sys.stderr) if verbose else None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TimeElapsedColumn

    columns = (SpinnerColumn(finished_text="✓"), "{task.description}", TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        current = None

        def start(stage: str) -> None:
            nonlocal current
            if current is not None:
                progress.update(current, completed=1, total=1)
            current = progress.add_task(stage, total=None)

        yield start
        if current is not None:
            progress.update(current, completed=1, total=1)
