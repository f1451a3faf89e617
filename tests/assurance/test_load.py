"""A short form of soak.py: concurrent modules, many opens and loads; nothing grows, outputs stay the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import soak

import small_model
from conftest import PASSPHRASE

SHORT = """
import json, sys, soak
work = soak.Work.of("x.tar")
work.at_once_in_processes(8)
work.at_once_in_threads(16)
figures = {"opens": soak.growth(soak.open_many(1000)), "loads": soak.growth(work.repeatedly(times=50))}
print(json.dumps({what: vars(growth) for what, growth in figures.items()}))
"""


@pytest.fixture(scope="module")
def figures(tmp_path_factory, alice) -> dict:
    from conftest import Tvmc

    tvmc = Tvmc(tmp_path_factory.mktemp("load"), alice)
    (tvmc.folder / "x.onnx").write_bytes(small_model.onnx_bytes())
    tvmc("encrypt", "x.onnx")
    tvmc("compile", "x.onnx.sealed", "-o", "x.tar")
    environment = os.environ | {
        "PYTHONPATH": os.path.dirname(soak.__file__),
        "TVM_SECRET_IDENTITY": str(alice.private),
        "TVM_SECRET_PASSPHRASE": PASSPHRASE,
    }
    done = subprocess.run(
        [sys.executable, "-c", SHORT], cwd=tvmc.folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_opening_grows_nothing(figures):
    assert figures["opens"]["descriptors"] == 0
    assert figures["opens"]["memory"] < 1 << 20


def test_loading_running_and_closing_grows_nothing(figures):
    assert figures["loads"]["descriptors"] == 0
    assert figures["loads"]["memory"] < 1 << 20


def test_growth_is_seen():
    """A control: a leak of 200 kB and a descriptor a turn is far beyond those limits."""
    leaking = [soak.Use(50 << 20 | turn * 200_000, 5 + turn) for turn in range(50)]
    grown = soak.growth(leaking)
    assert grown.memory > 1 << 20
    assert grown.descriptors > 0
