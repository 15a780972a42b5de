"""Meshes and layouts: what they say, and what they refuse."""

import pytest

from tfn.distributed import UNSHARDED, Layout, LayoutError, Mesh
from tfn.distributed.partition import logical_shards


def test_a_mesh():
    mesh = Mesh(("batch", "model"), (2, 3))
    assert mesh.size == 6
    assert mesh.axis_size("model") == 3


@pytest.mark.parametrize("axes, shape, message", [
    (("a", "a"), (2, 2), "distinct name"), (("a",), (2, 2), "one distinct name per axis"),
    (("a",), (0,), "at least one rank")])
def test_meshes_that_are_none(axes, shape, message):
    with pytest.raises(LayoutError, match=message):
        Mesh(axes, shape)


def test_an_unknown_axis():
    with pytest.raises(LayoutError, match="no axis 'model'; it has batch"):
        Mesh(("batch",), (2,)).axis_size("model")


def test_layouts():
    mesh = Mesh(("batch",), (4,))
    split = Layout.batch_sharded(mesh, "batch", 3)
    assert split.spec == ("batch", UNSHARDED, UNSHARDED)
    assert split.sharded_dim == 0
    assert split.local_shape((8, 3, 2)) == (2, 3, 2)
    assert Layout.replicated(mesh, 2).sharded_dim is None
    with pytest.raises(LayoutError, match="a dim of 6 does not divide over the 4 ranks"):
        split.local_shape((6, 3, 2))
    with pytest.raises(LayoutError, match="is for 3 dims"):
        split.local_shape((8, 3))
    with pytest.raises(LayoutError, match="for two dims"):
        Layout(("batch", "batch"), mesh)


@pytest.mark.parametrize("batch, ranks, shards", [
    (32, 1, 8), (32, 2, 8), (12, 2, 4), (12, 4, 4), (6, 4, None), (7, 1, 1), (7, 2, None),
    (8, 8, 8), (32, 16, None), (32, 3, None)])
def test_logical_shards(batch, ranks, shards):
    assert logical_shards(batch, ranks) == shards
