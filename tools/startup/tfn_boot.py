"""Let `KERAS_BACKEND=tfn python script.py` work in a script that imports only keras.

`tfn_boot.pth` imports this module when Python starts with that variable set. It waits until keras
is imported for the first time, and imports tfn just before; a program without keras pays nothing.
"""

import sys


class _BeforeKeras:
    """A finder that finds nothing: it sees the import of keras coming."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "keras" and self in sys.meta_path:
            sys.meta_path.remove(self)
            __import__("tfn")


sys.meta_path.insert(0, _BeforeKeras())
