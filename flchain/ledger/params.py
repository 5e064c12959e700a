"""ChainParams: the numbers and names of every rule, agreed at genesis and never a node's own choice."""

from __future__ import annotations

from typing import Annotated

import msgspec

from flchain.aggregation import AGGREGATION_RULES, UPDATES_MAX, WEIGHT_LIMIT
from flchain.base.errors import ConfigError
from flchain.base.types import HASH_BYTES, SHARE_ALL
from flchain.codecs import CODECS, DOWNSTREAM_RULES
from flchain.consensus import CONSENSUS_RULES, PROPOSER_RULES
from flchain.incentives import REWARD_RULES
from flchain.privacy import MECHANISMS
from flchain.wire.fields import SAMPLES_CAP_MAX, VALIDATORS_MAX

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=32, pattern="^[a-z0-9-]+$")]
Count = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
CountOrZero = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Share = Annotated[int, msgspec.Meta(ge=0, le=SHARE_ALL)]
Digest = Annotated[bytes, msgspec.Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)]

DEVICES_MAX = UPDATES_MAX
"""Most devices on one chain: each has one update in a round, and `limits` says which messages must carry them."""

assert SAMPLES_CAP_MAX < WEIGHT_LIMIT, "an int64 sum of capped updates cannot overflow (see `aggregation.rule`)"


class ChainParams(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True):
    """The agreed numbers. No floats: shares are basis points, other fractions are millionths or thousandths."""

    codec: Name
    """Update compression, a key of CODECS."""
    codec_level: Count
    """The codec's own number (`Codec.level_meaning`): for sparse-ternary one parameter in `codec_level` is sent."""
    downstream_codec: Name
    """How the change that a settled round makes is compressed, a key of DOWNSTREAM_RULES."""
    downstream_level: Count
    """That rule's own number, with the meaning it has for the codec of the same name."""
    aggregation: Name
    """How accepted updates are combined, a key of AGGREGATION_RULES."""
    privacy: Name
    """What a device does to its update before the codec, a key of MECHANISMS."""
    clip_norm_thousandths: Count
    """L2 norm to which every update is clipped, in thousandths."""
    noise_multiplier_thousandths: CountOrZero
    """Standard deviation of the noise in units of the clip norm, in thousandths."""
    consensus: Name
    """How a block becomes final, a key of CONSENSUS_RULES."""
    proposer_rule: Name
    """What weights the turns to propose, a key of PROPOSER_RULES."""

    model_digest: Digest
    """SHA-256 of the .tflite file that every node trains and scores with."""
    parameters_count: Count
    """Length of the model vector."""
    initial_model_hash: Digest
    """Hash of the model of round 0."""
    local_epochs: Count
    """How many passes over its own data a device makes in a round."""
    batch_size: Count
    learning_rate_millionths: Count

    samples_cap: Annotated[int, msgspec.Meta(ge=1, le=SAMPLES_CAP_MAX)]
    """Largest weight of an update; higher claims count as this."""
    score_margin_bp: Share
    """An update is accepted if its median score is at most this far below the base model's, in basis points."""
    reward_rule: Name
    """How a settled round pays, a key of REWARD_RULES."""
    reward_per_update: CountOrZero
    """Minted for each accepted update, in the chain's smallest unit."""
    reward_for_scores: CountOrZero
    """Minted for each scored round and shared among its scorers; a validator shares its part with its delegators."""
    score_outlier_bp: Share
    """A scorer whose gains are on average further from the medians than this earns nothing and loses reputation."""
    mining_weight_bp: Annotated[int, msgspec.Meta(ge=0, le=3_333)]
    """Weight of the scores of all mining devices of a round together, as a share of the validators' power."""

    seats: Annotated[int, msgspec.Meta(ge=1, le=VALIDATORS_MAX)]
    """How many candidates, those with the most stake, are validators."""
    epoch_rounds: Count
    """Rounds between two elections of the validators."""
    power_cap_bp: Annotated[int, msgspec.Meta(ge=1, le=SHARE_ALL)]
    """Largest share of the voting power of one validator; where too few share the power, all are equal."""
    bond_min: Count
    """Least stake of its own that a candidate needs to be elected."""
    stake_min: Count
    """Least amount of one delegation, so that nobody can fill the state with dust."""
    order_fee: CountOrZero
    """Burned for every order (transfer, registration, delegation), so that filling the ledger costs money."""
    unbonding_s: Count
    """How long undelegated stake can still be slashed before it is paid out, in seconds of the chain's time."""
    trusting_s: Count
    """Greatest age of a light client's newest header at which it still follows a change of validators; at most
    `unbonding_s`."""
    evidence_heights_max: Count
    """Evidence of an offence more than this many heights ago is too old."""
    slash_bp: Share
    """The share of the stake behind it, its delegators' included, that a validator loses for signing twice."""
    jail_rounds: Count
    """Rounds during which it then cannot be elected."""

    phase_heights_max: Count
    """Heights after which a phase closes without the missing nodes, if enough took part."""
    absent_rounds_max: Count
    """Rounds a device or scorer may miss in a row before phases stop waiting for it (but see `phases`)."""
    timeout_propose_ms: Count
    timeout_vote_ms: Count
    timeout_growth_ms: CountOrZero
    """The three timeouts of Tendermint (arXiv 1807.04938); each view's are longer by the growth."""
    patience_ms: Count
    """How long a miner waits for missing nodes before it wants a block without them."""
    commit_patience_ms: Count
    """The same while devices train, counted from the first commitment."""


PRESETS: dict[str, dict[str, int]] = {
    # For tests: no wait is longer than a loaded CI machine needs.
    "minimal": {
        "phase_heights_max": 2,
        "absent_rounds_max": 1,
        "timeout_propose_ms": 1_000,
        "timeout_vote_ms": 500,
        "timeout_growth_ms": 500,
        "patience_ms": 1_500,
        "commit_patience_ms": 3_000,
        "epoch_rounds": 4,
        "unbonding_s": 2 * 3_600,
        "trusting_s": 3_600,
    },
    # Boards and servers on one site.
    "edge": {
        "phase_heights_max": 2,
        "absent_rounds_max": 2,
        "timeout_propose_ms": 1_500,
        "timeout_vote_ms": 750,
        "timeout_growth_ms": 750,
        "patience_ms": 2_500,
        "commit_patience_ms": 10_000,
        "epoch_rounds": 20,
        "unbonding_s": 28 * 86_400,
        "trusting_s": 14 * 86_400,
    },
    # Mobile links and UAVs: minutes of absence are normal.
    "field": {
        "phase_heights_max": 6,
        "absent_rounds_max": 3,
        "timeout_propose_ms": 5_000,
        "timeout_vote_ms": 3_000,
        "timeout_growth_ms": 2_000,
        "patience_ms": 30_000,
        "commit_patience_ms": 600_000,
        "epoch_rounds": 10,
        # A board may lie in a drawer for two months and still find the chain again by itself.
        "unbonding_s": 90 * 86_400,
        "trusting_s": 60 * 86_400,
    },
}


def check_params(params: ChainParams) -> None:
    """Raise ConfigError listing every plug-in that this build does not know, each with the known ones."""
    registries = (
        ("codec", params.codec, CODECS),
        ("downstream_codec", params.downstream_codec, DOWNSTREAM_RULES),
        ("aggregation", params.aggregation, AGGREGATION_RULES),
        ("privacy", params.privacy, MECHANISMS),
        ("consensus", params.consensus, CONSENSUS_RULES),
        ("proposer_rule", params.proposer_rule, PROPOSER_RULES),
        ("reward_rule", params.reward_rule, REWARD_RULES),
    )
    problems = tuple(
        f"genesis: {key}: unknown name {name!r}; known: {', '.join(sorted(known))}"
        for key, name, known in registries
        if name not in known
    )
    if not problems:
        problems += _find_codec_problems(params)
    if params.trusting_s > params.unbonding_s:
        # Otherwise validators whose stake has been paid out could mislead a light client at no cost.
        problems += ("genesis: trusting_s: longer than unbonding_s",)
    if problems:
        raise ConfigError(problems)


def _find_codec_problems(params: ChainParams) -> tuple[str, ...]:
    """Find levels that the codecs cannot work with, and codecs that do not go together."""
    problems: tuple[str, ...] = ()
    up, down = (params.codec, params.codec_level), (params.downstream_codec, params.downstream_level)
    for key, (name, level), compute_bytes_max in (
        ("codec_level", up, CODECS[params.codec].payload_bytes_max),
        ("downstream_level", down, DOWNSTREAM_RULES[params.downstream_codec].payload_bytes_max),
    ):
        try:
            compute_bytes_max(params.parameters_count, level)
        except ValueError as error:
            problems += (f"genesis: {key}: {name}: {error}; the level is: {CODECS[name].level_meaning}",)
    is_summed = any(CODECS[name].decode_summary is not None for name, _ in (up, down))
    if is_summed and up != down:
        problems += (
            f"genesis: downstream_codec: {up[0]}, then {down[0]}: sketches need one codec and level in both directions",
        )
    if is_summed and not AGGREGATION_RULES[params.aggregation].is_linear:
        problems += (f"genesis: aggregation: sketches need a linear rule, {params.aggregation} is not",)
    return problems
