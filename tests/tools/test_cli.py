"""The command line as a whole: help, versions, exit codes, and defects of tfn itself."""

import subprocess
import sys

import pytest

import tfn
from tfn.tools import cli as cli_module

COMMANDS = ("demo", "train", "evaluate", "export", "serve", "predict", "launch", "compile", "inspect",
            "doctor")


def test_help_lists_every_command(cli):
    result = cli("--help")
    assert result.code == 0
    for name in COMMANDS:
        assert name in result.out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(cli, name):
    result = cli(name, "--help")
    assert result.code == 0
    assert f"{name} [OPTIONS]" in result.out
    assert len(result.out.splitlines()) > 8


def test_version(cli):
    result = cli("--version")
    assert (result.code, result.out) == (0, tfn.__version__ + "\n")


def test_an_unknown_command_is_a_mistake(cli):
    cli("trian").mistake("trian")


def test_an_unknown_option_is_a_mistake(cli):
    cli("doctor", "--colour").mistake("--colour")


def test_a_defect_is_said_to_be_one(cli, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("boom")

    cli("--version")  # Registers the commands.
    monkeypatch.setattr("tfn.tools.compile.read_functions", fail)
    result = cli("compile", "x.mlir")
    assert result.code == 1
    assert "ZeroDivisionError: boom" in result.err
    assert "defect of tfn" in " ".join(result.err.split())
    assert "Traceback" not in result.err


def test_debug_shows_the_traceback(cli, monkeypatch):
    monkeypatch.setenv("TFN_DEBUG", "1")
    result = cli("inspect", "missing.mlir")
    assert result.code == 2
    assert "Traceback" in result.err


def test_ctrl_c_is_130(cli, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_module, "app", interrupt)
    interrupt.registered_commands = [1]
    result = cli("doctor")
    assert result.code == 130
    assert "stopped" in result.err


def test_the_program_is_installed():
    found = subprocess.run([sys.executable, "-m", "tfn.tools.cli", "--version"],
                           capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, tfn.__version__ + "\n")
