"""Every command and Python block of README.md and docs/, and every example in a docstring, does what it says.

The fenced blocks of a page run in order in a folder of the page's own: `sh` has to succeed, `console` to show
the output that follows each `$ ` line (`...` stands for anything), `python` runs as a program. Every block
begins in that folder and shares only files with earlier ones. Guides begin with the files that the blocks of
the quick start leave. A block whose title says that no test runs it is counted below.

Four programs are stand-ins, for what would take minutes, a network or an account: `tvmc` runs in a process
forked from one that has imported everything, `pip` checks that what it is asked for is declared, `make` says
what it would do, and `aws` hands its options to boto3, which speaks to a KMS on this machine.
"""

from __future__ import annotations

import doctest
import importlib.util
import json
import os
import re
import shutil
import socketserver
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import metadata
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import kms_server
from conftest import PASSPHRASE, ROOT, run_forked, run_tvmc
from tvm_secret.cli import COMMANDS

PAGES = ["README.md", *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md"))]
QUICK_START = "docs/quickstart.md"
EXECUTED = ("sh", "console", "python")
SHOWN = ("", "text", "json")
TOKEN_MODULE = "/usr/lib/softhsm/libsofthsm2.so"


@dataclass(frozen=True)
class Block:
    language: str
    title: str
    code: str
    line: int

    @property
    def is_run(self) -> bool:
        return self.language in EXECUTED and not self.title.startswith("No test runs this: ")


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, those in lists and admonitions too."""
    fence = r'^(?P<indent> *)```(?P<language>\w*)(?: title="(?P<title>.*)")?\n(?P<code>.*?)^(?P=indent)```$'
    text = (ROOT / page).read_text()
    return [
        Block(
            found["language"],
            found["title"] or "",
            textwrap.dedent(found["code"]),
            text[: found.start()].count("\n") + 2,
        )
        for found in re.finditer(fence, text, re.M | re.S)
    ]


# ------------------------------------------------------------------------------------------- stand-ins

_CLIENT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as link:
    link.connect({address!r})
    request = dict(arguments=sys.argv, folder=os.getcwd(), environment=dict(os.environ))
    link.sendall(json.dumps(request).encode())
    link.shutdown(socket.SHUT_WR)
    code, out, err = json.load(link.makefile())
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(code)
"""


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        request = json.loads(self.rfile.read())
        path, *arguments = request["arguments"]
        done = _PROGRAMS[Path(path).name](arguments, Path(request["folder"]), request["environment"])
        self.wfile.write(json.dumps([done.returncode, done.stdout, done.stderr]).encode())


def _tvmc(arguments, folder, environment) -> subprocess.CompletedProcess:
    return run_forked(run_tvmc, arguments, folder, environment)


def _pip(arguments, folder, environment) -> subprocess.CompletedProcess:
    command, *wanted = arguments
    extras = set(metadata("tvm-secret").get_all("Provides-Extra"))
    known = all(
        (match := re.fullmatch(r"(?:\.|tvm-secret)(?:\[([\w,]+)\])?", requirement))
        and set((match[1] or "").split(",")) <= extras | {""}
        for requirement in wanted
    )
    good = command == "install" and wanted and known
    return subprocess.CompletedProcess(
        arguments, not good, "", "" if good else f"pip {arguments}: undeclared"
    )


def _make(arguments, folder, environment) -> subprocess.CompletedProcess:
    return subprocess.run(["/usr/bin/make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True)


def _aws(arguments, folder, environment) -> subprocess.CompletedProcess:
    """`aws SERVICE OPERATION --some-option value`, as the real one forms a request from its options."""
    import boto3

    service, operation, *options = arguments
    names = ["".join(part.capitalize() for part in name[2:].split("-")) for name in options[::2]]
    client = boto3.session.Session().client(service, endpoint_url=environment["AWS_ENDPOINT_URL_KMS"])
    answer = getattr(client, operation.replace("-", "_"))(**dict(zip(names, options[1::2], strict=True)))
    del answer["ResponseMetadata"]
    return subprocess.CompletedProcess(arguments, 0, json.dumps(answer, default=str, indent=4) + "\n", "")


_PROGRAMS = {"tvmc": _tvmc, "pip": _pip, "make": _make, "aws": _aws}


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Iterator[dict[str, str]]:
    """Environment variables under which a page's commands run."""
    with tempfile.TemporaryDirectory() as scratch:
        address = f"{scratch}/socket"
        programs = Path(scratch) / "bin"
        programs.mkdir()
        for name in _PROGRAMS:
            (programs / name).write_text(_CLIENT.format(python=sys.executable, address=address))
            (programs / name).chmod(0o755)
        kept = {name: os.environ[name] for name in ("HOME", "LANG", "OMP_NUM_THREADS") if name in os.environ}
        search = [str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]
        with socketserver.ThreadingUnixStreamServer(address, _Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield kept | {"PATH": os.pathsep.join(search), "TVM_SECRET_PASSPHRASE": PASSPHRASE}
            server.shutdown()


# ----------------------------------------------------------------------------------------------- pages


def run_page(page: str, folder: Path, environment: dict[str, str]) -> None:
    for block in blocks(page):
        place = f"{page}:{block.line}"
        if not block.is_run:
            continue
        if block.language == "sh":
            done = _bash(block.code, folder, environment)
            assert done.returncode == 0, f"{place}: {done.stdout}"
        elif block.language == "console":
            for command, wanted in _session(block.code):
                _check_command(place, command, wanted, _bash(command, folder, environment))
        elif block.language == "python":
            check = _CHECK if "output = graph_executor.Execution(" in block.code else ""
            done = run_forked(_run_python, block.code + check, folder, environment)
            assert done.returncode == 0, f"{place}: {done.stderr}"


def _bash(code: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _session(code: str) -> Iterator[tuple[str, str]]:
    """Each command of a `console` block, over several lines maybe, with the output shown below it."""
    for part in re.split(r"^\$ ", code, flags=re.M)[1:]:
        command = re.match(r"(?:.*\\\n)*.*\n?", part)[0]
        yield command, part[len(command) :]


def _check_command(place: str, command: str, wanted: str, done: subprocess.CompletedProcess) -> None:
    fails = "error:" in wanted
    assert (done.returncode != 0) == fails, f"{place}: {command}: exit code {done.returncode}: {done.stdout}"
    same = doctest.OutputChecker().check_output(
        wanted, done.stdout, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    assert same, f"{place}: {command} shows\n{done.stdout}\nand not\n{wanted}"


# Follows each example of the whole way from a sealed model to an output.
_CHECK = """
import numpy
assert all(type(part) is bytes and part.startswith(b"\\x89TVMS") for part in (mod, params, *artefact))
numpy.save("output.npy", output)
"""


def _run_python(code: str) -> None:
    exec(compile(code, "example", "exec"), {"__name__": "__main__"})


@pytest.fixture(scope="module")
def quick_start(tmp_path_factory, environment) -> Path:
    """The folder that the quick start's page leaves."""
    folder = tmp_path_factory.mktemp("quickstart")
    run_page(QUICK_START, folder, environment)
    return folder


def test_quick_start(quick_start):
    check_outputs(quick_start)


def test_readme(quick_start, environment, tmp_path):
    for name in ("model.onnx", "in.npz"):
        shutil.copy(quick_start / name, tmp_path)
    run_page("README.md", tmp_path, environment)
    check_outputs(tmp_path)


def check_outputs(folder: Path) -> None:
    """The command line and Python gave what ONNX Runtime gives."""
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    with np.load(folder / "in.npz") as inputs, np.load(folder / "out.npz") as outputs:
        (wanted,) = session.run(None, dict(inputs))
        np.testing.assert_allclose(outputs["output_0"], wanted, rtol=0, atol=1e-4)
    np.testing.assert_allclose(np.load(folder / "output.npy"), wanted, rtol=0, atol=1e-4)


GUIDES = [page for page in PAGES if page not in ("README.md", QUICK_START)]
RUNNABLE = [page for page in GUIDES if any(block.is_run for block in blocks(page))]


@pytest.mark.parametrize("page", RUNNABLE)
def test_guide(page, quick_start, environment, tmp_path, request):
    folder = tmp_path / "guide"
    shutil.copytree(quick_start, folder)
    needed = [request.getfixturevalue(name) for name in _NEEDS.get(page, ())]
    run_page(page, folder, environment | {name: value for part in needed for name, value in part.items()})


_NEEDS = {"docs/how-to/tokens.md": ["softhsm"], "docs/how-to/aws-kms.md": ["aws"]}


@pytest.fixture
def softhsm(tmp_path) -> dict[str, str]:
    """SoftHSM without tokens yet."""
    if not Path(TOKEN_MODULE).exists():
        pytest.skip("SoftHSM is not here (Debian: softhsm2)")
    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm2.conf").write_text(f"directories.tokendir = {tmp_path / 'tokens'}\n")
    return {"SOFTHSM2_CONF": str(tmp_path / "softhsm2.conf")}


@pytest.fixture
def aws(monkeypatch) -> Iterator[dict[str, str]]:
    """An account with no keys yet."""
    with kms_server.running() as address:
        account = {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing's secret",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL_KMS": address,
            "NO_PROXY": "127.0.0.1",
        }
        for name, value in account.items():
            monkeypatch.setenv(name, value)
        yield account


@pytest.mark.parametrize("page", PAGES)
def test_no_block_escapes(page):
    """What is shown without being run is no command."""
    for block in blocks(page):
        assert block.language in (*EXECUTED, *SHOWN), f"{page}:{block.line}"
        if block.language in SHOWN:
            assert not re.search(r"^(\$ |tvmc |python |pip |import |from )", block.code, re.M), (
                f"{page}:{block.line}"
            )


def test_site_builds(tmp_path):
    """In strict mode: a warning, a broken link or a page outside the navigation fails it."""
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", tmp_path / "site"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    reference = (tmp_path / "site" / "reference" / "tvmc.html").read_text()
    for command in COMMANDS:
        assert f'id="tvmc-{command}"' in reference


def test_benchmarks_page_shows_what_benchmarks_save(tmp_path):
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    assert "no results" in hooks.benchmark_figures(tmp_path)
    figures = {
        "cpu": "a CPU",
        "cores": 2,
        "python": "3.11",
        "versions": {"tvm-secret": "1.0"},
        "network": "resnet50",
        "runs": [{"network": "mlp", "median_ms": {"ours": 1.25, "others": 2.5}}],
        "stages": {"load": {"plain": [3.0, 1.0, 2.0]}},
    }
    (tmp_path / "inference.json").write_text(json.dumps(figures))
    (tmp_path / "inference.png").touch()
    page = hooks.benchmark_figures(tmp_path)
    for line in (
        "![inference](benchmarks/inference.png)",
        "On a CPU with 2 cores; Python 3.11, tvm-secret 1.0.",
        "network: resnet50.",
        "| network | median ms: ours | median ms: others |",
        "| mlp | 1.25 | 2.5 |",
        "| load | 2 |",
    ):
        assert line in page.splitlines()


def test_few_blocks_say_that_they_are_not_run():
    excused = {
        page for page in PAGES for block in blocks(page) if block.language in EXECUTED and not block.is_run
    }
    assert excused == {"docs/benchmarks.md"}


# ------------------------------------------------------------------------------------------ docstrings


def _modules_with_examples() -> list[str]:
    sources = (path for path in (ROOT / "python").rglob("*.py") if ">>> " in path.read_text())
    return sorted(
        path.relative_to(ROOT / "python").with_suffix("").as_posix().replace("/", ".") for path in sources
    )


@pytest.mark.parametrize("name", _modules_with_examples())
def test_docstring_examples(name, quick_start, tmp_path, monkeypatch):
    """They start, like the guides, with the files that the quick start leaves."""
    shutil.copytree(quick_start, tmp_path / "folder")
    monkeypatch.chdir(tmp_path / "folder")
    monkeypatch.setenv("TVM_SECRET_PASSPHRASE", PASSPHRASE)
    failed, attempted = doctest.testmod(
        importlib.import_module(name.removesuffix(".__init__")), optionflags=doctest.ELLIPSIS
    )
    assert attempted
    assert not failed
