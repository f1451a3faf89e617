"""Latency, compile time and peak memory beside ONNX Runtime, OpenVINO, PyTorch and TFLite's interpreter.

    python benchmarks/inference.py [--threads 1 2] [--networks resnet18 ...] [--rounds 8] [--no-memory]

Each network is exported to ONNX and every engine runs that file in float32; TFLite models run in TFLite's
interpreter beside us. Engines are interleaved in one process: in each round every engine has its turn in a
new order, so that a slow moment of the machine meets all of them. The table holds medians, and ratios of
medians and of minima. Peak memory is that of a process which loads the model and runs it once (ours: the
sealed artefact), and of our compiler. Writes results/inference.json and results/inference.png.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import RESULTS, environment, make_keys, measured_apart, peak_memory, save

Run = Callable[[], Any]
PACKAGES = ("apache-tvm", "onnxruntime", "openvino", "torch", "tensorflow", "numpy")
OTHERS = ("onnxruntime", "openvino", "torch", "tflite")


def main() -> None:
    """Measure each network in a process of its own, print a table, write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, os.cpu_count() or 1}))
    parser.add_argument("--networks", nargs="+", help="of networks.py (default: all)")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--no-memory", action="store_true", help="leave out peak memory, which takes longer")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.threads[0], options.rounds, options.no_memory)))
        return
    if options.memory:
        engine, folder = options.memory
        print(json.dumps(memory(engine, Path(folder))))
        return
    from networks import NETWORKS, TFLITE_MODELS

    known = [*NETWORKS, *TFLITE_MODELS]
    unknown = set(options.networks or ()).difference(known)
    if unknown:
        parser.error(f"there is no network {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    figures: dict[str, Any] = {**environment(*PACKAGES), "runs": []}
    print(json.dumps(figures))
    print(f"{'network':26}{'threads':>8}{'ours ms':>9}" + "".join(f"{name:>12}" for name in OTHERS), end="")
    print(f"{'/ort':>6}{'min':>6}{'/ov':>6}{'/tflite':>8}{'compile s':>10}{'MB':>6}{'ort MB':>7}{'error':>8}")
    for threads in options.threads:
        for name in options.networks or known:
            flags = ["--no-memory"] if options.no_memory or threads != options.threads[0] else []
            limits = {"TVM_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
            arguments = ["--measure", name, "--threads", threads, "--rounds", options.rounds, *flags]
            try:
                run = measured_apart(__file__, *arguments, **limits)
            except RuntimeError as error:
                print(f"{name:26}{threads:8}  failed: {error}")
                continue
            figures["runs"].append(run)
            print(row(run), flush=True)
            # After each, so that a run can be cut short.
            figures["geometric_means"] = summary(figures["runs"])
            save("inference", figures)
    print(json.dumps(figures["geometric_means"], indent=1))
    plot(figures["runs"])


def row(run: dict[str, Any]) -> str:
    """One line of the table."""
    ms, low, peak = run["median_ms"], run["min_ms"], run["peak_mb"]

    def cell(value: float | None, width: int, form: str) -> str:
        return f"{'-' if value is None else format(value, form):>{width}}"

    def ratio(times: dict[str, float], other: str) -> float | None:
        return times["ours"] / times[other] if other in times else None

    cells = [cell(ms.get(name), 12, ".2f") for name in OTHERS]
    cells += [cell(ratio(ms, "onnxruntime"), 6, ".2f"), cell(ratio(low, "onnxruntime"), 6, ".2f")]
    cells += [cell(ratio(ms, "openvino"), 6, ".2f"), cell(ratio(ms, "tflite"), 8, ".2f")]
    cells += [cell(run["compile_s"], 10, ".1f"), cell(peak.get("ours"), 6, ".0f")]
    cells += [cell(peak.get("onnxruntime"), 7, ".0f"), cell(run["error"], 8, ".0e")]
    return f"{run['network']:26}{run['threads']:8}{ms['ours']:9.2f}" + "".join(cells)


def summary(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Geometric means of our time over the others', by number of threads."""
    means: dict[str, dict[str, float]] = {}
    for threads in sorted({run["threads"] for run in runs}):
        for other in OTHERS:
            chosen = [run for run in runs if run["threads"] == threads and other in run["median_ms"]]
            for key in ("median_ms", "min_ms") if chosen else ():
                logs = [math.log(run[key]["ours"] / run[key][other]) for run in chosen]
                entry = means.setdefault(f"{threads} threads", {})
                entry[f"{key.removesuffix('_ms')} over {other}"] = round(math.exp(sum(logs) / len(logs)), 3)
    return means


@dataclass
class Subject:
    """A model as bytes of `format` ("onnx" or "tflite"), an input, and what the others need."""

    format: str
    model: bytes
    array: Any
    expected: Any
    torch: Run | None = None

    @property
    def others(self) -> tuple[str, ...]:
        return ("tflite",) if self.format == "tflite" else ("onnxruntime", "openvino")


def subject(name: str) -> Subject:
    """The network or TFLite model `name` of networks.py."""
    import numpy as np
    import torch
    from networks import NETWORKS, TFLITE_MODELS, exported

    if name in TFLITE_MODELS:
        model = TFLITE_MODELS[name]()
        run, detail = _interpreter(model, 1)
        shape, dtype = detail["shape"], detail["dtype"]
        numbers = np.random.default_rng(0).random(shape, dtype="float32")
        array = numbers if dtype == np.float32 else (255 * numbers).astype(dtype)
        return Subject("tflite", model, array, run(array))
    module, example = NETWORKS[name]()
    with torch.no_grad():
        expected = module(example).numpy()

    def eager() -> Any:
        with torch.inference_mode():
            return module(example)

    return Subject("onnx", exported(module, example), example.numpy(), expected, eager)


def measure(name: str, threads: int, rounds: int, no_memory: bool) -> dict[str, Any]:
    """Measure one network with all engines; the figures of one row."""
    warnings.filterwarnings("ignore")
    import numpy as np
    import torch

    torch.set_num_threads(threads)
    given = subject(name)
    ours, compile_s, compile_cpu_s = _ours(given)
    engines = {"ours": ours, **{other: ENGINES[other](given, threads) for other in given.others}}
    if given.torch:
        engines["torch"] = given.torch
    difference = np.abs(ours().astype("float64") - given.expected.astype("float64"))
    times: dict[str, list[float]] = {engine: [] for engine in engines}
    for _ in range(rounds):
        for engine in random.sample(list(engines), len(engines)):
            run = engines[engine]
            run()
            until = time.perf_counter() + 0.3
            while time.perf_counter() < until:
                begin = time.perf_counter()
                run()
                times[engine].append(1e3 * (time.perf_counter() - begin))
    return {
        "network": name,
        "threads": threads,
        "median_ms": {engine: float(np.median(t)) for engine, t in times.items()},
        "min_ms": {engine: float(min(t)) for engine, t in times.items()},
        "compile_s": compile_s,
        "compile_cpu_s": compile_cpu_s,
        "peak_mb": {} if no_memory else peaks(given),
        "error": float(difference.max() / np.abs(given.expected).max()),
    }


def _ours(given: Subject) -> tuple[Run, float, float]:
    """Our runner, and the seconds that compiling took, by the clock and of the processor."""
    import tvm
    from tvm import relax
    from tvm.relay.backend.cpu.machine import parse_target
    from tvm.relay.backend.cpu.pipeline import compile
    from tvm.relay.frontend.onnx import import_onnx
    from tvm.relay.frontend.tflite import import_tflite

    imported = {"onnx": import_onnx, "tflite": import_tflite}[given.format](given.model, None)
    start, before = time.perf_counter(), time.process_time()
    compiled = compile(imported.module, imported.params, parse_target("llvm"))
    seconds = time.perf_counter() - start, time.process_time() - before
    function = relax.VirtualMachine(compiled.executable, tvm.cpu())["main"]
    arguments = [tvm.runtime.tensor(a) for a in (given.array, *compiled.weights.values())]

    def run() -> Any:
        result = function(*arguments)
        return (result if hasattr(result, "numpy") else result[0]).numpy()

    return run, *seconds


def _onnxruntime(given: Subject, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(given.model, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: given.array}
    return lambda: session.run(None, feed)[0]


def _openvino(given: Subject, threads: int) -> Run:
    import io

    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    model = core.read_model(io.BytesIO(given.model))
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return lambda: request.infer([given.array])


def _tflite(given: Subject, threads: int) -> Run:
    run, _ = _interpreter(given.model, threads)
    return lambda: run(given.array)


def _interpreter(model: bytes, threads: int) -> tuple[Callable[[Any], Any], dict[str, Any]]:
    """TFLite's interpreter as a function, and its input's details."""
    import tensorflow

    interpreter = tensorflow.lite.Interpreter(model_content=model, num_threads=threads)
    interpreter.allocate_tensors()
    (source,), result = interpreter.get_input_details(), interpreter.get_output_details()[0]

    def run(array: Any) -> Any:
        interpreter.set_tensor(source["index"], array)
        interpreter.invoke()
        return interpreter.get_tensor(result["index"])

    return run, source


ENGINES: dict[str, Callable[[Subject, int], Run]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "tflite": _tflite,
}


def peaks(given: Subject) -> dict[str, float]:
    """Peak memory in megabytes, each engine in a process of its own that imports just what it needs."""
    import numpy as np

    from tvm_secret import envelope

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_keys(folder)
        (folder / f"model.{given.format}").write_bytes(given.model)
        sealed = envelope.seal(given.model, content_type=f"model/{given.format}", suite="cobblestone-256")
        (folder / "model.sealed").write_bytes(sealed)
        np.save(folder / "in.npy", given.array)
        order = ("compile", "ours", *given.others)
        return {engine: measured_apart(__file__, "--memory", engine, folder) / 1e6 for engine in order}


def memory(engine: str, folder: Path) -> int:
    """The peak memory of this process, in bytes, after it has compiled the model or run it once."""
    import numpy as np

    if engine == "compile":
        from tvm import relay
        from tvm_secret import artefact

        importer = (
            relay.frontend.from_tflite if (folder / "model.tflite").exists() else relay.frontend.from_onnx
        )
        module, params = importer(folder / "model.sealed")
        parts = relay.build(module, target="llvm", params=params, suite="cobblestone-256")
        artefact.save(parts, folder / "artefact.tar")
        return peak_memory()
    array = np.load(folder / "in.npy")
    if engine == "ours":
        from tvm_secret.runtime import GraphModule

        with GraphModule(folder / "artefact.tar") as module:
            module.set_input(module.inputs[0].name, array)
            module.run()
            return peak_memory()
    (path,) = (p for p in folder.iterdir() if p.suffix in (".onnx", ".tflite"))
    run = ENGINES[engine](Subject(path.suffix[1:], path.read_bytes(), array, None), 1)
    run()
    return peak_memory()


def plot(runs: list[dict[str, Any]]) -> Path:
    """Draw our latency relative to the others', one group of bars a network."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    counts = sorted({run["threads"] for run in runs})
    figure, axes = pyplot.subplots(len(counts), 1, figsize=(11, 3.4 * len(counts)), squeeze=False)
    for axis, threads in zip(axes[:, 0], counts, strict=True):
        chosen = [run for run in runs if run["threads"] == threads]
        for index, other in enumerate(OTHERS):
            bars = [
                (place + 0.27 * (index % 3 - 1), run["median_ms"][other] / run["median_ms"]["ours"])
                for place, run in enumerate(chosen)
                if other in run["median_ms"]
            ]
            if bars:
                axis.bar(*zip(*bars, strict=True), 0.25, label=other)
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set_xticks(range(len(chosen)), [run["network"] for run in chosen], rotation=25, ha="right")
        axis.set_ylabel("their latency / ours")
        axis.set_title(f"{threads} thread{'s' if threads > 1 else ''}: higher is better for us")
        axis.legend()
    figure.tight_layout()
    path = RESULTS / "inference.png"
    figure.savefig(path, dpi=110)
    return path


if __name__ == "__main__":
    main()
