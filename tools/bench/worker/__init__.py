"""The part of `tfn bench` that runs inside a peer's own environment.

Nothing here imports tfn, except when tfn is the framework that is measured: the folder is put on the
path of whatever Python the user names. Needs NumPy and the framework, nothing else.
"""
