"""Counter-based random numbers: the same bits on every machine and with every version of every library.

A draw is a pure function of (seed, split, stream, index, position), so any sequence can be generated alone, in any
order, without the sequences before it. Only integer arithmetic, +, -, *, / and the square root are used: IEEE 754
rounds those the same way everywhere. NumPy's own sine and logarithm are not used: their last bit depends on the
vector instructions of the processor.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_LN_2 = 0.6931471805599453
_ONE = np.uint64(1)
# Rounds and minimum width of the Feistel network. The number of rounds is even, so that both parts end in their
# original places. With four rounds, or fewer bits, permutations of small sizes are visibly not uniform.
_ROUNDS = 8
_FEWEST_BITS = 6


def bits(seed: int, split: str, stream: str, indices: Integers, count: int) -> NDArray[np.uint64]:
    """Return 64 random bits for each index and position: (len(indices), count) uint64.

    SplitMix64 (Steele, Lea and Flood 2014, OOPSLA, https://doi.org/10.1145/2660193.2660195): each index has its own
    sequence, which starts at a hashed state.
    """
    starts = _mix(_key(seed, split, stream) + np.asarray(indices).astype(np.uint64)[:, None] * _GOLDEN)
    positions = np.arange(1, count + 1, dtype=np.uint64)
    return _mix(starts + positions * _GOLDEN)


# Cached: for a batch of short sequences, hashing the names would take as long as all draws.
@lru_cache(maxsize=64)
def _key(seed: int, split: str, stream: str) -> NDArray[np.uint64]:
    """Return the key of a stream, a hash of the seed and the names: (1,) uint64."""
    key = np.array([seed], dtype=np.uint64)
    for word in (_name(split), _name(stream)):
        key = _mix(key + _GOLDEN) ^ word
    return _mix(key + _GOLDEN)


def uniform(seed: int, split: str, stream: str, indices: Integers, count: int) -> Floats:
    """Return uniform draws from the open interval (0, 1): (len(indices), count) float64."""
    high = (bits(seed, split, stream, indices, count) >> np.uint64(12)).astype(np.float64)
    high *= 2.0**-52
    high += 2.0**-53
    return high


def integers(
    low: int | Integers,
    high: int | Integers,
    seed: int,
    split: str,
    stream: str,
    indices: Integers,
    count: int,
) -> Integers:
    """Return uniform integers from low to high, both included: (len(indices), count) int64."""
    span = np.asarray(high) - np.asarray(low) + 1
    draws = uniform(seed, split, stream, indices, count)
    result: Integers = low + np.minimum(np.floor(draws * span).astype(np.int64), span - 1)
    return result


def normal(seed: int, split: str, stream: str, indices: Integers, count: int) -> Floats:
    """Return standard normal draws: (len(indices), count) float64."""
    return normal_quantile(uniform(seed, split, stream, indices, count))


def permutation(seed: int, stream: str, epoch: int, size: int, positions: Integers) -> Integers:
    """Return the elements at these positions of a random permutation of the numbers from 0 to size - 1.

    Only these positions are computed, so the memory does not depend on ``size``. A Feistel network (Luby and Rackoff
    1988, https://doi.org/10.1137/0217022) permutes the numbers below a power of two; a result of ``size`` or more is
    permuted again until it is below ``size`` (cycle walking: Black and Rogaway 2002,
    https://doi.org/10.1007/3-540-45760-7_9), which takes less than two passes on average if ``size`` is over 32.

    Args:
        seed: the seed of the permutation.
        stream: the name of the permuted objects, such as "sequences".
        epoch: from 0; each epoch has its own permutation.
        size: the length of the permutation, up to 2**62.
        positions: (positions,) int64, from 0 to size - 1.

    Returns:
        (positions,) int64, from 0 to size - 1.
    """
    keys = bits(seed, stream, "permutation", np.array([epoch]), _ROUNDS)[0]
    width = max(_FEWEST_BITS, (size - 1).bit_length())
    result = _feistel(positions.astype(np.uint64), keys, width)
    outside = np.flatnonzero(result >= np.uint64(size))
    while len(outside):
        walked = _feistel(result[outside], keys, width)
        result[outside] = walked
        outside = outside[walked >= np.uint64(size)]
    return result.astype(np.int64)


def _feistel(values: NDArray[np.uint64], keys: NDArray[np.uint64], width: int) -> NDArray[np.uint64]:
    """Permute the numbers of ``width`` bits; if the width is odd, the two parts differ by one bit."""
    low, high = np.uint64(width // 2), np.uint64(width - width // 2)
    for key in keys:
        # The high part moves down unchanged; the low part, xored with a hash of the high part, moves up.
        kept = values >> low
        values = ((values ^ _mix(kept + key)) & ((_ONE << low) - _ONE)) << high | kept
        low, high = high, low
    return values


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return SplitMix64's hash of each number."""
    result = value >> np.uint64(30)
    result ^= value
    result *= _MIX_1
    result ^= result >> np.uint64(27)
    result *= _MIX_2
    result ^= result >> np.uint64(31)
    return result


def _name(text: str) -> np.uint64:
    """Hash a name to 64 bits (FNV-1a); Python's own hash of a string differs from process to process."""
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return np.uint64(value)


def _polynomial(coefficients: list[float], x: Floats) -> Floats:
    """Evaluate a polynomial, highest power first, in a fixed order of operations."""
    result = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        # In place, because allocating new arrays would take half of the time.
        result *= x
        result += coefficient
    return result


def _sine_coefficients() -> list[float]:
    """Return the Taylor series of sin(2 pi x) / x in powers of x squared; its error at x = 1/4 is under 1e-16."""
    terms, term = [], 2 * math.pi
    for order in range(12):
        terms.append(term)
        term = -term * (2 * math.pi) * (2 * math.pi) / ((2 * order + 2) * (2 * order + 3))
    return terms[::-1]


_SINE = _sine_coefficients()


def sine(turns: Floats) -> Floats:
    """Return sin(2 pi turns) to 1e-15."""
    x = turns - np.round(turns)
    # Reflect x into [-1/4, 1/4]: the sine is the same at x, 0.5 - x and -0.5 - x.
    np.minimum(x, 0.5 - x, out=x)
    np.maximum(x, -0.5 - x, out=x)
    return x * _polynomial(_SINE, x * x)


def logarithm(x: Floats) -> Floats:
    """Return the natural logarithm of positive x to 1e-15 (relative): ln m = 2 artanh((m - 1) / (m + 1))."""
    mantissa, exponent = np.frexp(x)
    small = mantissa < math.sqrt(0.5)
    mantissa, exponent = np.where(small, 2 * mantissa, mantissa), exponent - small
    ratio = (mantissa - 1) / (mantissa + 1)
    series = _polynomial([1 / (2 * order + 1) for order in range(11, -1, -1)], ratio * ratio)
    result: Floats = 2 * ratio * series + exponent * _LN_2
    return result


def normal_quantile(p: Floats) -> Floats:
    """Return the standard normal's quantile for p in (0, 1), to 1e-15 (relative).

    Algorithm AS 241, PPND16 (Wichura 1988, Applied Statistics 37(3), https://doi.org/10.2307/2347330).
    """
    q = p - 0.5
    r = q * q
    np.subtract(0.180625, r, out=r)
    result = q * _polynomial(_CENTRAL[0], r)
    result /= _polynomial(_CENTRAL[1], r)
    # One draw in seven is in the tails.
    in_tails = np.abs(q) > 0.425
    result[in_tails] = _tail_quantile(p[in_tails])
    return result


def _tail_quantile(p: Floats) -> Floats:
    """Return the standard normal's quantile for p under 0.075 or over 0.925: (draws,) float64."""
    root = np.sqrt(-logarithm(np.minimum(p, 1.0 - p)))
    near = root - 1.6
    result = _polynomial(_NEAR[0], near) / _polynomial(_NEAR[1], near)
    is_far = root > 5.0
    far = root[is_far] - 5.0
    result[is_far] = _polynomial(_FAR[0], far) / _polynomial(_FAR[1], far)
    return np.where(p < 0.5, -result, result)


# Numerators and denominators of AS 241, highest power first.
_CENTRAL = (
    [
        2509.0809287301227,
        33430.57558358813,
        67265.7709270087,
        45921.95393154987,
        13731.69376550946,
        1971.5909503065513,
        133.14166789178438,
        3.3871328727963665,
    ],
    [
        5226.495278852854,
        28729.085735721943,
        39307.89580009271,
        21213.794301586597,
        5394.196021424751,
        687.1870074920579,
        42.31333070160091,
        1.0,
    ],
)
_NEAR = (
    [
        0.0007745450142783414,
        0.022723844989269184,
        0.2417807251774506,
        1.2704582524523684,
        3.6478483247632045,
        5.769497221460691,
        4.630337846156546,
        1.4234371107496835,
    ],
    [
        1.0507500716444169e-09,
        0.0005475938084995345,
        0.015198666563616457,
        0.14810397642748008,
        0.6897673349851,
        1.6763848301838038,
        2.053191626637759,
        1.0,
    ],
)
_FAR = (
    [
        2.0103343992922881e-07,
        2.7115555687434876e-05,
        0.0012426609473880784,
        0.026532189526576124,
        0.29656057182850487,
        1.7848265399172913,
        5.463784911164114,
        6.657904643501103,
    ],
    [
        2.0442631033899397e-15,
        1.421511758316446e-07,
        1.8463183175100548e-05,
        0.0007868691311456133,
        0.014875361290850615,
        0.1369298809227358,
        0.599832206555888,
        1.0,
    ],
)
