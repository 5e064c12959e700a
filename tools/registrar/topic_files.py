"""The files that say who may use which topic, made from `flchain.wire.topics`: brokers' rules, and the table in docs.

`python -m tools.registrar.topic_files` writes them in a clone, after a change of the table.
"""

from __future__ import annotations

from pathlib import Path

from flchain.wire.topics import CHANNEL_RULES, ROOT, Channel, ChannelRule, Grants, Listener, Role, list_grants

CLONE = Path(__file__).parents[2]
EVERYBODY_PATH = "firmware_config/broker/mosquitto.acl.in"
MINER_PATH = "firmware_config/broker/mosquitto-miner.acl.in"
OPERATOR_PATH = "firmware_config/broker/mosquitto-operator.acl.in"
PAGE_PATH = "docs/protocol.md"

MADE = "made by `python -m tools.registrar.topic_files` from flchain/wire/topics.py"
PREFIX = ROOT + "/${chain}"
PAGE_BEGIN, PAGE_END = f"<!-- topics: {MADE} -->\n\n", "\n<!-- end of topics -->\n"
NAMES = {Role.MINER: "a miner", Role.OPERATOR: "the operator"}
ORDER = {Listener.MINER: "miners", Listener.FULL: "full devices", Listener.LIGHT: "light devices"}


def build_everybody() -> str:
    """Return mosquitto's rules for every node, as a template with `chain` and `users`."""
    grants = list_grants(PREFIX, "%u", Role.DEVICE)
    head = [
        f"# {MADE[0].upper()}{MADE[1:]}.",
        "# ${chain} names the chain; %u is the address in the certificate.",
        "",
        "# Every node, miners and operators too: publishes under its own address only, reads what miners publish, what",
        "# is for it, and the operator's releases.",
    ]
    return "\n".join([*head, *_list_lines("pattern", grants), "${users}\n"])


def build_member(role: Role) -> str:
    """Return mosquitto's rules for one miner or operator, a template: what it may do beyond every node."""
    every, member = (list_grants(PREFIX, "${address}", known) for known in (Role.DEVICE, role))
    grants = Grants(
        tuple(text for text in member.publish if text not in every.publish),
        tuple(text for text in member.subscribe if text not in every.subscribe),
    )
    return "\n".join(["", f"# {NAMES[role]}", "user ${address}", *_list_lines("topic", grants), ""])


def _list_lines(word: str, grants: Grants) -> list[str]:
    return [f"{word} write {text}" for text in grants.publish] + [f"{word} read {text}" for text in grants.subscribe]


def build_table() -> str:
    """Return the table of docs/protocol.md, between its marks."""
    lines = [
        "| topic | may publish | may read | subscribe, at QoS | packets (in chunks if long) | content |",
        "| --- | --- | --- | --- | --- | --- |",
        *(_build_row(rule) for rule in CHANNEL_RULES.values()),
    ]
    return PAGE_BEGIN + "\n".join(lines) + "\n" + PAGE_END


def _build_row(rule: ChannelRule) -> str:
    packets = ", ".join(
        carried.type.name + (" (retained)" if carried.is_retained else "") + ("" if carried.qos else " (QoS 0)")
        for carried in rule.carries
    )
    cells = (
        f"`{rule.role}/<me>/{rule.channel}" + ("/<node>`" if rule.is_addressed else "`"),
        {Role.DEVICE: "every node", Role.MINER: "miners", Role.OPERATOR: "the operator"}[rule.role],
        "that node" if rule.is_addressed else _name_readers(rule),
        ", ".join(f"{ORDER[listener]} {qos}" for listener, qos in rule.heard.items()),
        packets,
        rule.content,
    )
    return f"| {' | '.join(cells)} |"


def _name_readers(rule: ChannelRule) -> str:
    if not rule.is_for_miners:
        return "every node"
    return "miners, the operator" if rule.channel is Channel.STATUS else "miners"


def replace_table(page: str) -> str:
    """Return the page with today's table in it. Raise ValueError if the page has no marks."""
    before, begin, rest = page.partition(PAGE_BEGIN)
    _, end, after = rest.partition(PAGE_END)
    if not begin or not end:
        raise ValueError(f"{PAGE_PATH} has lost the marks around its table of topics")
    return before + build_table() + after


def build_files(clone: Path = CLONE) -> dict[str, str]:
    """Return what each of the files has to hold, by its path in a clone."""
    page = replace_table((clone / PAGE_PATH).read_text())
    members = {MINER_PATH: build_member(Role.MINER), OPERATOR_PATH: build_member(Role.OPERATOR)}
    return {EVERYBODY_PATH: build_everybody(), **members, PAGE_PATH: page}


if __name__ == "__main__":
    for path, text in build_files().items():
        (CLONE / path).write_text(text)
