"""Make the `refused` part of ed25519.json: crafted signatures that every node must refuse, and what they would pass.

Run from the repository's root: `python -m tests.vectors.make_ed25519`. The arithmetic is RFC 8032, section 5.1, written
for reading: slow, and not in constant time. The `rfc8032` part is section 7.1 of that paper and stays as it is.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]
IDENTITY: Point = (0, 1)


def add(a: Point, b: Point) -> Point:
    (x1, y1), (x2, y2) = a, b
    product = D * x1 * x2 * y1 * y2 % P
    return (x1 * y2 + x2 * y1) * pow(1 + product, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P


def multiply(scalar: int, point: Point) -> Point:
    result = IDENTITY
    for bit in bin(scalar)[2:]:
        result = add(result, result)
        result = add(result, point) if bit == "1" else result
    return result


def find_x(y: int, sign: int) -> int | None:
    """The x of a point with this y (mod p) and sign, None if there is none; for x = 0 the sign is not looked at."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    root = pow(square, (P + 3) // 8, P)
    root = root if root * root % P == square else root * pow(2, (P - 1) // 4, P) % P
    if root * root % P != square:
        return None
    return root if root % 2 == sign else -root % P


def encode(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def decode_lax(data: bytes) -> Point | None:
    """As a careless verifier reads a point: y is reduced mod p, and -0 is 0."""
    y = int.from_bytes(data, "little") & (1 << 255) - 1
    x = find_x(y % P, data[31] >> 7)
    return None if x is None else (x, y % P)


def number(*parts: bytes) -> int:
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little")


def find_base() -> Point:
    y = 4 * pow(5, -1, P) % P
    x = find_x(y, 0)
    assert x is not None
    return x, y


BASE = find_base()


def find_torsion() -> list[Point]:
    """The 8 points whose order divides 8, as multiples of one of order 8."""
    for y in range(2, 100):
        x = find_x(y, 0)
        generator = None if x is None else multiply(L, (x, y))
        if generator is not None and multiply(4, generator) != IDENTITY:
            return [multiply(i, generator) for i in range(8)]
    raise AssertionError("one point in two has a component of order 8")


def find_encodings(points: list[Point]) -> list[bytes]:
    """Every 32 bytes that a careless verifier reads as one of `points`: y or y + p, and both signs if x is 0."""
    found = []
    for x, y in points:
        for written in (y, y + P):
            signs = (0, 1) if x == 0 else (x & 1,)
            found += [(written | sign << 255).to_bytes(32, "little") for sign in signs if written < 2**255]
    return found


def find_equation(key: bytes, message: bytes, signature: bytes) -> str:
    """Which verification equation holds: cofactorless (so both), cofactored (only that one) or none."""
    a, r, s = decode_lax(key), decode_lax(signature[:32]), int.from_bytes(signature[32:], "little")
    if a is None or r is None:
        return "none"
    left, right = multiply(s % L, BASE), add(r, multiply(number(signature[:32], key, message) % (8 * L), a))
    if left == right:
        return "cofactorless"
    return "cofactored" if multiply(8, left) == multiply(8, right) else "none"


def sign_as(secret: int, key: bytes, nonce: int, nonce_point: bytes, divisor: int) -> tuple[bytes, bytes]:
    """A message and S = r + h a for it, with h a multiple of `divisor`, so that a small-order part of A vanishes."""
    for count in range(10_000):
        message = b"crafted %d" % count
        h = number(nonce_point, key, message)
        if h % divisor == 0:
            return message, nonce_point + ((nonce + h * secret) % L).to_bytes(32, "little")
    raise AssertionError("one h in eight is a multiple of 8")


def build_refused() -> list[dict[str, str]]:
    secret, nonce = number(b"secret") % L, number(b"nonce") % L
    key, nonce_point = encode(multiply(secret, BASE)), encode(multiply(nonce, BASE))
    torsion = find_torsion()
    cases: list[tuple[str, bytes, bytes, bytes]] = []
    for place, small in enumerate(find_encodings(torsion)):
        cases.append((f"small-order key {place}", small, *sign_as(0, small, nonce, nonce_point, 8)))
        cases.append((f"small-order R {place}", key, *sign_as(secret, key, 0, small, 1)))
    for place, small_point in enumerate(torsion[1:], start=1):
        mixed_key = encode(add(multiply(secret, BASE), small_point))
        cases.append((f"mixed-order key {place}", mixed_key, *sign_as(secret, mixed_key, nonce, nonce_point, 8)))
        mixed = encode(add(multiply(nonce, BASE), small_point))
        cases.append((f"mixed-order R {place}", key, *sign_as(secret, key, nonce, mixed, 1)))
    message, good = sign_as(secret, key, nonce, nonce_point, 1)
    s = int.from_bytes(good[32:], "little")
    for times in range(1, 15):
        cases.append((f"S + {times} L", key, message, good[:32] + (s + times * L).to_bytes(32, "little")))
    off_curve = next(y.to_bytes(32, "little") for y in range(2, 100) if find_x(y, 0) is None)
    cases.append(("key off the curve", off_curve, message, good))
    cases.append(("R off the curve", key, message, off_curve + good[32:]))
    cases += [(f"{n} bytes of signature", key, message, (good + b"\0")[:n]) for n in (0, 1, 32, 63, 65)]
    cases += [(f"{n} bytes of key", (key + b"\0")[:n], message, good) for n in (0, 1, 31, 33)]
    full = {name for name, k, _, signature in cases if len(k) == 32 and len(signature) == 64}
    return [
        {
            "name": name,
            "equation": find_equation(k, m, signature) if name in full else "none",
            "public_key": k.hex(),
            "message": m.hex(),
            "signature": signature.hex(),
        }
        for name, k, m, signature in cases
    ]


if __name__ == "__main__":
    path = Path(__file__).with_name("ed25519.json")
    vectors = {**json.loads(path.read_text()), "refused": build_refused()}
    path.write_text(json.dumps(vectors, indent=1) + "\n")
