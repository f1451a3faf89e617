"""What sealing costs: every stage on sealed bytes beside the same stage on plain ones, and `tvmc run`.

    python benchmarks/sealed_overhead.py [--network resnet50 | --model FILE.onnx] [--rounds 7]

The plain path is the same code with the sealing left out: the importer, the pipeline, the loader and the
executable are ours, and the plain artefact is the same three parts, unencrypted, in files. Both take turns.

- Import and build, and load and the first inference, run in a process of their own each round; libraries and
  keys are loaded before the clock starts, in both. Files are in the page cache, but for "load from disk".
- Steady inference is measured in one process that holds all modules, taking turns run by run.
- `tvmc run` is measured from process start to exit, beside a Python script that does the same with ONNX
  Runtime.

Writes results/sealed_overhead.json and sealed_overhead.png.
"""

from __future__ import annotations

import argparse
import importlib
import json
import mmap
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from common import environment, make_keys, measured_apart, save

STEADY_SECONDS = 3
SUITES = ("cobblestone-256", "aes-eax")
KINDS = ("plain", *SUITES)
PACKAGES = ("tvm-secret", "apache-tvm", "cryptography", "pycryptodome", "onnxruntime", "numpy")

_ONNX_RUNTIME = """
import sys
import numpy
import onnxruntime
model, inputs, outputs = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
results = session.run(None, dict(numpy.load(inputs)))
numpy.savez(outputs, **{f"output_{index}": array for index, array in enumerate(results)})
"""


def main() -> None:
    """Measure each stage, print a table, write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="resnet50", help="of networks.py (default: %(default)s)")
    parser.add_argument("--model", type=Path, help="an ONNX file in place of a network")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    if options.measure:
        stage, kind, folder = options.measure
        print(json.dumps(STAGES[stage](Path(folder), kind)))
        return
    figures: dict[str, Any] = environment(*PACKAGES)
    print(json.dumps(figures))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = options.model.read_bytes() if options.model else network(options.network)
        figures |= {"network": options.model.name if options.model else options.network}
        prepare(folder, model)
        figures["plain_bytes"] = sum((folder / part).stat().st_size for part in _PLAIN)
        figures |= compare(folder, options.rounds)
    show(figures)
    path = save("sealed_overhead", figures)
    plot(figures, path.with_suffix(".png"))
    print(path)


def network(name: str) -> bytes:
    """A network of networks.py as ONNX."""
    from networks import NETWORKS, exported

    return exported(*NETWORKS[name]())


def prepare(folder: Path, model: bytes) -> None:
    """Write keys, the model plain and sealed, the artefact plain and by each suite, and random inputs."""
    import numpy as np

    from tvm_secret import artefact, envelope, tensors

    make_keys(folder)
    (folder / "model.onnx").write_bytes(model)
    for suite in SUITES:
        sealed = envelope.seal(model, content_type="model/onnx", suite=suite)
        (folder / f"model.{suite}").write_bytes(sealed)
        parts = build_sealed(import_sealed(folder, suite), suite)
        artefact.save(parts, folder / f"{suite}.tar")
    opened = artefact.open_artefact(parts)
    (folder / "mod.o").write_bytes(b"".join(opened.objects))
    (folder / "mod.json").write_bytes(opened.interface.to_json())
    with open(folder / "mod.params", "wb") as file:
        file.writelines(tensors.pieces(opened.weights)[1])
    random_numbers = np.random.default_rng(0)
    inputs = {
        info.name: random_numbers.integers(0, 100, info.shape).astype(info.dtype)
        if "int" in info.dtype
        else random_numbers.normal(size=info.shape).astype(info.dtype)
        for info in opened.interface.inputs
    }
    np.savez(folder / "in.npz", **inputs)
    opened.close()


def unlock() -> None:
    """Load the key before the clock starts."""
    from tvm_secret import context

    context.current().identity()


def compare(folder: Path, rounds: int) -> dict[str, Any]:
    """Seconds of each stage by kind, kinds taking turns."""
    stages: dict[str, dict[str, list[float]]] = {}
    for stage in STAGES:
        kinds = ("all",) if stage == "steady" else KINDS
        for _ in range({"compile": min(rounds, 2), "steady": 1}.get(stage, rounds)):  # compiling is slow
            for kind in random.sample(kinds, len(kinds)):
                for name, by_kind in measured_apart(__file__, "--measure", stage, kind, folder).items():
                    for measured, seconds in by_kind.items():
                        stages.setdefault(name, {}).setdefault(measured, []).extend(seconds)
    return {"stages": stages, "start_to_output": start_to_output(folder, rounds)}


def measure_compile(folder: Path, kind: str) -> dict[str, dict[str, list[float]]]:
    """Import and build, sealed or plain."""
    for module in ("onnx", "tvm.relay.build_module", "tvm.relay.frontend._onnx.graph"):
        importlib.import_module(module)
    unlock()
    start = time.perf_counter()
    if kind == "plain":
        imported = import_plain(folder)
    else:
        imported = import_sealed(folder, kind)
    middle = time.perf_counter()
    if kind == "plain":
        build_plain(imported)
    else:
        build_sealed(imported, kind)
    end = time.perf_counter()
    return {"import": {kind: [middle - start]}, "build": {kind: [end - middle]}}


def import_plain(folder: Path) -> Any:
    from tvm.relay.frontend.onnx import import_onnx

    return import_onnx((folder / "model.onnx").read_bytes())


def import_sealed(folder: Path, suite: str) -> tuple[bytes, bytes]:
    from tvm import relay

    return relay.frontend.from_onnx(folder / f"model.{suite}")


def build_plain(imported: Any) -> tuple[list[bytes], Any]:
    """What `relay.build` does between opening and sealing."""
    from tvm.relay import build_module
    from tvm.relay.backend.cpu import pipeline
    from tvm.relay.backend.cpu.machine import parse_target

    compiled = pipeline.compile(imported.module, imported.params, parse_target("llvm"))
    return build_module._objects(compiled.executable), compiled.weights


def build_sealed(imported: tuple[bytes, bytes], suite: str) -> list[bytes]:
    from tvm import relay

    module, params = imported
    return relay.build(module, target="llvm", params=params, suite=suite)


_PLAIN = ("mod.o", "mod.json", "mod.params")


def open_plain(folder: Path) -> Any:
    """The plain artefact as `open_artefact` gives a sealed one."""
    from tvm_secret import artefact, tensors

    code = (folder / "mod.o").read_bytes()
    interface = artefact.Interface.from_json((folder / "mod.json").read_bytes())
    # Aligned, so that the weights are used where they are, and in large pages, as what is decrypted.
    size = (folder / "mod.params").stat().st_size
    weights = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    weights.madvise(mmap.MADV_HUGEPAGE)
    with open(folder / "mod.params", "rb") as file:
        file.readinto(weights)
    objects, offset = [], 0
    for size in interface.objects:
        objects.append(code[offset : offset + size])
        offset += size
    unsigned = mock.Mock(signer=None)
    return artefact.Opened(interface, objects, tensors.load(memoryview(weights)), [unsigned], mock.Mock())


def load(folder: Path, kind: str) -> Any:
    """A module of the plain artefact, or of the one that the suite `kind` sealed."""
    from tvm_secret import runtime

    if kind != "plain":
        return runtime.GraphModule(folder / f"{kind}.tar")
    with mock.patch.object(runtime, "open_artefact", open_plain):
        return runtime.GraphModule(folder)


def measure_load(folder: Path, kind: str) -> dict[str, dict[str, list[float]]]:
    """Load, and the first inference."""
    import numpy as np

    from tvm_secret import runtime

    unlock()
    runtime._session()
    inputs = dict(np.load(folder / "in.npz"))
    start = time.perf_counter()
    module = load(folder, kind)
    middle = time.perf_counter()
    for name, array in inputs.items():
        module.set_input(name, array)
    module.run()
    end = time.perf_counter()
    return {"load": {kind: [middle - start]}, "first inference": {kind: [end - middle]}}


def measure_disk(folder: Path, kind: str) -> dict[str, dict[str, list[float]]]:
    """Load, from files that are not in the page cache."""
    from tvm_secret import runtime

    for name in _PLAIN if kind == "plain" else (f"{kind}.tar",):
        with open(folder / name, "rb") as file:
            os.fsync(file)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    unlock()
    runtime._session()
    start = time.perf_counter()
    load(folder, kind)
    return {"load from disk": {kind: [time.perf_counter() - start]}}


def measure_steady(folder: Path, kind: str) -> dict[str, dict[str, list[float]]]:
    """Inference after inference, for at least so many seconds and twenty turns."""
    import numpy as np

    unlock()
    inputs = dict(np.load(folder / "in.npz"))
    modules = {name: load(folder, name) for name in KINDS}
    for module in modules.values():
        for name, array in inputs.items():
            module.set_input(name, array)
        module.run()
    times: dict[str, list[float]] = {name: [] for name in modules}
    begin = time.perf_counter()
    while time.perf_counter() - begin < STEADY_SECONDS or len(times["plain"]) < 20:
        for name in random.sample(KINDS, len(KINDS)):
            start = time.perf_counter()
            modules[name].run()
            times[name].append(time.perf_counter() - start)
    return {"steady inference": times}


STAGES: dict[str, Callable[[Path, str], dict[str, dict[str, list[float]]]]] = {
    "compile": measure_compile,
    "load": measure_load,
    "disk": measure_disk,
    "steady": measure_steady,
}
"""What runs in a process of its own: name -> function of the folder and the kind."""


def start_to_output(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds from process start to exit, of `tvmc run` and of ONNX Runtime in a script."""
    script = folder / "onnx_runtime.py"
    script.write_text(_ONNX_RUNTIME)
    inputs, outputs = folder / "in.npz", folder / "out.npz"
    tvmc = [str(Path(sys.executable).with_name("tvmc")), "run", "-i", inputs, "-o", outputs]
    commands = {
        **{f"tvmc run, {suite}": [*tvmc, folder / f"{suite}.tar"] for suite in SUITES},
        "onnxruntime": [sys.executable, script, folder / "model.onnx", inputs, outputs],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name in random.sample(list(commands), len(commands)):
            start = time.perf_counter()
            subprocess.run(commands[name], check=True, capture_output=True)
            times[name].append(time.perf_counter() - start)
    return times


def show(figures: dict[str, Any]) -> None:
    """Print medians, and ratios of medians to the plain path or to ONNX Runtime."""
    print(f"{figures['network']}: a plain artefact of {figures['plain_bytes'] / 1e6:.1f} MB; medians in ms")
    print(f"{'stage':18}{'plain':>10}" + "".join(f"{suite:>17}{'ratio':>7}" for suite in SUITES))
    for stage, times in figures["stages"].items():
        medians = {kind: 1e3 * statistics.median(times[kind]) for kind in KINDS}
        ratios = (f"{medians[suite]:17.2f}{medians[suite] / medians['plain']:7.3f}" for suite in SUITES)
        print(f"{stage:18}{medians['plain']:10.2f}" + "".join(ratios))
    medians = {name: 1e3 * statistics.median(times) for name, times in figures["start_to_output"].items()}
    for name, median in medians.items():
        ratio = median / medians["onnxruntime"]
        print(f"start to output: {name:26}{median:10.1f} ms, {ratio:.2f} of ONNX Runtime's")


def plot(figures: dict[str, Any], path: Path) -> None:
    """Draw each stage relative to the plain path, and the runs from start to output."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), width_ratios=(3, 2))
    stages = figures["stages"]
    for index, suite in enumerate(SUITES):
        heights = [statistics.median(t[suite]) / statistics.median(t["plain"]) for t in stages.values()]
        left.bar([i + 0.4 * index - 0.2 for i in range(len(stages))], heights, 0.38, label=suite)
    left.axhline(1, color="black", linewidth=0.8)
    left.set_xticks(range(len(stages)), stages, rotation=15)
    left.set_ylabel("sealed / plain")
    left.set_title(f"{figures['network']}, {figures['plain_bytes'] / 1e6:.0f} MB")
    left.legend()
    runs = figures["start_to_output"]
    right.barh(list(runs), [statistics.median(times) for times in runs.values()])
    right.set_xlabel("seconds from process start to output")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
