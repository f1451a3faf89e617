"""MXNet 1.9.1 in a virtual environment of its own, and a process in it that answers requests.

MXNet wants NumPy < 1.24 and so cannot share the suite's environment.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_REQUIREMENTS = ("numpy==1.23.5", "mxnet==1.9.1")
_PYTHONS = ("python3.11", "python3.10")
_CACHE = Path(__file__).resolve().parent.parent / "build" / "cache"


class Unavailable(Exception):
    """MXNet cannot be installed here; the message says why."""


def mxnet_python() -> Path:
    """The interpreter of the environment, which is made on the first call and kept.

    Raises `Unavailable` where no Python is old enough or the packages cannot be had.
    """
    folder = _CACHE / "mxnet-1.9.1"
    _CACHE.mkdir(parents=True, exist_ok=True)
    with open(_CACHE / "mxnet-1.9.1.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        marker = folder / "complete"
        if not marker.exists():
            shutil.rmtree(folder, ignore_errors=True)
            _make(folder)
            marker.touch()
    return folder / "bin" / "python"


def _make(folder: Path) -> None:
    interpreter = next(filter(None, map(shutil.which, _PYTHONS)), None)
    if interpreter is None:
        raise Unavailable(f"MXNet 1.9.1 needs one of {', '.join(_PYTHONS)}")
    install = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", *_REQUIREMENTS]
    for command in ([interpreter, "-m", "venv", folder], install):
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
        except subprocess.TimeoutExpired:
            raise Unavailable("MXNet 1.9.1 could not be installed within 10 minutes") from None
        except subprocess.CalledProcessError as error:
            reason = error.stderr.strip().splitlines()[-1:] or ["no reason given"]
            raise Unavailable(f"MXNet 1.9.1 could not be installed: {reason[0]}") from None


class Process:
    """A script that runs under MXNet and answers each line of JSON with one."""

    def __init__(self, process: subprocess.Popen[str]):
        self._process = process

    def ask(self, request: Mapping[str, Any]) -> Any:
        """The answer to `request`. Raises `RuntimeError` where the script failed or ended."""
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process under MXNet ended")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"under MXNet: {answer['error']}")
        return answer


@contextmanager
def running(script: Path) -> Iterator[Process]:
    """`script` as a process of the environment, for as long as the block runs."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "MXNET_SUBGRAPH_VERBOSE": "0"}
    environment.pop("PYTHONPATH", None)
    command = [mxnet_python(), script]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield Process(process)
        finally:
            process.stdin.close()
            process.wait(timeout=60)
