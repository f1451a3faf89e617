"""tvmc compile"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tvm_secret import artefact, envelope, formats
from tvm_secret.cli import options
from tvm_secret.errors import NotSealedError

DESCRIPTION = """Compile a sealed model to a sealed artefact: code, interface and weights in one .tar.

The model is opened, compiled and sealed again in memory; nothing plain touches the disk. Give -r for each
device that is to run the artefact."""
EXAMPLE = "  tvmc compile --target llvm --model-format onnx -o model.tar model.onnx.sealed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="the sealed model")
    parser.add_argument(
        "--target",
        default="llvm",
        help="'llvm' for this machine's CPU, or with options: 'llvm -mcpu=x86-64-v3' (default: %(default)s)",
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("module.tar"), help="default: %(default)s")
    parser.add_argument(
        "--model-format",
        choices=list(formats.FORMATS),
        help="default: what the sealed file says it holds",
    )
    parser.add_argument(
        "--input-shapes",
        type=parse_shapes,
        metavar="SHAPES",
        help="shapes in place of the model's, such as 'data:[1,3,224,224] mask:[1,128]'",
    )
    parser.add_argument(
        "--exact",
        action="store_true",
        help="keep to transformations that hardly change rounding (no Winograd)",
    )
    options.add_sealing(parser)
    options.add_policy(parser)
    options.add_keys(parser, opens=True, seals=True, signs=True)


def run(arguments: argparse.Namespace) -> None:
    from tvm import relay

    with options.keys(arguments), _stages() as stage:
        stage("importing")
        importer = _importer(arguments)
        shapes = arguments.input_shapes
        sealed_shapes = None
        if shapes:
            session = envelope.Session.to_self()
            sealed_shapes = session.seal_json(shapes, content_type="input-shapes")
        module, params = importer(arguments.file, sealed_shapes)
        parts = relay.build(
            module,
            target=arguments.target,
            params=params,
            exact=arguments.exact,
            suite=arguments.suite,
            policy=options.policy(arguments),
            progress=stage,
        )
        artefact.save(parts, arguments.output)


def _importer(arguments: argparse.Namespace) -> Callable:
    """The `from_*` that reads the file."""
    from tvm.relay import frontend

    name = arguments.model_format
    if name is None:
        try:
            name = formats.format_of(envelope.inspect(arguments.file).content_type)
        except NotSealedError as error:
            raise NotSealedError(
                f"{error}; if it is a plain model, seal it with 'tvmc encrypt', "
                "and if it has the raw layout, give --model-format"
            ) from None
    return {
        "onnx": frontend.from_onnx,
        "pytorch": frontend.from_pytorch,
        "pb": lambda model, shapes: frontend.from_tensorflow(model, shape=shapes),
        "tflite": frontend.from_tflite,
        "keras": frontend.from_keras,
        "mxnet": frontend.from_mxnet,
    }[name]


def parse_shapes(text: str) -> dict[str, list[int | str]]:
    """Parse upstream's `name:[1,3,224,224] other:[n,8]`; a name in place of a size is a symbolic dimension.

    Names may hold any character but blanks and brackets, colons included.
    """
    shapes = {}
    entry = re.compile(r"\s*,?\s*(?P<name>[^\s\[\]]+):\s*\[(?P<sizes>[^\[\]]*)\]\s*")
    position = 0
    while position < len(text):
        match = entry.match(text, position)
        if match is None:
            raise argparse.ArgumentTypeError(f"{text!r} is not of the form 'name:[1,3,224,224] other:[1,8]'")
        shapes[match["name"]] = [_size(size.strip()) for size in match["sizes"].split(",") if size.strip()]
        position = match.end()
    return shapes


def _size(text: str) -> int | str:
    if re.fullmatch(r"-?\d+", text):
        if int(text) < 0:
            raise argparse.ArgumentTypeError(f"the size {text} is negative; a name makes it symbolic: [n,3]")
        return int(text)
    if not text.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a size nor a name")
    return text


@contextlib.contextmanager
def _stages() -> Iterator[Callable[[str], None]]:
    """Say on a terminal what is going on and for how long; gives the function that starts a stage."""
    if not sys.stderr.isatty():
        yield lambda stage: None
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
