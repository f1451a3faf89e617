"""`tvmc completion`: the script as a real bash uses it."""

from __future__ import annotations

import argparse
import shutil
import subprocess

import pytest

from tvm_secret.cli import COMMANDS, build_parser


@pytest.fixture(scope="module")
def script(tmp_path_factory, alice):
    from conftest import Tvmc

    folder = tmp_path_factory.mktemp("completion")
    (folder / "model.onnx.sealed").touch()
    tvmc = Tvmc(folder, alice)
    for shell in ("bash", "zsh"):
        (folder / shell).write_text(tvmc("completion", shell).stdout)
    return folder


def complete(folder, *words: str) -> list[str]:
    """What bash offers for the last of `words`."""
    line = " ".join(f"'{word}'" for word in words)
    code = (
        f"source ./bash; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; "
        '_shtab_tvmc; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    # An empty PATH: nothing is started when a key is pressed.
    done = subprocess.run(
        [shutil.which("bash"), "--norc", "-c", code],
        cwd=folder, env={"PATH": ""}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["tvmc", "comp"], {"compile", "completion"}),
        (["tvmc", "run", "--seal"], {"--seal-outputs"}),
        (["tvmc", "compile", "--suite", ""], {"aes-eax", "cobblestone-256"}),
        (["tvmc", "compile", "--model-format", "t"], {"tflite"}),
        (["tvmc", "compile", "mod"], {"model.onnx.sealed"}),
        (["tvmc", "run", "--identity", "mod"], {"model.onnx.sealed"}),
    ],
    ids=lambda value: value[-2] if isinstance(value, list) else "",
)
def test_bash_offers(script, words, offered):
    assert set(complete(script, *words)) == offered


def test_every_command_and_option_is_known(script):
    bash, zsh = (script / "bash").read_text(), (script / "zsh").read_text()
    (commands,) = (action for action in build_parser()._actions if action.dest == "command")
    assert list(commands.choices) == list(COMMANDS)
    for parser in commands.choices.values():
        for option, action in parser._option_string_actions.items():
            if action.help != argparse.SUPPRESS:
                assert option in bash
                assert option in zsh


def test_zsh_reads_the_script(script):
    zsh = shutil.which("zsh")
    if zsh is None:
        pytest.skip("zsh is not installed")
    subprocess.run([zsh, "-n", script / "zsh"], check=True)
