"""The arena: buffers that live at the same time never overlap, and little memory is lost."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfn.compiler.ir.dims import Dim
from tfn.compiler.runtime.arena import ALIGNMENT, Buffer, arrange

BATCH = Dim.named("batch")
LIVES = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 30), st.integers(0, 12)), max_size=40)


def buffers_of(lives, scale=1):
    return [Buffer(size * scale, first, first + length)
            for size, first, length in sorted(lives, key=lambda life: life[1])]


def check(buffers, offsets, total, batch=None):
    def value(extent):
        return extent if isinstance(extent, int) else extent.evaluate({"batch": batch})

    taken = [(value(o), value(o) + value(b.size), b) for o, b in zip(offsets, buffers, strict=True)]
    for i, (low, high, b) in enumerate(taken):
        assert low % ALIGNMENT == 0
        assert 0 <= low <= high <= value(total)
        for other_low, other_high, other in taken[:i]:
            together = b.first <= other.last and other.first <= b.last
            assert not together or high <= other_low or other_high <= low


@given(LIVES)
def test_known_sizes(lives):
    buffers = buffers_of(lives)
    offsets, total = arrange(buffers)
    check(buffers, offsets, total)


@given(LIVES, st.integers(1, 9))
def test_symbolic_sizes_fit_whatever_the_dim_is(lives, batch):
    buffers = buffers_of(lives, BATCH)
    offsets, total = arrange(buffers)
    check(buffers, offsets, total, batch)


def test_nothing_takes_nothing():
    assert arrange([]) == ([], 0)


def test_a_mixture_is_symbolic():
    buffers = [Buffer(64, 0, 1), Buffer(BATCH * 4, 0, 2), Buffer(128, 2, 3)]
    offsets, total = arrange(buffers)
    for batch in (1, 7, 100):
        check(buffers, offsets, total, batch)


def test_large_buffers_begin_at_different_places_of_a_page():
    offsets, _ = arrange([Buffer(1 << 20, 0, 1)] * 4)
    assert len({offset % 4096 for offset in offsets}) == 4


def test_a_hole_is_filled_by_several():
    """Slots would give each of the two small ones a slot of its own."""
    buffers = [Buffer(1024, 0, 0), Buffer(512, 1, 2), Buffer(512, 1, 2)]
    assert arrange(buffers) == ([0, 0, 512], 1024)


@pytest.mark.parametrize("seed", range(3))
def test_a_train_step_takes_little_more_than_it_needs_at_once(seed):
    """Values of a forward pass live until its mirror image in the backward pass."""
    draw = np.random.default_rng(seed)
    count = 400
    sizes = (draw.integers(1, 400, count) * 4096).tolist()
    buffers = [Buffer(size, k, 2 * count - k + int(draw.integers(0, 9)))
               for k, size in enumerate(sizes)]
    buffers += [Buffer(int(draw.integers(1, 400)) * 4096, k, k + int(draw.integers(1, 4)))
                for k in range(count, 2 * count)]
    alive = np.zeros(2 * count + 20, np.int64)
    for b in buffers:
        alive[b.first:b.last + 1] += b.size
    offsets, total = arrange(buffers)
    check(buffers, offsets, total)
    assert total <= 1.05 * alive.max()
