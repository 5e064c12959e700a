"""`flchain stake`: look at stake in a ledger, and send orders: pay, register, delegate, take back, leave jail.

An order goes to the miners over MQTT like a device's messages, under the sender's own address. They answer with a
signed receipt: the order waits for a block, or why it does not. Only a ledger shows that it is final.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agent.settings import AgentSettings
from flchain.base.crypto import Identity, compute_address
from flchain.base.errors import ConfigError, InvalidMessage
from flchain.base.types import ADDRESS_BYTES, HASH_BYTES, SHARE_ALL, Address
from flchain.ledger.state import find_account
from flchain.rules.orders import process_order
from flchain.wire.envelope import open_envelope, seal
from flchain.wire.messages import AnyMessage, Delegate, Register, Transfer, Undelegate, Unjail
from flchain_edge.keys.keystore import load_or_create_identity, load_passphrase
from flchain_edge.mqtt.settings import MqttSettings
from flchain_edge.process.chain_files import load_genesis
from flchain_edge.process.command_line import CommandParser, add_command
from flchain_edge.settings.config import load_config
from miner.edge.ledger.ledger import LEDGER_FILE
from tools.inspect.audit import find_ledgers
from tools.inspect.stake_send import Access, OrderFailed, judge, publish, wait_until_final
from tools.inspect.stake_view import LedgerView, format_view, to_json

SELF = "self"


# --- what the user has given -----------------------------------------------------------------------------------------


def _open_access(arguments: argparse.Namespace) -> Access:
    path = find_ledgers(arguments.data)[0] if arguments.data is not None else None
    if arguments.config is not None:
        settings = load_config(arguments.config, AgentSettings)  # these include all that a miner's file may have
        own = Path(settings.data_dir) / LEDGER_FILE
        path = path or (own if own.is_file() else None)
        ledger = LedgerView(path) if path is not None else None
        passphrase = load_passphrase(settings.key.passphrase_env, settings.key.passphrase_file)
        identity = _load_key(arguments.key or settings.key.file, passphrase)
        return _check_chain(Access(load_genesis(settings.genesis), identity, settings.mqtt, ledger))
    if arguments.key is None or (arguments.genesis is None and path is None):
        raise ConfigError(("stake: give --config FILE, or --key FILE and --genesis FILE (or --data with a ledger)",))
    ledger = LedgerView(path) if path is not None else None
    genesis = load_genesis(arguments.genesis) if arguments.genesis is not None else None
    identity = _load_key(arguments.key, load_passphrase(arguments.passphrase_env, None))
    mqtt = MqttSettings(
        arguments.host,
        arguments.port,
        username=arguments.username,
        password=os.environ.get("FLCHAIN_MQTT_PASSWORD"),
        tls_ca=arguments.tls_ca,
        tls_certificate=arguments.tls_certificate,
        tls_key=arguments.tls_key,
    )
    if genesis is None:
        assert ledger is not None, "checked above"
        genesis = ledger.genesis
    return _check_chain(Access(genesis, identity, mqtt, ledger))


def _check_chain(access: Access) -> Access:
    if access.ledger is not None and access.ledger.state.chain != access.genesis.compute_id():
        raise ConfigError((f"ledger {access.ledger.path}: belongs to another chain than the genesis",))
    return access


def _load_key(path: Path, passphrase: str | None) -> Identity:
    if not path.is_file():  # a new key would own nothing
        raise ConfigError((f"key file {path}: No such file or directory",))
    return load_or_create_identity(path, passphrase)


def _read_address(text: str) -> Address:
    """Read an address, or the public key that it belongs to. Raise argparse's error."""
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if len(data) == HASH_BYTES:
        return compute_address(data)
    if len(data) != ADDRESS_BYTES:
        raise argparse.ArgumentTypeError(f"{text!r} is not an address ({2 * ADDRESS_BYTES} hex digits) or public key")
    return Address(data)


def _read_candidate(text: str) -> Address | None:
    return None if text == SELF else _read_address(text)


def _read_public_key(text: str) -> bytes:
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if len(data) != HASH_BYTES:
        raise argparse.ArgumentTypeError(f"{text!r} is not a public key ({2 * HASH_BYTES} hex digits)")
    return data


def _read_amount(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 2**53:
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount: whole numbers of the smallest unit, from 1")
    return int(text)


def _read_percent(text: str) -> int:
    """Read a percentage; return basis points."""
    try:
        share = round(float(text) * 100)
    except (ValueError, OverflowError):
        share = -1
    if not 0 <= share <= SHARE_ALL:
        raise argparse.ArgumentTypeError(f"{text!r} is not a percentage from 0 to 100")
    return share


def _get_candidate(access: Access, arguments: argparse.Namespace) -> Address:
    return arguments.candidate or access.identity.address


BUILDERS: dict[str, Callable[[Access, int, argparse.Namespace], AnyMessage]] = {
    "transfer": lambda _, sequence, given: Transfer(sequence, given.to, given.amount),
    "register": lambda _, sequence, given: Register(sequence, given.commission_percent, given.amount),
    "delegate": lambda access, sequence, given: Delegate(sequence, _get_candidate(access, given), given.amount),
    "undelegate": lambda access, sequence, given: Undelegate(sequence, _get_candidate(access, given), given.amount),
    "unjail": lambda _, sequence, __: Unjail(sequence),
}


# --- sending ---------------------------------------------------------------------------------------------------------


def _get_sequence(access: Access, given: int | None) -> int:
    if given is not None:
        return given
    if access.ledger is None:
        raise ConfigError(("stake: the order's number is unknown: give --sequence, or --data with a ledger",))
    me = access.identity.address
    account = find_account(access.ledger.state, me)
    if account is None:
        key = access.identity.public_key.hex()
        raise ConfigError((f"{me.hex()} has no account at height {access.ledger.state.height}; pay to {key} first",))
    return account.sequence


def _try_out(access: Access, message: AnyMessage) -> str | None:
    """Try the order on the ledger's newest state; return a warning or None. Raise OrderFailed if a rule refuses it."""
    if access.ledger is None:
        return None
    state, me = access.ledger.state, access.identity.address
    try:
        after = process_order(state, message, me)
    except InvalidMessage as error:
        raise OrderFailed(f"not sent, {error.code} at height {state.height}: {error}") from error
    account = find_account(after, me)
    if account is not None and account.balance < after.params.order_fee:
        return f"{account.balance} is left, less than one fee ({after.params.order_fee}): no more orders until it earns"
    return None


def _send(arguments: argparse.Namespace) -> dict[str, Any]:
    access = _open_access(arguments)
    if arguments.wait and access.ledger is None:
        raise ConfigError(("stake: --wait needs a ledger: give --data",))
    sequence = _get_sequence(access, arguments.sequence)
    message = BUILDERS[arguments.action](access, sequence, arguments)
    warning = _try_out(access, message) if arguments.sequence is None else None
    raw = seal(message, access.genesis.compute_id(), access.identity)
    said = asyncio.run(publish(access, raw, arguments.timeout))
    told = {
        "order": arguments.action,
        "sender": access.identity.address.hex(),
        "sequence": sequence,
        "digest": open_envelope(raw, access.genesis.compute_id()).digest().hex(),
        "taken_by": judge(said, arguments.timeout),
        "height": None,
        "warning": warning,
    }
    if arguments.wait and access.ledger is not None:
        me = access.identity.address
        told["height"] = wait_until_final(access.ledger, raw, me, sequence, arguments.timeout)
    return told


def _format_sent(told: dict[str, Any]) -> str:
    line = f"{told['order']}: order {told['sequence']} of {told['sender']}, accepted by miner {told['taken_by']}"
    line += f", final in block {told['height']}" if told["height"] is not None else ", waits for a block"
    return line if told["warning"] is None else f"{line}\nwarning: {told['warning']}"


# --- the command -----------------------------------------------------------------------------------------------------


def _add_show(actions: Any) -> None:
    show = add_command(actions, "show", "candidates and one account")
    show.add_argument("--data", type=Path, required=True, metavar="PATH", help="a ledger, a miner's or a demo's folder")
    who = show.add_mutually_exclusive_group()
    who.add_argument("--account", type=_read_address, metavar="ADDRESS", help="an address or a public key")
    who.add_argument("--key", type=Path, metavar="FILE", help="the account of this key")
    show.add_argument("--passphrase-env", metavar="NAME", help="environment variable with the key's passphrase")
    show.add_argument("--json", action="store_true", help="one JSON object")


def _add_access(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="a miner.toml or agent.toml: all of the below")
    parser.add_argument("--key", type=Path, metavar="FILE", help="the key that signs")
    parser.add_argument("--passphrase-env", metavar="NAME", help="environment variable with the key's passphrase")
    parser.add_argument("--genesis", type=Path, metavar="FILE", help="the chain; not needed with --data")
    parser.add_argument("--data", type=Path, metavar="PATH", help="a ledger, a miner's or a demo's folder")
    parser.add_argument("--host", default="127.0.0.1", help="the broker (default: %(default)s)")
    parser.add_argument("--port", type=int, default=1883, metavar="N", help="its port (default: %(default)s)")
    parser.add_argument("--username", help="only if the broker asks; the password is FLCHAIN_MQTT_PASSWORD")
    for name, text in (("ca", "who signs brokers' certificates"), ("certificate", "sender's"), ("key", "sender's")):
        parser.add_argument(f"--tls-{name}", type=Path, metavar="FILE", help=f"TLS: {text}")
    parser.add_argument("--sequence", type=int, metavar="N", help="the order's number; default: the ledger's next one")
    parser.add_argument("--wait", action="store_true", help="wait until the order is in a final block of the ledger")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="S", help="seconds (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def _build_parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="flchain stake",
        description="Look at stake in a ledger, and send orders about it. See docs/staking.md for what they mean.",
        epilog="examples:\n"
        "  flchain stake show --data /var/lib/flchain-miner\n"
        "  flchain stake register --config miner.toml --amount 500 --wait\n"
        "  flchain stake delegate --key me.pem --data /srv/miner --amount 50 \\\n"
        "    --candidate ADDRESS\n\n"
        "Exit code: 0 done, 1 refused or no answer, 78 wrong options or files.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="COMMAND")
    _add_show(actions)
    texts = {
        "transfer": "pay to a public key; make its account if there is none",
        "register": "become a candidate, with a bond of your own",
        "delegate": "put stake behind a candidate",
        "undelegate": "take stake back; it is paid out after the unbonding delay",
        "unjail": "become electable again, once the time in jail is over",
    }
    for name, text in texts.items():
        action = add_command(actions, name, text)
        if name == "transfer":
            action.add_argument("--to", type=_read_public_key, required=True, metavar="KEY", help="a public key")
        if name == "register":
            help_text = "share of rewards kept before delegators get theirs (default: 10)"
            action.add_argument("--commission-percent", type=_read_percent, default=1_000, metavar="P", help=help_text)
        if name in ("delegate", "undelegate"):
            help_text = f'address, public key, or "{SELF}"'
            action.add_argument("--candidate", type=_read_candidate, required=True, metavar="WHO", help=help_text)
        if name != "unjail":
            action.add_argument("--amount", type=_read_amount, required=True, metavar="N", help="in the smallest unit")
        _add_access(action)
    return parser


def _show(arguments: argparse.Namespace) -> None:
    view = LedgerView(find_ledgers(arguments.data)[0])
    asked: Address | None = arguments.account
    if arguments.key is not None:
        asked = _load_key(arguments.key, load_passphrase(arguments.passphrase_env, None)).address
    found = to_json(view.genesis.name, view.state, asked)
    print(json.dumps(found) if arguments.json else format_view(found, asked))


def main(argv: Sequence[str]) -> int:
    """Entry point of `flchain stake`."""
    arguments = _build_parser().parse_args(argv)
    if arguments.action == "show":
        _show(arguments)
    else:
        told = _send(arguments)
        print(json.dumps(told) if arguments.json else _format_sent(told))
    return 0
