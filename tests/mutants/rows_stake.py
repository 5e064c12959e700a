"""Changes of money and stake: rewards, reputations, powers, shares, slashing, turns to propose."""

from __future__ import annotations

from tests.mutants.table import change

INCENTIVES = "flchain/incentives/__init__.py"
DPOS = "flchain/consensus/dpos.py"
PROPOSER = "flchain/consensus/proposer.py"

ROWS = (
    change(
        "both steps of reputations are halved",
        "A tenth of the way up, a fifth of the way down.",
        INCENTIVES,
        "(REPUTATION_MAX - reputation) // 10",
        "(REPUTATION_MAX - reputation) // 20",
        "reputation - reputation // 5",
        "reputation - reputation // 10",
    ),
    change(
        "a reputation rises by a ninth",
        "A tenth of the way to the top.",
        INCENTIVES,
        "(REPUTATION_MAX - reputation) // 10",
        "(REPUTATION_MAX - reputation) // 9",
    ),
    change(
        "a falling reputation is rounded down",
        "What is taken off is rounded, not what is left.",
        INCENTIVES,
        "reputation - reputation // 5",
        "reputation * 4 // 5",
    ),
    change(
        "the best reputation is 9,999",
        "10,000 basis points are all.",
        INCENTIVES,
        "REPUTATION_MAX = 10_000",
        "REPUTATION_MAX = 9_999",
    ),
    change(
        "by-samples pays nothing",
        "The purse is shared by samples.",
        INCENTIVES,
        "address: reward * len(accepted) * samples // total for",
        "address: 0 for",
    ),
    change(
        "by-samples rounds up",
        "Shares are rounded down, so that no more than the purse is minted.",
        INCENTIVES,
        "reward * len(accepted) * samples // total for",
        "-(-reward * len(accepted) * samples // total) for",
    ),
    change(
        "by-samples shares one reward among all",
        "The purse is one reward for each accepted update.",
        INCENTIVES,
        "reward * len(accepted) * samples",
        "reward * samples",
    ),
    change(
        "per-update pays the samples",
        "Every accepted update earns the same.",
        INCENTIVES,
        "{address: reward for address, _ in accepted}",
        "{address: reward + samples for address, samples in accepted}",
    ),
    change(
        "of equal stakes the higher address is elected",
        "Of equal stakes the lower address comes first.",
        DPOS,
        "key=lambda item: (-item[1], item[0])",
        "key=lambda item: (item[1], item[0]), reverse=True",
    ),
    change("one seat more", "So many seats as agreed.", DPOS, "ranked[:seats]", "ranked[: seats + 1]"),
    change(
        "stakes are scaled to 39 bits", "Powers come to 40 bits.", DPOS, "STAKE_BITS_MAX = 40", "STAKE_BITS_MAX = 39"
    ),
    change(
        "a small stake is scaled to nothing",
        "Every stake gives at least one.",
        DPOS,
        "max(1, stake >> shift) for",
        "(stake >> shift) for",
    ),
    change(
        "a cap that can just hold is used",
        "Where the cap cannot hold all are equal.",
        DPOS,
        "if count * cap_bp <= SHARE_ALL:",
        "if count * cap_bp < SHARE_ALL:",
    ),
    change(
        "the cap is rounded up",
        "No power is above its share.",
        DPOS,
        "value = cap_bp * others // (SHARE_ALL - capped * cap_bp)",
        "value = -(-cap_bp * others // (SHARE_ALL - capped * cap_bp))",
    ),
    change(
        "equal powers are rounded up",
        "The mean is rounded down.",
        DPOS,
        "Power(max(1, sum(stakes) // max(1, count)))",
        "Power(max(1, -(-sum(stakes) // max(1, count))))",
    ),
    change(
        "a commission is rounded up",
        "The commission is rounded down.",
        DPOS,
        "reward - reward * commission_bp // SHARE_ALL",
        "reward * (SHARE_ALL - commission_bp) // SHARE_ALL",
    ),
    change(
        "odd units of a reward are lost",
        "The parts add up to the reward.",
        DPOS,
        "parts.get(validator, 0) + reward - sum(parts.values())",
        "parts.get(validator, 0) + reward - shared",
    ),
    change(
        "what is left after slashing is rounded up",
        "No dust escapes.",
        DPOS,
        "amount * (SHARE_ALL - slash_bp) // SHARE_ALL",
        "amount - amount * slash_bp // SHARE_ALL",
    ),
    change(
        "the floor of knowledge is 999",
        "Knowledge counts as at least a tenth.",
        PROPOSER,
        "KNOWLEDGE_FLOOR_BP = 1_000",
        "KNOWLEDGE_FLOOR_BP = 999",
    ),
    change(
        "pok adds power and knowledge",
        "The weight is power times knowledge.",
        PROPOSER,
        "return power * max(knowledge_bp",
        "return power + max(knowledge_bp",
    ),
    change("pos counts one more", "The weight is the power.", PROPOSER, "return int(power)", "return int(power) + 1"),
    change(
        "poq forgets the floor",
        "Nobody's weight is below the floor.",
        PROPOSER,
        "    return max(knowledge_bp, KNOWLEDGE_FLOOR_BP)",
        "    return max(knowledge_bp, 1)",
    ),
    change(
        "a newcomer starts 1.25 totals behind",
        "It is 1.125 totals.",
        PROPOSER,
        "-(total + total // 8) if known",
        "-(total + total // 4) if known",
    ),
    change(
        "a tie of priorities goes to the highest address",
        "It goes to the lowest.",
        PROPOSER,
        "key=lambda address: (-standing[address], address)",
        "key=lambda address: (-standing[address], bytes(255 - byte for byte in address))",
    ),
    change(
        "priorities may be three totals apart",
        "They are two totals apart at most.",
        PROPOSER,
        "in sorted(weights)}, 2 * total",
        "in sorted(weights)}, 3 * total",
    ),
    change(
        "the ratio that priorities shrink by is rounded down",
        "It is rounded up, so that they fit.",
        PROPOSER,
        "ratio = -(-spread // spread_max)",
        "ratio = spread // spread_max",
    ),
    change(
        "negative priorities shrink away from zero",
        "All shrink towards zero.",
        PROPOSER,
        "else -(-priority // ratio) for",
        "else priority // ratio for",
    ),
    change(
        "the average of priorities is rounded up",
        "It is rounded down.",
        PROPOSER,
        "average = sum(standing.values()) // len(standing)",
        "average = -(-sum(standing.values()) // len(standing))",
    ),
    change(
        "a leader pays one less",
        "A leader pays the total weight.",
        PROPOSER,
        "standing[proposer] -= total",
        "standing[proposer] -= total - 1",
    ),
)
