"""Latency and compile time beside ONNX Runtime, OpenVINO and PyTorch, interleaved in one process.

    python benchmarks/inference.py [--threads 1 2] [--networks resnet18 ...] [--rounds 8]

Each network is exported to ONNX and every engine runs that file in float32. In each round every engine has
its turn in a new order, so that a slow moment of the machine meets all of them; the table holds medians, and
ratios of medians and of minima. Writes results/inference.json and results/inference.png.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import random
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import RESULTS, environment, save

Run = Callable[[], Any]
PACKAGES = ("apache-tvm", "onnxruntime", "openvino", "torch", "numpy")


def main() -> None:
    """Measure each network in a process of its own, print a table, write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, os.cpu_count() or 1}))
    parser.add_argument("--networks", nargs="+")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.threads[0], options.rounds)))
        return
    from networks import NETWORKS

    figures: dict[str, Any] = {"environment": environment(*PACKAGES), "runs": []}
    print(json.dumps(figures["environment"]))
    print(f"{'network':20}{'threads':>8}{'ours ms':>9}{'ort':>8}{'openvino':>9}{'torch':>8}"
          f"{'/ort':>7}{'min/min':>8}{'/ov':>6}{'compile s':>10}{'error':>9}")  # fmt: skip
    for threads in options.threads:
        for name in options.networks or NETWORKS:
            command = [sys.executable, __file__, "--measure", name, "--threads", str(threads)]
            environ = {**os.environ, "TVM_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
            done = subprocess.run(
                [*command, "--rounds", str(options.rounds)], env=environ, capture_output=True, text=True
            )
            if done.returncode:
                print(f"{name:20}{threads:8}  failed: {done.stderr.strip().splitlines()[-1]}")
                continue
            run = json.loads(done.stdout.splitlines()[-1])
            figures["runs"].append(run)
            ms, low = run["median_ms"], run["min_ms"]
            print(f"{name:20}{threads:8}{ms['ours']:9.2f}{ms['onnxruntime']:8.2f}{ms['openvino']:9.2f}"
                  f"{ms['torch']:8.2f}{ms['ours'] / ms['onnxruntime']:7.2f}"
                  f"{low['ours'] / low['onnxruntime']:8.2f}{ms['ours'] / ms['openvino']:6.2f}"
                  f"{run['compile_s']:10.1f}{run['error']:9.0e}", flush=True)  # fmt: skip
    figures["geometric_means"] = summary(figures["runs"])
    print(json.dumps(figures["geometric_means"], indent=1))
    save("inference", figures)
    plot(figures["runs"])


def summary(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Geometric means of our time over the others', by number of threads."""
    means: dict[str, dict[str, float]] = {}
    for threads in sorted({run["threads"] for run in runs}):
        chosen = [run for run in runs if run["threads"] == threads]
        for other in ("onnxruntime", "openvino", "torch"):
            for key in ("median_ms", "min_ms"):
                logs = [math.log(run[key]["ours"] / run[key][other]) for run in chosen]
                entry = means.setdefault(f"{threads} threads", {})
                entry[f"{key.removesuffix('_ms')} over {other}"] = round(math.exp(sum(logs) / len(logs)), 3)
    return means


def measure(name: str, threads: int, rounds: int) -> dict[str, Any]:
    """Measure one network with all engines; the figures of one row."""
    warnings.filterwarnings("ignore")
    import numpy as np
    import torch
    from networks import NETWORKS

    torch.set_num_threads(threads)
    model, example = NETWORKS[name]()
    file = io.BytesIO()
    with torch.no_grad():
        expected = model(example).numpy()
        exported = torch.onnx.export(model, (example,), dynamo=True, verbose=False)
    file.write(exported.model_proto.SerializeToString())
    onnx = file.getvalue()
    array = example.numpy()
    ours, compile_s, compile_cpu_s = _ours(onnx, array)
    engines = {
        "ours": ours,
        "onnxruntime": _onnxruntime(onnx, array, threads),
        "openvino": _openvino(onnx, array, threads),
        "torch": _torch(model, example),
    }
    error = float(np.abs(ours() - expected).max() / np.abs(expected).max())
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
        "error": error,
    }


def _ours(onnx: bytes, array: Any) -> tuple[Run, float, float]:
    """Our runner, and the seconds that compiling took, by the clock and of the processor."""
    import tvm
    from tvm import relax
    from tvm.relay.backend.cpu.machine import parse_target
    from tvm.relay.backend.cpu.pipeline import compile
    from tvm.relay.frontend.onnx import import_onnx

    imported = import_onnx(onnx, None)
    start, before = time.perf_counter(), time.process_time()
    compiled = compile(imported.module, imported.params, parse_target("llvm"))
    seconds = time.perf_counter() - start, time.process_time() - before
    function = relax.VirtualMachine(compiled.executable, tvm.cpu())["main"]
    arguments = [tvm.runtime.tensor(a) for a in (array, *compiled.weights.values())]

    def run() -> Any:
        result = function(*arguments)
        return (result if hasattr(result, "numpy") else result[0]).numpy()

    return run, *seconds


def _onnxruntime(onnx: bytes, array: Any, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: array}
    return lambda: session.run(None, feed)[0]


def _openvino(onnx: bytes, array: Any, threads: int) -> Run:
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    request = core.compile_model(core.read_model(io.BytesIO(onnx)), "CPU", settings).create_infer_request()
    return lambda: request.infer([array])


def _torch(model: Any, example: Any) -> Run:
    import torch

    def run() -> Any:
        with torch.inference_mode():
            return model(example)

    return run


def plot(runs: list[dict[str, Any]]) -> Path:
    """Draw our latency relative to the others', one group of bars a network."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    counts = sorted({run["threads"] for run in runs})
    figure, axes = pyplot.subplots(len(counts), 1, figsize=(11, 3.2 * len(counts)), squeeze=False)
    for axis, threads in zip(axes[:, 0], counts, strict=True):
        chosen = [run for run in runs if run["threads"] == threads]
        for index, other in enumerate(("onnxruntime", "openvino", "torch")):
            places = [i + 0.27 * (index - 1) for i in range(len(chosen))]
            heights = [run["median_ms"][other] / run["median_ms"]["ours"] for run in chosen]
            axis.bar(places, heights, 0.25, label=other)
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set_xticks(range(len(chosen)), [run["network"] for run in chosen], rotation=20, ha="right")
        axis.set_ylabel("their latency / ours")
        axis.set_title(f"{threads} thread{'s' if threads > 1 else ''}: higher is better for us")
        axis.legend()
    figure.tight_layout()
    path = RESULTS / "inference.png"
    figure.savefig(path, dpi=110)
    return path


if __name__ == "__main__":
    main()
