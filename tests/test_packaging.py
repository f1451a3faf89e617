"""The overlay installs beside upstream and overwrites nothing of it."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import zipfile

import pytest

from conftest import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> list[str]:
    """Names of the files of the built wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("tvm_secret-*.whl")
    return zipfile.ZipFile(path).namelist()


def test_everything_is_in_it(wheel):
    sources = {path.relative_to(ROOT / "python").as_posix() for path in (ROOT / "python").rglob("*.py")}
    assert sources == {name for name in wheel if name.endswith(".py")}
    assert any(name.endswith("licenses/LICENSE") for name in wheel)


def test_nothing_of_upstream_is_overwritten(wheel):
    upstream = {str(file) for file in importlib.metadata.files("apache-tvm")}
    assert "tvm/__init__.py" in upstream
    assert not upstream & set(wheel)
    assert {name.split("/")[0] for name in wheel if name.endswith(".py")} == {"tvm", "tvm_secret"}


def test_the_core_depends_on_no_framework():
    requirements = importlib.metadata.requires("tvm-secret")
    core = {line.split(";")[0].strip() for line in requirements if "extra ==" not in line}
    names = sorted(line.split(">")[0].split("=")[0].split("<")[0].lower() for line in core)
    assert names == [
        "apache-tvm",
        "apache-tvm-ffi",
        "apache-tvm-ffi-orcjit",
        "cryptography",
        "numpy",
        "pycryptodome",
        "rich",
    ]
