"""The benchmarks run, on little, and write what they say they write."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

import small_model

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def benchmark_main(monkeypatch, tmp_path):
    """Run a benchmark's main with these arguments, and return what it saved."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, "common", raising=False)  # the tutorials have one too
    monkeypatch.setattr(importlib.import_module("common"), "RESULTS", tmp_path / "results")

    def run(name: str, *arguments: object) -> dict:
        module = importlib.import_module(name)
        monkeypatch.setattr(sys, "argv", [str(FOLDER / f"{name}.py"), *map(str, arguments)])
        module.main()
        figures = json.loads((tmp_path / "results" / f"{name}.json").read_text())
        assert figures["versions"]["tvm-secret"] != "absent"
        return figures

    return run


def test_inference(benchmark_main, tmp_path):
    for package in ("torch", "onnx", "onnxruntime", "openvino", "matplotlib"):
        pytest.importorskip(package)
    (run,) = benchmark_main("inference", "--networks", "mlp", "--threads", 1, "--rounds", 1)["runs"]
    engines = {"ours", "onnxruntime", "openvino", "torch"}
    assert run["median_ms"].keys() == run["min_ms"].keys() == engines
    assert min(run["min_ms"].values()) > 0
    assert run["peak_mb"].keys() == engines | {"compile"}
    assert run["error"] < 1e-5
    assert (tmp_path / "results" / "inference.png").stat().st_size > 0


def test_crypto(benchmark_main, tmp_path):
    for package in ("pyrage", "tink", "matplotlib"):
        pytest.importorskip(package)
    runs = benchmark_main("crypto", "--sizes", 1, "--rounds", 1)["runs"]
    assert len({run["tool"] for run in runs}) == len(runs) == 5
    for run in runs:
        assert run["bytes"] == 1 << 20
        assert min(run["seal_gb_per_s"], run["open_gb_per_s"]) > 0
        assert min(run["seal_peak_bytes"], run["open_peak_bytes"]) > 1 << 20
    assert (tmp_path / "results" / "crypto.png").stat().st_size > 0


def test_sealed_overhead(benchmark_main, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    overhead = importlib.import_module("sealed_overhead")
    # In this process, which has imported the compiler already.
    monkeypatch.setattr(
        overhead, "measured_apart", lambda _, __, stage, kind, folder: overhead.STAGES[stage](folder, kind)
    )
    monkeypatch.setattr(overhead, "STEADY_SECONDS", 0)
    model = tmp_path / "model.onnx"
    model.write_bytes(small_model.onnx_bytes())
    figures = benchmark_main("sealed_overhead", "--model", model, "--rounds", 1)
    stages = ["import", "build", "load", "first inference", "load from disk", "steady inference"]
    assert list(figures["stages"]) == stages
    for times in figures["stages"].values():
        assert times.keys() == {"plain", "cobblestone-256", "aes-eax"}
    assert len(figures["start_to_output"]) == 3
    assert (tmp_path / "results" / "sealed_overhead.png").stat().st_size > 0


def test_rewrap(benchmark_main):
    figures = benchmark_main("rewrap", "--size", "1M", "--rounds", 1)
    assert figures["bytes"] == 1 << 20
    assert len(figures["in place"]["all_s"]) == 1
