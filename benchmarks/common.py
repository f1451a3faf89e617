"""What every benchmark shares: the machine, the versions, and where results go."""

from __future__ import annotations

import json
import os
import platform
import secrets
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def environment(*packages: str) -> dict[str, Any]:
    """The machine and the versions of `packages`, to stand beside every figure."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "absent"
    return {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version(), "versions": versions}


def save(name: str, figures: dict[str, Any]) -> Path:
    """Write `figures` to results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(figures, indent=1) + "\n")
    return path


def make_keys(folder: Path) -> tuple[Path, Path]:
    """Write an RSA pair to `folder` and let this process, and what it starts, use it; returns the paths.

    The passphrase is random, and in the environment alone.
    """
    from tvm_secret import context, keyfiles

    passphrase = secrets.token_urlsafe()
    private, public = keyfiles.write_pair(
        keyfiles.generate_rsa(), folder, keyfiles.RSA_NAMES, passphrase.encode()
    )
    os.environ |= {
        context.IDENTITY_VARIABLE: str(private),
        context.RECIPIENTS_VARIABLE: str(public),
        context.PASSPHRASE_VARIABLE: passphrase,
    }
    return private, public


def measured_apart(script: str, *arguments: object, **environment: str) -> Any:
    """Run `script` in a process of its own, and return what it prints last, as JSON.

    Raises `RuntimeError` with the last line of what it complained about.
    """
    command = [sys.executable, script, *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
    return json.loads(done.stdout.splitlines()[-1])


def peak_memory() -> int:
    """The most bytes that this process has had in memory. (getrusage would count its parent's too.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
