"""Symbolic dimensions: affine expressions of named dims, such as `batch` or `4*batch + 1`.

A shape holds ints and `Dim`s. Named dims stand for any integer >= 1, so `batch > 0` is true and
`batch == 4` is false for every program that is generic in `batch`; a question whose answer depends
on the value raises `InconclusiveDimension` instead of guessing.
"""

from __future__ import annotations

from collections.abc import Mapping


class InconclusiveDimension(ValueError):
    """A Python decision depends on the value of a symbolic dimension."""


class Dim:
    """`constant + sum(coefficient * name)`, with at least one name. Immutable and hashable."""

    __slots__ = ("terms", "constant")

    def __init__(self, terms: Mapping[str, int], constant: int = 0):
        self.terms = tuple(sorted((n, c) for n, c in terms.items() if c))
        self.constant = constant
        assert self.terms, "a Dim without names is an int"

    @staticmethod
    def named(name: str) -> Dim:
        return Dim({name: 1})

    def evaluate(self, sizes: Mapping[str, int]) -> int:
        """The value for given sizes of the named dims; `KeyError` names a missing one."""
        return self.constant + sum(c * sizes[n] for n, c in self.terms)

    def substitute(self, sizes: Mapping[str, Extent]) -> Extent:
        """Replace the named dims found in `sizes`, which may map to ints or other dims."""
        total: Extent = self.constant
        for name, coefficient in self.terms:
            total = total + coefficient * sizes.get(name, Dim.named(name))
        return total

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(n for n, _ in self.terms)

    def _combine(self, other, sign: int):
        if isinstance(other, int):
            return Dim(dict(self.terms), self.constant + sign * other)
        if not isinstance(other, Dim):
            return NotImplemented
        terms = dict(self.terms)
        for name, coefficient in other.terms:
            terms[name] = terms.get(name, 0) + sign * coefficient
        return _extent(terms, self.constant + sign * other.constant)

    def __add__(self, other):
        return self._combine(other, 1)

    __radd__ = __add__

    def __sub__(self, other):
        return self._combine(other, -1)

    def __rsub__(self, other):
        return -1 * self + other

    def __neg__(self):
        return -1 * self

    def __mul__(self, other):
        if isinstance(other, Dim):
            raise InconclusiveDimension(f"({self}) * ({other}) is not affine in the named dims")
        if not hasattr(other, "__index__"):
            return NotImplemented
        k = int(other)
        return _extent({n: c * k for n, c in self.terms}, self.constant * k)

    __rmul__ = __mul__

    def __floordiv__(self, other):
        if isinstance(other, Dim):
            quotient, remainder = _divide(self, other)
            if remainder is None or remainder != 0:
                raise InconclusiveDimension(f"({self}) // ({other}) depends on the named dims")
            return quotient
        if self.constant % other or any(c % other for _, c in self.terms):
            raise InconclusiveDimension(f"({self}) // {other} is not exact for every size")
        return _extent({n: c // other for n, c in self.terms}, self.constant // other)

    def __mod__(self, other):
        if isinstance(other, Dim):
            _, remainder = _divide(self, other)
            if remainder is None:
                raise InconclusiveDimension(f"({self}) % ({other}) depends on the named dims")
            return remainder
        if any(c % other for _, c in self.terms):
            raise InconclusiveDimension(f"({self}) % {other} depends on the named dims")
        return self.constant % other

    def __rfloordiv__(self, other):
        raise InconclusiveDimension(f"{other} // ({self}) depends on the named dims")

    __rmod__ = __rfloordiv__

    def __eq__(self, other):
        if isinstance(other, Dim):
            return self.terms == other.terms and self.constant == other.constant
        return False

    def __hash__(self):
        return hash((self.terms, self.constant))

    def _bounds(self) -> tuple[float, float]:
        """Least and greatest value when every named dim is >= 1."""
        low = high = float(self.constant)
        for _, c in self.terms:
            low, high = (low + c, float("inf")) if c > 0 else (float("-inf"), high + c)
        return low, high

    def _compare(self, other, question: str, yes, no) -> bool:
        difference = self - other
        low, high = difference._bounds() if isinstance(difference, Dim) else (difference,) * 2
        if yes(low, high):
            return True
        if no(low, high):
            return False
        raise InconclusiveDimension(
            f"`{self} {question} {other}` depends on the named dims; fix them or avoid the branch"
        )

    def __lt__(self, other):
        return self._compare(other, "<", lambda low, high: high < 0, lambda low, high: low >= 0)

    def __le__(self, other):
        return self._compare(other, "<=", lambda low, high: high <= 0, lambda low, high: low > 0)

    def __gt__(self, other):
        return self._compare(other, ">", lambda low, high: low > 0, lambda low, high: high <= 0)

    def __ge__(self, other):
        return self._compare(other, ">=", lambda low, high: low >= 0, lambda low, high: high < 0)

    def __bool__(self):
        return True

    def __index__(self):
        raise InconclusiveDimension(
            f"the symbolic dimension `{self}` has no value here; pass a concrete size"
        )

    def __str__(self):
        parts = [n if c == 1 else f"{c}*{n}" for n, c in self.terms]
        if self.constant:
            parts.append(str(self.constant))
        return " + ".join(parts)

    def __repr__(self):
        return f"Dim({self})"


Extent = int | Dim
"""The size of one axis."""

_NOMINAL = 32


def nominal(extent: Extent) -> int:
    """A size to compare by when the named dims are not known."""
    return extent if isinstance(extent, int) else extent.evaluate(
        dict.fromkeys(extent.names, _NOMINAL))


def _extent(terms: Mapping[str, int], constant: int) -> Extent:
    return Dim(terms, constant) if any(terms.values()) else constant


def _divide(a: Dim, b: Dim):
    """`(quotient, remainder)` of two dims when one is an integer multiple of the other."""
    name, coefficient = b.terms[0]
    quotient, rest = divmod(dict(a.terms).get(name, 0), coefficient)
    if rest or quotient * b != a:
        return None, None
    return quotient, 0


def product(extents) -> Extent:
    """The product of extents (1 for none). At most one may be symbolic."""
    total: Extent = 1
    for extent in extents:
        total = extent if isinstance(total, int) and total == 1 else total * extent
    return total


def parse_dim(text: str) -> Extent:
    """Inverse of `str`: `"4*batch + 1"` to a Dim, `"8"` to 8. `ValueError` on anything else."""
    terms: dict[str, int] = {}
    constant = 0
    for part in text.split("+"):
        factor, star, name = part.strip().partition("*")
        if star:
            terms[_identifier(name.strip())] = terms.get(name.strip(), 0) + int(factor)
        elif factor.lstrip("-").isdigit():
            constant += int(factor)
        else:
            terms[_identifier(factor)] = terms.get(factor, 0) + 1
    return _extent(terms, constant)


def _identifier(name: str) -> str:
    if not name.isidentifier():
        raise ValueError(f"{name!r} is not a dimension name")
    return name
