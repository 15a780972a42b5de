"""The pages of `docs/` are true: what they show runs and prints what they say, and the files they
send a reader to exist."""

import doctest
import re
from pathlib import Path

import pytest

from tfn.compiler.ops.declare import REGISTRY

ROOT = Path(__file__).absolute().parents[2]
PAGES = sorted(str(p.relative_to(ROOT / "docs")) for p in (ROOT / "docs").rglob("*.md"))
PICTURE = re.compile(r"!\[[^\]]+\]\(([^)]+)\)")
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
FENCE = re.compile(r"^```.*$", re.MULTILINE)
FILE = re.compile(r"`([\w/.]+/[\w.]+\.(?:py|md|npz))`")
SHORT = re.compile(r"`((?:ir|trace|ops|passes|codegen|runtime|numpy)/\w+\.py)`")


@pytest.fixture
def own_ops(monkeypatch, tmp_path):
    """A page may declare ops; they are gone after it. Kernels are cached in a folder of its own."""
    monkeypatch.setenv("TFN_CACHE_DIR", str(tmp_path))
    before = dict(REGISTRY)
    yield
    REGISTRY.clear()
    REGISTRY.update(before)


def page(name: str, repository: Path) -> str:
    return (repository / "docs" / name).read_text()


@pytest.mark.parametrize("name", PAGES)
def test_what_a_page_shows_is_true(name, repository, own_ops, capsys):
    # A fence is no output: doctest expects an empty line there.
    text = FENCE.sub("", page(name, repository))
    examples = doctest.DocTestParser().get_doctest(text, {"__name__": name}, name, name, 0)
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    failed, _ = runner.run(examples)
    assert not failed, capsys.readouterr().out


def test_the_walk_through_the_compiler_shows_much(repository):
    assert page("compiler.md", repository).count(">>> ") > 100


@pytest.mark.parametrize("name", PAGES)
def test_files_to_open_exist(name, repository):
    text = page(name, repository)
    files = set(FILE.findall(text)) | {f"compiler/{f}" for f in SHORT.findall(text)}
    shortened = {f for f in files if SHORT.fullmatch(f"`{f}`")}
    assert not [f for f in files - shortened if not (repository / f).is_file()]
    folder = (repository / "docs" / name).parent
    assert not [f for f in PICTURE.findall(text) if not (folder / f).is_file()]
    assert files or name not in ("architecture.md", "compiler.md")
