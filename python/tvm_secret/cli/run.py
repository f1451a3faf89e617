"""tvmc run"""

from __future__ import annotations

import argparse
import io
import warnings
import zipfile
from pathlib import Path

import numpy as np

from ..envelope import MAGIC, naming, unseal
from ..errors import ModelError
from ..files import atomic_writer
from ..runtime import GraphModule, TensorInfo
from . import options

DESCRIPTION = """Run a sealed artefact. Code, graph and weights are decrypted in memory only.

Inputs are arrays by name in an .npz (plain, or sealed by 'tvmc encrypt'); outputs are written as output_0,
output_1, ... to another."""
EXAMPLE = "  tvmc run -i in.npz -o out.npz --print-top 5 model.tar"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", type=Path, help="the artefact (.tar) that 'tvmc compile' wrote"
    )
    parser.add_argument("-i", "--inputs", type=Path, metavar="NPZ", help="inputs by name")
    parser.add_argument("-o", "--outputs", type=Path, metavar="NPZ", help="where to write the outputs")
    parser.add_argument(
        "--fill-mode",
        choices=("zeros", "ones", "random"),
        default="random",
        help="what to fill inputs with that are not given (default: %(default)s)",
    )
    parser.add_argument(
        "--print-top", type=_positive, metavar="N", help="print the N largest of the first output"
    )
    parser.add_argument("--print-time", action="store_true", help="print a summary of the time it took")
    parser.add_argument("--repeat", type=_positive, default=1, metavar="N", help="timed series (default: 1)")
    parser.add_argument(
        "--number", type=_positive, default=1, metavar="N", help="runs in a series (default: 1)"
    )
    parser.add_argument(
        "--end-to-end", action="store_true", help="time the copying of inputs and outputs too"
    )
    parser.add_argument("--device", choices=("cpu",), default="cpu", help="artefacts run on the CPU")
    options.add_keys(parser, opens=True, seals=False)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def run(arguments: argparse.Namespace) -> None:
    with options.keys(arguments):
        given = _read_inputs(arguments.inputs) if arguments.inputs else {}
        with GraphModule(arguments.file) as module:
            for name, value in given.items():
                module.set_input(name, value)
            for info in module.missing_inputs():
                if given:
                    warnings.warn(
                        f"the input {info.name!r} is not in {arguments.inputs}: filled with "
                        f"{arguments.fill_mode}",
                        stacklevel=2,
                    )
                module.set_input(info.name, _filled(info, arguments.fill_mode))
            module.run()
            outputs = [module.get_output(index) for index in range(module.get_num_outputs())]
            if arguments.print_time:
                timing = module.benchmark(
                    repeat=arguments.repeat, number=arguments.number, end_to_end=arguments.end_to_end
                )
                print(f"Execution time summary:\n{timing}")
    if arguments.print_top:
        print(_top(outputs[0], arguments.print_top))
    if arguments.outputs:
        with atomic_writer(arguments.outputs) as file:
            np.savez(file, **{f"output_{index}": array for index, array in enumerate(outputs)})


def _read_inputs(path: Path) -> dict[str, np.ndarray]:
    data = path.read_bytes()
    if data.startswith(MAGIC):
        with naming(path), unseal(data, content_type="inputs") as secret:
            data = bytes(secret)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return dict(archive.items())
    except (ValueError, OSError, EOFError, KeyError, AttributeError, zipfile.BadZipFile):
        raise ModelError(f"{path}: it is not an .npz of plain arrays") from None


def _filled(info: TensorInfo, mode: str) -> np.ndarray:
    # A symbolic dimension, a batch mostly, is run at size 1.
    shape = [1 if isinstance(size, str) else size for size in info.shape]
    if mode == "zeros":
        return np.zeros(shape, info.dtype)
    if mode == "ones":
        return np.ones(shape, info.dtype)
    random = np.random.default_rng()
    if np.issubdtype(np.dtype(info.dtype), np.floating):
        return random.random(shape).astype(info.dtype)
    return random.integers(0, 2, shape).astype(info.dtype)


def _top(output: np.ndarray, count: int) -> np.ndarray:
    """Upstream's form: a row of indices above a row of their scores, the largest first."""
    scores = output.reshape(output.shape[0] if output.ndim > 1 else 1, -1)[0]
    indices = np.argsort(-scores, kind="stable")[:count]
    return np.array([indices, scores[indices]])
