"""What each codec promises beyond its bytes, and the golden vectors of all of them."""

from __future__ import annotations

import json
import math
import re
import tracemalloc
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from flchain.base.errors import ConfigError, MalformedUpdate
from flchain.base.fixedpoint import LIMIT
from flchain.base.types import ModelVector
from flchain.codecs import CODECS, DOWNSTREAM_RULES, adaptive, count_sketch, random_mask
from flchain.codecs.bits import golomb, minifloat
from flchain.codecs.bits.selection import select_largest
from flchain.ledger.params import check_params
from tests.support.builders.chain import build_chain
from tests.vectors.make_codecs import LEVELS, PATH, SEED, SIZE, encode_case, settle_case

VECTORS: dict[str, Any] = json.loads(PATH.read_text())
CASES = [(codec, level) for codec, levels in LEVELS.items() for level in levels]


def draw_changes(size: int, seed: int = 0) -> ModelVector:
    """Heavy-tailed, as the changes of a model are."""
    return np.random.default_rng(seed).laplace(scale=3_000, size=size).astype(np.int32)


def lose(codec: str, delta: ModelVector, level: int) -> tuple[int, float]:
    """Bytes of the payload, and the share of the squares that it leaves behind."""
    payload = CODECS[codec].encode(delta, np.zeros_like(delta), level, SEED).payload
    error = delta.astype(float) - CODECS[codec].decode(payload, delta.size, level, SEED)
    return len(payload), float((error**2).sum() / (delta.astype(float) ** 2).sum())


@pytest.mark.parametrize("vector", VECTORS["encoded"], ids=lambda v: f"{v['codec']}-{v['level']}")
def test_encoded_bytes_are_the_golden_ones(vector: dict[str, Any]) -> None:
    """Payload, decoded vector and residual of every codec are those of the file, and the file's seed is the rule's."""
    assert VECTORS["seed"] == SEED.hex()
    assert encode_case(vector["codec"], vector["level"]) == vector


@pytest.mark.parametrize("vector", VECTORS["settled"], ids=lambda v: v["rule"])
def test_settled_bytes_are_the_golden_ones(vector: dict[str, Any]) -> None:
    """Three rounds of every downstream rule settle on the payloads of the file."""
    assert settle_case(vector["rule"], vector["level"]) == vector


def test_every_codec_has_golden_vectors() -> None:
    """A new codec or downstream rule without vectors fails here."""
    assert {vector["codec"] for vector in VECTORS["encoded"]} == CODECS.keys()
    assert {vector["rule"] for vector in VECTORS["settled"]} == DOWNSTREAM_RULES.keys()


@pytest.mark.parametrize("level", [50, 67, 100, 200, 333, 500, 1000])
def test_positions_are_within_two_percent_of_their_entropy(level: int) -> None:
    """Of a million parameters, from 1/50 (1/67 is the worst case of a power of two) to 1/1000."""
    size, kept = 1_000_000, 1_000_000 // level
    positions = np.sort(np.random.default_rng(level).choice(size, kept, replace=False)).astype(np.int64)
    bits = golomb.count_bits(positions, golomb.compute_rice_parameter(kept, size))
    bound = (math.lgamma(size + 1) - math.lgamma(kept + 1) - math.lgamma(size - kept + 1)) / math.log(2)
    assert bits <= 1.02 * bound, f"1/{level}: {bits} bits, bound {bound:.0f}, {bits / bound:.4f}"


@pytest.mark.parametrize(("codec", "level"), CASES)
def test_decoding_takes_a_small_multiple_of_any_model(codec: str, level: int) -> None:
    """The peak stays below 28 models, even for payloads longer than a model: everything sent, over the whole range."""
    size = 50_000
    delta = np.random.default_rng(3).integers(-LIMIT, LIMIT, size).astype(np.int32)
    level = level if codec != "adaptive" else adaptive.pack_level(2**24, 0)
    payload = CODECS[codec].encode(delta, np.zeros_like(delta), level, SEED).payload
    tracemalloc.start()
    CODECS[codec].decode(payload, size, level, SEED)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 28 * 4 * size, f"{peak / (4 * size):.1f} models"


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("fill", [b"\x00", b"\xff", b"\x01"])
def test_a_bomb_is_refused_before_memory_is_taken(codec: str, fill: bytes) -> None:
    """Huge counts in a short payload, and a payload longer than any, cost next to nothing beside the model."""
    size, level = 100_000, LEVELS[codec][-1]
    longest = CODECS[codec].payload_bytes_max(size, level)
    for payload in (fill * 12, fill * (longest + 1), b""):
        tracemalloc.start()
        with pytest.raises(MalformedUpdate):
            CODECS[codec].decode(payload, size, level, SEED)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20_000 + 2 * longest


@pytest.mark.parametrize("codec", ["random-mask", "qsgd"])
def test_a_draw_without_a_seed_is_our_own_fault(codec: str) -> None:
    """Whoever forgets the seed hears of it at once, rather than disagreeing with all others."""
    delta = draw_changes(100)
    with pytest.raises(ValueError, match="seed"):
        CODECS[codec].encode(delta, np.zeros_like(delta), 7)


@pytest.mark.parametrize(
    ("codec", "level"),
    [("adaptive", 1_500), ("adaptive", 5_031), ("qsgd", 2**15 + 1), ("delta-entropy", 2**30 + 1), ("count-sketch", 0)],
)
def test_a_level_that_a_codec_cannot_use_opens_no_chain(codec: str, level: int) -> None:
    """The genesis is refused with what the number means for this codec."""
    params = msgspec.structs.replace(build_chain().genesis.params, codec=codec, codec_level=level)
    with pytest.raises(ConfigError, match=rf"codec_level: {codec}.*{re.escape(CODECS[codec].level_meaning)}"):
        check_params(params)


@pytest.mark.parametrize("fraction_bits", [3, 10])
def test_minifloat_codes_rise_and_come_back(fraction_bits: int) -> None:
    """Every code decodes to a magnitude that encodes to it; any magnitude comes back within its fraction."""
    codes = np.arange(minifloat.compute_code_max(fraction_bits) + 1, dtype=np.int64)
    magnitudes = minifloat.decode(codes, fraction_bits)
    assert (np.diff(magnitudes) > 0).all()
    assert magnitudes[-1] <= LIMIT
    assert minifloat.encode(magnitudes.astype(np.int32), fraction_bits).tolist() == codes.tolist()
    drawn = np.unique(np.geomspace(1, LIMIT, 10_000).astype(np.int64)).astype(np.int32)
    back = minifloat.decode(minifloat.encode(drawn, fraction_bits), fraction_bits)
    assert (np.abs(back - drawn) / drawn).max() <= 2.0 ** -(fraction_bits + 1)


def test_a_random_mask_takes_one_of_each_run_evenly() -> None:
    """Over many seeds each place of a run is taken equally often, and a mask is the same for the same seed only."""
    masks = [random_mask.compute_mask(1_003, 10, bytes([n, 1])) for n in range(200)]
    assert all((mask // 10).tolist() == list(range(101)) and mask[-1] < 1_003 for mask in masks)
    counts = np.bincount(np.concatenate(masks) % 10, minlength=10)
    assert counts.min() > 0.9 * counts[:3].mean() * 0.9
    assert random_mask.compute_mask(1_003, 10, bytes([5, 1])).tolist() == masks[5].tolist() != masks[6].tolist()


def test_qsgd_is_right_on_average() -> None:
    """The mean over 400 seeds is the vector, within what its variance allows; one alone is far from it."""
    delta = draw_changes(600)
    decoded = []
    for number in range(400):
        seed = number.to_bytes(2, "big")
        decoded.append(CODECS["qsgd"].decode(CODECS["qsgd"].encode(delta, 0 * delta, 1, seed).payload, 600, 1))
    norm = float(np.abs(delta).max())
    assert np.abs(np.mean(decoded, axis=0) - delta).max() < 5 * norm / 2 / 20
    assert np.abs(decoded[0] - delta).max() > norm / 4


def test_sketches_add_up_and_find_the_heavy_ones() -> None:
    """The table of a sum is the sum of the tables, and the median finds large values among small ones."""
    one, two = draw_changes(20_000, 1), draw_changes(20_000, 2)
    heavy = np.arange(0, 20_000, 1_000)
    one[heavy] += 2_000_000
    tables = count_sketch.sketch(one, 4) + count_sketch.sketch(two, 4)
    assert tables.tolist() == count_sketch.sketch(one + two, 4).tolist()
    found = count_sketch.estimate(tables, 20_000, 4)
    assert (np.abs(found[heavy] - (one + two)[heavy]) < 200_000).all()
    assert np.median(np.abs(found)) < 100_000


def test_a_settled_sketch_sends_what_it_kept_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """FetchSGD's error in sketch space: one change, then nothing new, and it arrives within some rounds, if there is no
    momentum; with momentum what waited goes on growing, until it is taken out and its momentum cleared."""
    kept = settle_once(count_sketch.MOMENTUM_BP)
    assert kept.min() > 0.9
    assert kept.max() > 1.2
    monkeypatch.setattr(count_sketch, "MOMENTUM_BP", 0)
    assert np.abs(settle_once(0) - 1).max() < 0.1


def settle_once(momentum_bp: int) -> npt.NDArray[np.float64]:
    """One change of a million in 20 of 2,000 parameters, and the share of each that 30 rounds bring."""
    assert momentum_bp == count_sketch.MOMENTUM_BP
    size, level = 2_000, 2
    delta = np.zeros(size, dtype=np.int32)
    delta[::100] = 1_000_000
    carried = count_sketch.start(size, level)
    table, received = count_sketch.sketch(delta, level), np.zeros(size, dtype=np.int64)
    for _ in range(30):
        compressed = count_sketch.compress(table, carried, size, level)
        received += compressed.delta
        carried, table = compressed.carried, np.zeros_like(table)
    return received[::100] / 1_000_000


@pytest.mark.parametrize("budget", [16, 40, 300, 2_000, 10_000])
def test_adaptive_keeps_its_budget_and_uses_it(budget: int) -> None:
    """No update is longer than agreed, or than the link bears; where all changes are many steps, hardly shorter."""
    delta, owed = draw_changes(20_000), draw_changes(20_000, 1)
    codec, level = CODECS["adaptive"], adaptive.pack_level(budget, 0)
    assert 0.6 * budget - 5 <= len(codec.encode(delta, owed, level).payload) <= budget
    assert len(codec.encode(delta, owed, level, bytes_wanted=budget // 3).payload) <= max(16, budget // 3)


def test_adaptive_sends_nothing_below_half_a_step() -> None:
    """The larger the step, or the smaller the changes, the shorter the update, down to an empty one."""
    delta = draw_changes(20_000)
    used = [lose("adaptive", delta, adaptive.pack_level(10_000, step_bits))[0] for step_bits in (12, 13, 14, 15, 20)]
    assert used == sorted(used, reverse=True)
    assert used[-1] == 3
    assert lose("adaptive", delta // 16, adaptive.pack_level(10_000, 12))[0] < used[0] / 4


def test_adaptive_takes_levels_where_they_pay() -> None:
    """With bytes for all it says nearly everything; with few it sends one level, and never nothing if it owes much."""
    delta = draw_changes(20_000)
    assert lose("adaptive", delta, adaptive.pack_level(40_000, 0))[1] < 1e-4
    few = CODECS["adaptive"].encode(delta, 0 * delta, adaptive.pack_level(100, 0)).payload
    assert np.unique(np.abs(CODECS["adaptive"].decode(few, 20_000, adaptive.pack_level(100, 0)))).size == 2
    equal = np.full(20_000, 1_000_000, dtype=np.int32)
    assert lose("adaptive", equal, adaptive.pack_level(100, 0))[1] < 1


def test_a_slow_link_gets_fewer_bytes() -> None:
    """What a link carries until the deadline, and never less than the shortest update."""
    assert adaptive.compute_bytes_wanted(8_000, 2_000, 500) == 15_500
    assert adaptive.compute_bytes_wanted(10, 1_000, 500) == adaptive.BYTES_MIN


@pytest.mark.parametrize("rule", [name for name in DOWNSTREAM_RULES if name != "count-sketch"])
def test_what_is_settled_and_what_is_carried_is_all_there_was(rule: str) -> None:
    """Over five rounds settled changes and the carried error add up to the aggregates, to the last step."""
    downstream, level = DOWNSTREAM_RULES[rule], LEVELS[rule][-1]
    carried, total, settled_total = downstream.start(SIZE, level), np.zeros(SIZE, np.int64), np.zeros(SIZE, np.int64)
    for number in range(5):
        aggregate = draw_changes(SIZE, number)
        compressed = downstream.compress(aggregate, carried, SIZE, level)
        assert downstream.decode(compressed.payload, SIZE, level).tolist() == compressed.delta.tolist()
        assert len(compressed.payload) <= downstream.payload_bytes_max(SIZE, level)
        carried = compressed.carried
        total += aggregate
        settled_total += compressed.delta
    assert (settled_total + carried[0]).tolist() == total.tolist()


@pytest.mark.parametrize("size", [12_519, 20_522, 101_770])
@pytest.mark.parametrize("codec", CODECS)
def test_the_default_level_suits_the_built_models(codec: str, size: int) -> None:
    """Each codec's own level is one that it accepts, and all but the whole vector are several times shorter."""
    level, delta = CODECS[codec].level_default, draw_changes(size)
    used, _ = lose(codec, delta, level)
    assert used <= CODECS[codec].payload_bytes_max(size, level)
    assert codec == "identity" or used < 4 * size / 7


@pytest.mark.parametrize("spread", [3, 40, 10_000_000])
@pytest.mark.parametrize("kept", [1, 100, 1_500])
def test_looking_at_a_sample_first_selects_the_same(spread: int, kept: int) -> None:
    """Whatever the sample says, the selection is that of sorting all: many ties, few large ones, a sorted vector."""
    rng = np.random.default_rng(spread + kept)
    drawn = np.abs(rng.normal(scale=spread, size=30_000)).astype(np.int32)
    sparse = np.where(rng.random(30_000) < 0.01, drawn, 0).astype(np.int32)
    for magnitudes in (drawn, sparse, np.sort(drawn), np.tile(np.arange(31, dtype=np.int32), 1_000)):
        order = np.lexsort((np.arange(magnitudes.size), -magnitudes.astype(np.int64)))[:kept]
        expected = np.sort(order[magnitudes[order] > 0])
        assert select_largest(magnitudes, kept).tolist() == expected.tolist()
