"""Adds two files beside the package: what makes `KERAS_BACKEND=tfn python x.py` work by itself.

Everything else about the project is in pyproject.toml. setuptools has no setting for a `.pth` file,
so `build_py` writes it, into the wheel and into the wheel of an editable install alike.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

STARTUP = Path("tools", "startup")
FILES = ("tfn_boot.pth", "tfn_boot.py")


class build_py_with_startup(build_py):
    """`build_py`, and the start-up files at the top of site-packages."""

    def run(self) -> None:
        if not self.editable_mode:  # else a module deleted since the last build would be shipped
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()
        for name in FILES:
            shutil.copyfile(STARTUP / name, Path(self._site_packages(), name))

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """Leave this file out: it lies in the folder of the package `tfn`, but is no part of it."""
        modules = super().find_package_modules(package, package_dir)
        return [m for m in modules if m[:2] != ("tfn", "setup")]

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Name the start-up files among what was built."""
        outputs = super().get_outputs(include_bytecode)
        return (
            outputs
            if self.editable_mode
            else outputs + [str(Path(self.build_lib, name)) for name in FILES]
        )

    def _site_packages(self) -> str:
        """Where the top of site-packages is being put together."""
        if not self.editable_mode:
            return self.build_lib
        # An editable wheel takes no built modules, only what `install` would put beside them.
        return self.get_finalized_command("install").install_lib


setup(
    cmdclass={"build_py": build_py_with_startup},
    # Not "build": where case does not count, that is the name of the file BUILD.
    options={"build": {"build_base": ".build"}},
)
