"""The step of the model in a settled round, which every node takes by itself: from updates, or by a short payload."""

from __future__ import annotations

from dataclasses import dataclass

from flchain.aggregation import AGGREGATION_RULES, WeightedUpdate
from flchain.base.fixedpoint import add
from flchain.base.types import Address, Hash, ModelVector, Round
from flchain.codecs import CODECS, DOWNSTREAM_RULES, Carried, compute_codec_seed
from flchain.ledger.params import ChainParams
from flchain.ledger.state import RevealedUpdate


def decode_update(params: ChainParams, chain: Hash, number: Round, sender: Address, update: bytes) -> ModelVector:
    """Return the change that a device's payload of this round encodes, shape (P,). Raises MalformedUpdate."""
    seed = compute_codec_seed(chain, number, sender)
    return CODECS[params.codec].decode(update, params.parameters_count, params.codec_level, seed)


def _get_change(params: ChainParams, chain: Hash, number: Round, reveal: RevealedUpdate) -> ModelVector:
    if reveal.decoded is not None:
        return reveal.decoded.get_vector()
    return decode_update(params, chain, number, reveal.sender, reveal.update)


def compute_delta(params: ChainParams, chain: Hash, number: Round, reveals: tuple[RevealedUpdate, ...]) -> ModelVector:
    """Return the aggregate of these updates of a round, at least one, shape (P,). Raises MalformedUpdate."""
    updates = tuple(
        WeightedUpdate(reveal.sender, reveal.samples, _get_change(params, chain, number, reveal)) for reveal in reveals
    )
    return AGGREGATION_RULES[params.aggregation].aggregate(updates)


@dataclass(frozen=True, eq=False)
class ModelStep:
    """The effect of a settled round on the model.

    It is the new model, shape (P,), the payload that leads to it from the old one (empty if nothing changes), and what
    the downstream rule carries into the next round.
    """

    model: ModelVector
    payload: bytes
    carried: Carried


def compute_step(
    params: ChainParams,
    base: ModelVector,
    carried: Carried,
    reveals: tuple[RevealedUpdate, ...],
    accepted: tuple[bytes, ...],
    *,
    chain: Hash,
    number: Round,
) -> ModelStep:
    """Return the step that every node with the updates computes for itself. Raises MalformedUpdate.

    The change is compressed as updates are, together with what earlier rounds left out (see `codecs.downstream`): so a
    node without the updates takes the same step by a short payload.
    """
    wanted = frozenset(accepted)
    chosen = tuple(reveal for reveal in reveals if reveal.sender in wanted)
    if not chosen:
        return ModelStep(base, b"", carried)
    summarise = CODECS[params.codec].decode_summary
    if summarise is None:
        aggregate = compute_delta(params, chain, number, chosen)
    else:
        # Read from the payload again and not kept: it takes 1/200 of the time of the first reading (measured), and four
        # times the payload's memory.
        summaries = ((r, summarise(r.update, params.parameters_count, params.codec_level)) for r in chosen)
        updates = tuple(WeightedUpdate(r.sender, r.samples, summary) for r, summary in summaries)
        aggregate = AGGREGATION_RULES[params.aggregation].aggregate(updates)
    rule = DOWNSTREAM_RULES[params.downstream_codec]
    compressed = rule.compress(aggregate, carried, params.parameters_count, params.downstream_level)
    return ModelStep(add(base, compressed.delta), compressed.payload, compressed.carried)


def apply_payload(params: ChainParams, base: ModelVector, payload: bytes) -> ModelVector:
    """Return the model, shape (P,), after a settled round's payload; an empty one changes nothing.

    Raises MalformedUpdate.
    """
    if not payload:
        return base
    rule = DOWNSTREAM_RULES[params.downstream_codec]
    return add(base, rule.decode(payload, params.parameters_count, params.downstream_level))
