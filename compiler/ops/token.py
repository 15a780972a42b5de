"""Tokens, which order effects, and the effects they order: send, recv, infeed, outfeed.

Effects keep their order in the program anyway, so a token holds nothing. Feeds and channels belong to
`runtime.processes`; a program that runs alone has none.
"""

from __future__ import annotations

import numpy as np

from ..errors import UnsupportedError
from ..ir.core import TensorType
from ..ir.dtypes import TOKEN
from ..runtime.processes import Grid, current_process
from .collective import channel
from .declare import OpDefinition, op, require

_TOKEN = TensorType((), TOKEN)
_NOTHING = np.zeros((), TOKEN.numpy)


def _grid(name: str) -> Grid:
    process = current_process()
    if process is None:
        raise UnsupportedError(f"{name} needs a process on its other side; this program runs alone")
    return process.grid


class _Effect(OpDefinition):
    has_effect = True
    host = True


@op("stablehlo.after_all")
class AfterAll(_Effect):
    """A token that comes after all the given ones."""

    def infer(operands, attributes, regions):
        return [_TOKEN]

    def evaluate(operands, attributes, regions, result_types):
        return [_NOTHING]


@op("stablehlo.create_token", spec="")
class CreateToken(AfterAll):
    """A token that depends on nothing."""


@op("stablehlo.send")
class Send(_Effect):
    """Send the operands on a channel; the last operand is a token."""

    attributes = {"channel_handle": "channel_handle", "is_host_transfer": "bool",
                  "source_target_pairs": "i64_matrix"}
    optional = frozenset({"is_host_transfer", "source_target_pairs"})

    def infer(operands, attributes, regions):
        require(operands[-1].dtype is TOKEN, "I2", "the last operand of send is a token")
        return [_TOKEN]

    def evaluate(operands, attributes, regions, result_types):
        _grid("send").send(channel(attributes), [np.array(o) for o in operands[:-1]])
        return [_NOTHING]


@op("stablehlo.recv")
class Receive(_Effect):
    """The values sent on a channel, and a token."""

    attributes = {"channel_handle": "channel_handle", "is_host_transfer": "bool",
                  "source_target_pairs": "i64_matrix", "types": "result_types"}
    optional = frozenset({"is_host_transfer", "source_target_pairs"})

    def infer(operands, attributes, regions):
        return list(attributes["types"])

    def evaluate(operands, attributes, regions, result_types):
        return [*_grid("recv").receive(channel(attributes)), _NOTHING]


@op("stablehlo.infeed")
class Infeed(_Effect):
    """The next values of the grid's infeed, and a token."""

    attributes = {"infeed_config": "string", "layout": "opaque", "types": "result_types"}
    optional = frozenset({"infeed_config", "layout"})

    def infer(operands, attributes, regions):
        return list(attributes["types"])

    def evaluate(operands, attributes, regions, result_types):
        feed = _grid("infeed").infeed
        if not feed:
            raise UnsupportedError("the infeed is empty")
        return [*feed.popleft(), _NOTHING]


@op("stablehlo.outfeed")
class Outfeed(_Effect):
    """Hand the operands to the grid's outfeed."""

    attributes = {"outfeed_config": "string"}
    optional = frozenset({"outfeed_config"})

    def infer(operands, attributes, regions):
        return [_TOKEN]

    def evaluate(operands, attributes, regions, result_types):
        _grid("outfeed").outfeed.append([np.array(o) for o in operands[:-1]])
        return [_NOTHING]


@op("interpreter.run_parallel")
class RunParallel(_Effect):
    """Run `programs[replica][partition]` on a grid of processes, each on the next operands."""

    attributes = {"programs": "programs", "infeed": "programs", "types": "result_types"}
    optional = frozenset({"infeed"})

    def infer(operands, attributes, regions):
        programs = [f for row in attributes["programs"] for f in row]
        taken = [t for f in programs for t in f.argument_types]
        made = [t for f in programs for t in f.result_types]
        require([_plain(t) for t in taken] == [_plain(t) for t in operands], "I1",
                f"the programs take {', '.join(map(str, taken))}, got {', '.join(map(str, operands))}")
        require(made == list(attributes["types"]), "I2", "the programs give other results")
        return made

    def evaluate(operands, attributes, regions, result_types):
        from ..compile import run_function

        programs = attributes["programs"]
        feed = [run_function(f, []) for f in (attributes.get("infeed") or ((),))[0]]
        grid = Grid(len(programs), len(programs[0]), feed)
        rest = list(operands)

        def job(function):
            given = [np.array(rest.pop(0)) for _ in function.arguments]
            return lambda: run_function(function, given)

        results = grid.run([[job(f) for f in row] for row in programs])
        return [value for values in results for value in values]


def _plain(type: TensorType) -> TensorType:
    """Evaluated, a token is an array like any other."""
    return TensorType((), TOKEN) if type.dtype.numpy == TOKEN.numpy and not type.shape else type
