"""The README's two commands are the ones that are tested."""

import re
from pathlib import Path


def commands(repository: Path) -> list[str]:
    """The lines of the README's first code blocks, before the first heading below the title."""
    top = (repository / "README.md").read_text().split("\n## ")[0]
    return re.findall(r"```sh\n(.*?)\n```", top, re.DOTALL)


def test_exactly_two_commands_stand_at_the_top(repository: Path) -> None:
    demo, tests = commands(repository)
    assert demo.startswith("pip install") and demo.endswith("&& tfn demo") and "\n" not in demo
    assert tests.startswith("pip install") and tests.endswith("&& pytest") and "\n" not in tests


def test_ci_runs_the_second_one(repository: Path) -> None:
    script = (repository / ".ci" / "run").read_text()
    assert f"\n{commands(repository)[1]} " in script
