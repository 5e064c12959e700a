"""All rules by name as docs/rules.md. After a change of a rule or of its docstring: `python -m
tests.support.rules_page`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

from flchain.aggregation import AGGREGATION_RULES
from flchain.codecs import CODECS, DOWNSTREAM_RULES
from flchain.consensus import CONSENSUS_RULES, PROPOSER_RULES, bft, pow
from flchain.incentives import REWARD_RULES
from flchain.privacy import MECHANISMS

PATH = Path(__file__).parents[2] / "docs" / "rules.md"
INTRODUCTION = """\
# The rules that a chain chooses by name

Made from the tables in `flchain/` by `python -m tests.support.rules_page`: do not edit. A genesis names one rule of
each kind, and all nodes of the chain use it; a node that does not know a name refuses to start and lists the known
ones. `flchain genesis` takes the same names.
"""
AGREEMENT: dict[str, ModuleType] = {"bft": bft, "pow": pow}
"""Where each way of agreement is written."""


def describe(documented: object) -> str:
    """Return the first sentence of a docstring."""
    text = " ".join((inspect.getdoc(documented) or "").split("\n\n")[0].split())
    found = re.match(r"(.*?)\.(?= [A-Z]|$)", text)
    assert found, f"{documented} begins with a sentence"
    return found[1]


def _describe_module_of(function: Callable[..., object]) -> str:
    return describe(inspect.getmodule(function))


def _build_section(key: str, text: str, head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"## `{key}`", "", text, "", f"| name | {' | '.join(head)} |", "| --- " * (len(head) + 1) + "|"]
    return "\n".join([*lines, *(f"| `{row[0]}` | {' | '.join(row[1:])} |" for row in rows)]) + "\n"


def build_page() -> str:
    """Return the whole page."""
    codecs = (
        (name, _describe_module_of(codec.encode), codec.level_meaning, str(codec.level_default))
        for name, codec in CODECS.items()
    )
    downloads = ((name, CODECS[name].level_meaning) for name in DOWNSTREAM_RULES)
    aggregation = (
        (name, _describe_module_of(rule.aggregate), "yes" if rule.is_linear else "no")
        for name, rule in AGGREGATION_RULES.items()
    )
    consensus = (
        (name, describe(AGREEMENT[name]), "yes" if rule.is_final_at_once else "no")
        for name, rule in CONSENSUS_RULES.items()
    )
    sections = (
        _build_section(
            "codec",
            "How a device compresses its update (`docs/compression.md`). `codec_level` is the codec's own number.",
            ("what is sent", "`codec_level`", "default"),
            codecs,
        ),
        _build_section(
            "downstream_codec",
            "How the change that a settled round makes is compressed for the download, as the codec of the same name "
            "compresses. `downstream_level` is that codec's number.",
            ("`downstream_level`",),
            downloads,
        ),
        _build_section(
            "aggregation",
            "How accepted updates become one change of the model. Only a linear rule can aggregate sketches.",
            ("how", "linear"),
            aggregation,
        ),
        _build_section(
            "privacy",
            "What a device does to its update before the codec.",
            ("how",),
            ((name, _describe_module_of(rule)) for name, rule in MECHANISMS.items()),
        ),
        _build_section(
            "reward_rule",
            "How a settled round pays the devices whose updates were accepted (`docs/staking.md`).",
            ("how",),
            ((name, describe(rule)) for name, rule in REWARD_RULES.items()),
        ),
        _build_section(
            "proposer_rule",
            "What weights a validator's turns to propose (`docs/consensus.md`).",
            ("weight",),
            ((name, describe(rule)) for name, rule in PROPOSER_RULES.items()),
        ),
        _build_section(
            "consensus",
            "How a block becomes final. A real network runs `bft`; `pow` is for comparisons in the simulator.",
            ("how", "final at once"),
            consensus,
        ),
    )
    return INTRODUCTION + "\n" + "\n".join(sections)


if __name__ == "__main__":
    PATH.write_text(build_page(), encoding="utf-8")
