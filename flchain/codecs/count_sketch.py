"""FetchSGD: count sketches, with momentum and error in sketch space (Rothchild et al. 2020, arXiv 2007.07682).

A count sketch (Charikar et al. 2002) is a table of ROWS rows. Row r adds parameter i, with a sign of its own, to one of
its columns; the median over the rows estimates the parameter. Sketches add up as vectors do, so a device keeps nothing:
the aggregator sums tables, and carries momentum and error as tables (`compress`, Alg. 1 of the paper). Here every node
is the aggregator, so all of this runs in integers. The hashes are constants, the same in all rounds, as momentum and
error require.

`level` is parameters per cell: columns = max(1, P // (ROWS * level)), one byte for each of the ROWS * columns cells.

Payload, always 1 + cells bytes:

    1 byte   s, 0 to 24: a cell is its byte shifted left by s
    cells    signed bytes -127..127, row by row; some magnitude is above 63 if s is not 0
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flchain.base import fixedpoint
from flchain.base.errors import MalformedUpdate
from flchain.base.types import SHARE_ALL, ModelVector
from flchain.codecs import top_k
from flchain.codecs.bits.selection import check_level
from flchain.codecs.bits.uniform import draw_uniform
from flchain.codecs.codec import NO_SEED, Codec, Encoded
from flchain.codecs.compressed import Carried, Compressed

ROWS = 5
COLUMNS_PER_KEPT = 10
"""Columns for each parameter that is taken out of a table: with fewer, what is taken out is noise (measured)."""
PARAMETERS_MAX = 1 << 22
"""numpy adds up columns in float64, which is exact for sums of this many fixed-point values."""
MOMENTUM_BP = 3_000
"""rho, in basis points. The paper takes 0.9 for gradients; our updates are several steps with momentum of their own,
and with 0.9 on top of them training of the CNNs diverged (measured)."""
CELL_MAX = 127
_SHIFT_MAX = 24
_CONSTANTS = draw_uniform(b"constants of the hashes", "count-sketch", ROWS * 8).astype(np.uint64).reshape(ROWS, 4, 2)

Wide = npt.NDArray[np.int64]


def compute_columns(parameters_count: int, level: int) -> int:
    """Return the columns of a row. Raises ValueError on a model or a level out of range."""
    check_level(parameters_count, level, 1, fixedpoint.LIMIT)
    if parameters_count > PARAMETERS_MAX:
        raise ValueError(f"{parameters_count} parameters; a sketch takes at most {PARAMETERS_MAX}")
    return max(1, parameters_count // (ROWS * level))


def compute_kept(parameters_count: int, level: int) -> int:
    """Return how many parameters are taken out of a table."""
    return max(1, compute_columns(parameters_count, level) // COLUMNS_PER_KEPT)


def _hash(
    row: int, positions: npt.NDArray[np.uint64], columns: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Return column and sign of each position: multiply-shift (Dietzfelbinger 2018), 2-universal below 2**32."""
    a, b, c, d = (_CONSTANTS[row, :, 0] << np.uint64(32)) | _CONSTANTS[row, :, 1]
    high = (a * positions + b) >> np.uint64(32)
    column = (high * np.uint64(columns)) >> np.uint64(32)
    # As indices, not as int64: on 32-bit boards (ARMv7) bincount takes no other integers.
    return column.astype(np.intp), (c * positions + d) >> np.uint64(63) == 1


def sketch(vector: ModelVector, level: int) -> ModelVector:
    """Return the table of a (P,) vector, saturated, as (cells,) row by row."""
    columns = compute_columns(vector.size, level)
    places = np.flatnonzero(vector)
    values, positions = vector[places].astype(np.float64), places.astype(np.uint64)
    table = np.zeros((ROWS, columns), dtype=np.int64)
    for row in range(ROWS):
        column, is_negative = _hash(row, positions, columns)
        # Whole numbers below 2**53 add up exactly in float64, in any order.
        table[row] = np.bincount(column, np.where(is_negative, -values, values), columns).astype(np.int64)
    return fixedpoint.saturate(table.reshape(-1))


def estimate(table: ModelVector, parameters_count: int, level: int) -> ModelVector:
    """Return the median over the rows for each of (P,) parameters."""
    columns = compute_columns(parameters_count, level)
    rows = table.reshape(ROWS, columns)
    positions = np.arange(parameters_count, dtype=np.uint64)
    found = np.empty((ROWS, parameters_count), dtype=np.int32)
    for row in range(ROWS):
        column, is_negative = _hash(row, positions, columns)
        found[row] = rows[row][column]
        np.negative(found[row], out=found[row], where=is_negative)
    return _compute_median_of_five(found)


def _compute_median_of_five(found: npt.NDArray[np.int32]) -> ModelVector:
    """Return the median along the first axis.

    It is the median of three values: the larger of two minima, the smaller of two maxima, and the fifth.
    """
    a, b, c, d, e = found
    low = np.maximum(np.minimum(a, b), np.minimum(c, d))
    high = np.minimum(np.maximum(a, b), np.maximum(c, d))
    median: ModelVector = np.maximum(np.minimum(low, high), np.minimum(np.maximum(low, high), e))
    return median


def encode(
    delta: ModelVector,
    residual: ModelVector,
    level: int,
    seed: bytes = NO_SEED,
    bytes_wanted: int | None = None,
) -> Encoded:
    """Return the table of delta, in bytes with one shift.

    A residual (of another codec, for example) is sent with it; none is kept.
    """
    corrected = fixedpoint.add(delta, residual)
    table = sketch(corrected, level).astype(np.int64)
    shift = max(int(np.abs(table).max()).bit_length() - 7, 0)
    cells = fixedpoint.divide_rounded(table, 1 << shift)
    if int(np.abs(cells).max()) > CELL_MAX and shift < _SHIFT_MAX:
        shift += 1
        cells = fixedpoint.divide_rounded(table, 1 << shift)
    cells = np.clip(cells, -CELL_MAX, CELL_MAX)
    return Encoded(bytes([shift]) + cells.astype(np.int8).tobytes(), np.zeros_like(corrected))


def decode_table(payload: bytes, parameters_count: int, level: int) -> ModelVector:
    """Return the (cells,) table of a payload, which is what gets aggregated. Raises MalformedUpdate."""
    bytes_wanted = payload_bytes_max(parameters_count, level)
    if len(payload) != bytes_wanted:
        raise MalformedUpdate(f"{len(payload)} bytes, not {bytes_wanted}")
    shift, cells = payload[0], np.frombuffer(payload, dtype=np.int8, offset=1).astype(np.int32)
    largest = int(np.abs(cells).max())
    if shift > _SHIFT_MAX or largest > CELL_MAX or (shift > 0 and largest <= CELL_MAX // 2):
        raise MalformedUpdate(f"a shift of {shift} with cells up to {largest}")
    return cells << shift


def decode(payload: bytes, parameters_count: int, level: int, seed: bytes = NO_SEED) -> ModelVector:
    """Return what one update alone says: the largest estimates, as `compress` would take them out of its table."""
    table = decode_table(payload, parameters_count, level)
    return _take_out(table, parameters_count, level).delta


def payload_bytes_max(parameters_count: int, level: int) -> int:
    """Return the length of a payload, which is always the same."""
    return 1 + ROWS * compute_columns(parameters_count, level)


def start(parameters_count: int, level: int) -> Carried:
    """Return momentum and error before the first round: tables of zeros."""
    cells = ROWS * compute_columns(parameters_count, level)
    return np.zeros(cells, dtype=np.int32), np.zeros(cells, dtype=np.int32)


def compress(table: ModelVector, carried: Carried, parameters_count: int, level: int) -> Compressed:
    """Run one round of Alg. 1 (lines 10 to 16): S_u = rho S_u + S; S_e += S_u; take the largest out of S_e.

    `table` is the weighted mean of the round's tables: only a linear rule fits. As in the authors' code, momentum is
    cleared in the cells of what was taken out (momentum factor masking: Lin et al. 2018, arXiv 1712.01887).
    """
    momentum, error = carried
    momentum = fixedpoint.add(fixedpoint.saturate(_scale(momentum, MOMENTUM_BP)), table)
    error = fixedpoint.add(error, momentum)
    taken = _take_out(error, parameters_count, level)
    found = sketch(taken.delta, level)
    error = fixedpoint.saturate(error.astype(np.int64) - found)
    return Compressed(taken.payload, taken.delta, (np.where(found != 0, np.int32(0), momentum), error))


def _scale(values: ModelVector, share_bp: int) -> Wide:
    return fixedpoint.divide_rounded(values.astype(np.int64) * share_bp, SHARE_ALL)


def _take_out(table: ModelVector, parameters_count: int, level: int) -> Compressed:
    """Return the largest estimates as a `top_k` payload, and the vector that it decodes to."""
    estimates = estimate(table, parameters_count, level)
    sparsity = compute_payload_level(parameters_count, level)
    payload = top_k.encode(estimates, np.zeros_like(estimates), sparsity).payload
    return Compressed(payload, top_k.decode(payload, parameters_count, sparsity), ())


def compute_payload_level(parameters_count: int, level: int) -> int:
    """Return the level of `top_k` at which a compressed change travels."""
    return parameters_count // compute_kept(parameters_count, level)


COUNT_SKETCH = Codec(
    encode,
    decode,
    payload_bytes_max,
    "parameters for each cell of the sketch",
    2,
    keeps_error=False,
    decode_summary=decode_table,
)
