"""A seeded permutation of range(n) that is computed, never stored (Feistel network with cycle walking)."""

import struct

import xxhash

_ROUNDS = 4


class Permutation:
    """`Permutation(n, seed, epoch)[i]` is a bijection of range(n) for every seed and epoch.

    A balanced Feistel network permutes the next even power of two (Luby and Rackoff 1988: four rounds);
    values outside range(n) are sent through again until they fall inside (Black and Rogaway 2002).
    """

    def __init__(self, n: int, seed: int, epoch: int) -> None:
        if n < 1:
            raise ValueError(f"expected at least one element, got {n}")
        self.n = n
        self._half_bits = max(1, ((n - 1).bit_length() + 1) // 2)
        self._mask = (1 << self._half_bits) - 1
        self._keys = [
            xxhash.xxh3_64_intdigest(struct.pack("<QQQ", seed & (2**64 - 1), epoch, round_))
            for round_ in range(_ROUNDS)
        ]

    def __getitem__(self, index: int) -> int:
        if not 0 <= index < self.n:
            raise IndexError(f"expected 0 <= index < {self.n}, got {index}")
        value = self._network(index)
        while value >= self.n:
            value = self._network(value)
        return value

    def _network(self, value: int) -> int:
        left, right = value >> self._half_bits, value & self._mask
        for key in self._keys:
            scrambled = xxhash.xxh3_64_intdigest(right.to_bytes(8, "little"), seed=key)
            left, right = right, left ^ (scrambled & self._mask)
        return (left << self._half_bits) | right
