"""Trace all that a process tree writes, to whatever file, and look in it for what must stay secret.

Every format goes through every subcommand in one traced process. What it writes is taken from the trace, so
that files count which are deleted or renamed since, and so are those that frameworks and compilers use on
the side; and what is left in the folders for temporary files, caches and results is searched once more.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from conftest import PASSPHRASE, ROOT

pytestmark = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed (apt-get install strace)"
)

NAME = b"canary_7f3a91"
WEIGHTS = struct.pack("<f", 0.7390851) * 3
SHAPES = ((2, 3, 8, 8), (2, 8, 8, 3))
RSA_PRIVATE_KEY = bytes.fromhex("020100300d06092a864886f70d010101")  # PKCS#8: its version, and RSA's OID


def encodings(secret: bytes) -> list[bytes]:
    """As it is, in hexadecimal, in UTF-16, and in base64 at each of its three alignments."""
    aligned = [base64.b64encode(bytes(lead) + secret)[4 if lead else 0 : -4] for lead in range(3)]
    return [secret, secret.hex().encode(), "".join(map(chr, secret)).encode("utf-16-le"), *aligned]


CANARIES = {
    "a name": encodings(NAME),
    "weights": encodings(WEIGHTS),
    "a shape": [
        form
        for shape in SHAPES
        for form in (str(shape).encode(), str(list(shape)).encode(), struct.pack("<4q", *shape))
    ],
    "object code": [b"\x7fELF", b"vm_load_executable", b"__tvm_ffi_"],
    "a private key": [b"BEGIN PRIVATE KEY", *encodings(RSA_PRIVATE_KEY)],
    "the passphrase": encodings(PASSPHRASE.encode()),
}


def found(content: bytes) -> set[str]:
    return {kind for kind, forms in CANARIES.items() if any(form in content for form in forms)}


def leaks(files: dict) -> dict[str, set[str]]:
    """Path -> what of the above its content holds, where it holds any."""
    return {str(path): kinds for path, content in files.items() if (kinds := found(bytes(content)))}


# ----------------------------------------------------------------------------------------------- the trace

WRITING = "write,pwrite64,writev,pwritev,pwritev2"
CALLS = (
    f"{WRITING},open,openat,openat2,creat,mmap,memfd_create,sendfile,copy_file_range,splice,vmsplice,"
    "link,linkat,symlink,symlinkat,mkdir,mkdirat,execve,connect,io_uring_setup"
)
_PROCESS = r"\d+ +"  # strace pads the number to five columns
_HEX = r"(?:\\x[0-9a-f]{2})"
_STRING = re.compile(rf'"({_HEX}*)"')
_DESCRIPTOR = re.compile(rf"\d+<({_HEX}+)")


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _in_memory(path: str) -> bool:
    """Pipes, sockets, anonymous memory and terminals are no files; /dev/shm is one."""
    return not path.startswith("/") or path.startswith(
        ("/memfd:", "/dev/null", "/dev/tty", "/dev/pts/", "/proc/")
    )


@dataclass
class Trace:
    written: dict[str, bytearray] = field(default_factory=lambda: defaultdict(bytearray))
    """Path -> everything that was written to it, in the order of the calls."""
    opened: set[str] = field(default_factory=set)
    """What was opened for writing, or made."""
    programs: list[str] = field(default_factory=list)
    past_the_trace: list[str] = field(default_factory=list)
    """Calls that write to a file without showing what."""

    def read(self, lines: Iterable[str]) -> None:
        unfinished: dict[str, str] = {}
        for line in lines:
            process = line.partition(" ")[0]
            if "<unfinished ...>" in line:
                unfinished[process] = line.partition(" <unfinished ...>")[0]
            elif resumed := re.match(rf"{_PROCESS}<\.\.\. \w+ resumed>(.*)", line):
                self._call(unfinished.pop(process) + resumed[1])
            else:
                self._call(line)

    def _call(self, line: str) -> None:
        call = re.match(rf"{_PROCESS}(\w+)\(", line)
        if not call or "= -1 E" in line:
            return
        name, descriptors = call[1], [_bytes(path).decode() for path in _DESCRIPTOR.findall(line)]
        strings = [_bytes(text) for text in _STRING.findall(line)]
        if name in WRITING.split(","):
            if not _in_memory(descriptors[0]):
                self.written[descriptors[0]] += b"".join(strings)
                if '"...' in line:
                    self.past_the_trace.append(line[-200:])
        elif name == "execve":
            self.programs.append(strings[0].decode())
        elif name == "mmap":
            if (
                "MAP_SHARED" in line
                and "PROT_WRITE" in line
                and descriptors
                and not _in_memory(descriptors[0])
            ):
                self.past_the_trace.append(line)
        elif name in ("sendfile", "copy_file_range", "splice"):
            # The kernel's copies show no content: only from one sealed file to another is there none to see.
            self.past_the_trace += [path for path in descriptors if not re.search(SEALED, path)]
        elif name in ("vmsplice", "io_uring_setup") or (name == "connect" and "AF_UNIX" not in line):
            self.past_the_trace.append(line)
        elif name.startswith(("open", "creat")):
            if re.search(r"O_WRONLY|O_RDWR|O_CREAT|creat\(", line) and not _in_memory(descriptors[-1]):
                self.opened.add(descriptors[-1])
        elif name != "memfd_create":
            self.opened.add(strings[-1].decode())


SEALED = r"\.(sealed|tar)(\.[0-9a-f]{12}\.part)?$"


def traced(folder: Path, code: str, *arguments: str, env: dict[str, str] | None = None) -> Trace:
    """Run Python code in `folder`/work under strace, its temporary files and caches in other parts of it."""
    for name in ("work", "tmp", "home"):
        (folder / name).mkdir(exist_ok=True)
    log = folder / "strace.log"
    environment = os.environ | {
        "TMPDIR": str(folder / "tmp"),
        "HOME": str(folder / "home"),
        "XDG_CACHE_HOME": str(folder / "home"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    strace = "strace -f --seccomp-bpf -qq -yy -xx".split()
    done = subprocess.run(
        [
            *strace,
            "-s",
            str(1 << 24),
            "-e",
            f"trace={CALLS}",
            "-o",
            log,
            sys.executable,
            "-c",
            code,
            *arguments,
        ],
        cwd=folder / "work",
        env=environment | (env or {}),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    trace = Trace()
    with open(log) as lines:
        trace.read(lines)
    return trace


# ----------------------------------------------------------------------------------------------- the tests

TVMC = """
import json, sys
from tvm_secret.cli import main
for command in json.load(open(sys.argv[1])):
    if main(command):
        sys.exit(f"failed: {command}")
"""


def session(cases: dict[str, dict]) -> list[list[str]]:
    """Every subcommand, and for every format those that open its files."""
    commands = [["keygen", "--out-dir", "keys"], ["keygen", "--signing", "--out-dir", "keys"]]
    commands += [["keygen", "--post-quantum", "--out-dir", "keys"]]
    signing = ["--sign-key", "keys/signing_private_key.bin"]
    for number, how in enumerate(cases.values()):
        sealed, tar = f"{number}.sealed", f"{number}.tar"
        inputs = str(Path(how["files"][0]).parent / "in.npz")
        suite = ("aes-eax", "cobblestone-256")[number % 2]
        commands += [
            ["encrypt", *how["files"], "-o", sealed, "--suite", suite, *signing],
            ["compile", "-o", tar, sealed, *how["shapes"], *signing],
            ["run", "-i", inputs, "-o", f"{number}.npz", tar],
        ]
    commands += [
        ["inspect", sealed],
        ["verify", tar, "--signer", "keys/signing_public_key.pem"],
        ["rewrap", sealed, "-o", "other.sealed", "-r", "keys/pq_public_key.pem"],
        ["rewrap", tar, "-o", "other.tar", "-r", "keys/pq_public_key.pem"],
        ["rewrap", sealed, "-o", sealed],
        ["encrypt", inputs, "-o", "inputs.sealed"],
        ["run", "-i", "inputs.sealed", "-o", "outputs.sealed", "--seal-outputs", "--profile", tar],
        ["decrypt", "outputs.sealed", "-o", "outputs.npz"],
    ]  # fmt: skip
    return commands


def test_no_format_and_no_subcommand_lets_the_model_reach_a_disk(tmp_path):
    plain = tmp_path / "plain"
    plain.mkdir()
    maker = ROOT / "tests" / "assurance" / "canary_models.py"
    subprocess.run([sys.executable, maker, plain], check=True, capture_output=True)
    cases = json.loads((plain / "cases.json").read_text())
    for case, how in cases.items():
        files = [file for path in map(Path, how["files"]) for file in (path, *path.rglob("*"))]
        content = b"".join(file.read_bytes() for file in files if file.is_file())
        assert "weights" in found(content), case
        assert "a name" in found(content) or case in ("torchscript", "pt2")

    commands = session(cases)
    (plain / "commands.json").write_text(json.dumps(commands))
    trace = traced(
        tmp_path,
        TVMC,
        str(plain / "commands.json"),
        env={
            "TVM_SECRET_IDENTITY": "keys/rsa_private_key.bin",
            "TVM_SECRET_RECIPIENTS": "keys/rsa_public_key.pem",
            "TVM_SECRET_PASSPHRASE": PASSPHRASE,
        },
    )
    assert trace.past_the_trace == []
    assert leaks(trace.written) == {}
    # Of results, nothing but their temporary names, or sealed files in place; beside them, what frameworks
    # keep of their own when they are imported (a configuration, a list of fonts, an empty folder), and the
    # word by which Python's tempfile tries which folder it can use.
    work, home, tmp = (re.escape(str(tmp_path / name)) for name in ("work", "home", "tmp"))
    expected = re.compile(
        rf"{work}/(keys/)?(\.[\w.]+\.[0-9a-f]{{12}}\.part|\d\.sealed)|keys"
        rf"|{home}/(\.keras|\.config|matplotlib)(/.*)?|{tmp}/(torchinductor_\w+|[a-z0-9_]{{8}})"
    )
    assert {path for path in trace.opened if not expected.fullmatch(path)} == set()
    tried = [bytes(content) for path, content in trace.written.items() if re.match(tmp, path)]
    assert set(tried) <= {b"blat"}
    assert len(trace.opened) >= 3 * len(cases)
    # No compiler and no linker: Python's `platform` and matplotlib ask these two when they are imported.
    programs = {os.path.basename(program) for program in trace.programs}
    assert programs <= {os.path.basename(sys.executable), "uname", "fc-list"}

    (tmp_path / "strace.log").unlink()
    shutil.rmtree(plain)
    left = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {path.relative_to(tmp_path).parts[0] for path in left} <= {"work", "home"}
    assert len(left) > 3 * len(cases)
    assert leaks(left) == {}


LEAKS = """
import base64, mmap, os, sys, tempfile
secret = bytes.fromhex(sys.argv[1])
with tempfile.NamedTemporaryFile() as file:  # deleted when it is closed
    file.write(secret)
with open("base64", "wb") as file:
    file.write(base64.b64encode(b"xy" + secret))
    file.flush()
    os.writev(file.fileno(), [secret[:5], secret[5:]])
with open("mapped", "w+b") as file:
    file.truncate(4096)
    mmap.mmap(file.fileno(), 4096)[: len(secret)] = secret
with open("/proc/self/exe", "rb") as source, open("copied", "wb") as file:
    os.sendfile(file.fileno(), source.fileno(), 0, 100)
os.write(os.memfd_create("anonymous"), secret)
"""


@pytest.mark.parametrize(("kind", "secret"), [("a name", NAME), ("weights", WEIGHTS)])
def test_the_trace_shows_what_is_written(tmp_path, kind, secret):
    """A control: the same method finds a process that does write it down, in each of several ways."""
    trace = traced(tmp_path, LEAKS, secret.hex())
    hits = {Path(path).name: found(bytes(content)) for path, content in trace.written.items()}
    temporary = next(name for name in hits if name.startswith("tmp"))
    assert hits[temporary] == {kind}
    assert hits["base64"] == {kind}
    assert not (tmp_path / "tmp" / temporary).exists()
    assert {Path(path).name for path in trace.opened} >= {"base64", "mapped", "copied", temporary}
    assert [line for line in trace.past_the_trace if "mmap" in line]
    assert [line for line in trace.past_the_trace if "copied" in line]
    assert not any("memfd" in path for path in trace.written)
