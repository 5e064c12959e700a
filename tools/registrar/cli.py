"""`flchain registrar`: init, token, serve, sign, revoke, list, network, broker."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from flchain.base.errors import ConfigError
from flchain.base.types import ADDRESS_BYTES
from flchain_edge.enrolment.enrol import format_time
from flchain_edge.enrolment.messages import REQUEST_BYTES_MAX, ROLES, EnrolRequest, format_token, read_hex
from flchain_edge.keys.keystore import load_passphrase
from flchain_edge.keys.private_files import create_private
from flchain_edge.logs.setup import setup_logging
from flchain_edge.mqtt.settings import parse_endpoint
from flchain_edge.process.command_line import CommandParser, add_command
from flchain_edge.process.event_loop import run_until_signal
from flchain_edge.process.sd_notify import Notifier
from flchain_edge.settings.config import load_config
from tools.registrar.authority import Authority
from tools.registrar.broker_files import KINDS, BrokerPlan, read_clock_s, render_broker
from tools.registrar.enroller import FILE_NAMES, SETTINGS_FILE, Enroller, RegistrarSettings, find_registrar
from tools.registrar.register import REGISTER_FILE
from tools.registrar.server import RegistrarServer

DEFAULT_FOLDER = Path("/var/lib/flchain-registrar")
PASSPHRASE_VARIABLE = "FLCHAIN_REGISTRAR_PASSPHRASE"
TOKENS_MAX = 1_000
HOUR_S = 3_600
TOKEN_HOURS_MAX = 8_760
"""A year: longer than any roll-out, and short enough that nobody forgets where the token is written down."""

Act = Callable[[Enroller, argparse.Namespace], None]


def run_init(folder: Path, arguments: argparse.Namespace) -> None:
    """Make a registrar in a folder, or nothing at all if a setting is wrong. Raise ConfigError."""
    text = _render_settings(arguments)
    _check_settings(text)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (folder / SETTINGS_FILE).exists():
            raise ConfigError((f"{folder}: already holds a registrar",))
        authority = Authority.create(folder, arguments.name, _load_passphrase(arguments), read_clock_s())
        create_private(folder / SETTINGS_FILE, text.encode())
    except OSError as error:
        raise ConfigError((f"{error.filename or folder}: {error.strerror or error}",)) from error
    print(f"{folder}: a registrar whose authority has fingerprint {authority.fingerprint.hex()}")
    print("keep a copy of this folder where only you can read it: ca-key.pem can make any certificate")


def _render_settings(arguments: argparse.Namespace) -> str:
    # Texts and lists look the same in JSON and TOML.
    values = {
        "name": arguments.name,
        "host": arguments.host,
        "port": arguments.port,
        "brokers": arguments.broker,
        "certificate_days": arguments.days,
        **({"bind": arguments.bind} if arguments.bind else {}),
    }
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


def _check_settings(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / SETTINGS_FILE
        path.write_text(text)
        load_config(path, RegistrarSettings)


def run_token(enroller: Enroller, arguments: argparse.Namespace) -> None:
    """Print tokens, one for each line of stdout, and what they are for on stderr."""
    address = _lower_address(arguments.address)
    if address and not read_hex(address, ADDRESS_BYTES):
        raise ConfigError((f"--address: must be {2 * ADDRESS_BYTES} hexadecimal digits",))
    home = _find_home(enroller, arguments.home) if arguments.home else ""
    if not 1 <= arguments.count <= TOKENS_MAX:
        raise ConfigError((f"--count: must be 1..{TOKENS_MAX}",))
    if not 1 <= arguments.hours <= TOKEN_HOURS_MAX:
        raise ConfigError((f"--hours: must be 1..{TOKEN_HOURS_MAX}",))
    valid_s, clock_s = arguments.hours * HOUR_S, read_clock_s()
    for _ in range(arguments.count):
        print(format_token(enroller.make_token(arguments.role, address, home, valid_s, clock_s)))
    print(
        f"for one {arguments.role} each, until {format_time(clock_s + valid_s)}; treat as a password", file=sys.stderr
    )


def _lower_address(text: str) -> str:
    """Return an address in lower case, as the register keeps it, and anything else unchanged."""
    return text.lower() if read_hex(text, ADDRESS_BYTES) else text


def _find_home(enroller: Enroller, text: str) -> str:
    text = text.lower()
    for node in enroller.register.list_nodes():
        if text in (node.address, node.public_key) and node.role == "miner" and not node.revoked_s:
            return node.public_key
    raise ConfigError((f"--home: no miner {text} has enrolled here",))


def run_serve(enroller: Enroller, arguments: argparse.Namespace) -> None:
    """Answer nodes until stopped by a signal."""
    setup_logging("info", times=True)
    asyncio.run(_serve(enroller))


async def _serve(enroller: Enroller) -> None:
    server, settings, notifier = RegistrarServer(enroller), enroller.settings, Notifier()
    try:
        await server.start(settings.bind, settings.port)
    except OSError as error:
        raise ConfigError((f"{SETTINGS_FILE}: bind {settings.bind} port {settings.port}: {error.strerror}",)) from error
    logging.getLogger("registrar").info("serving", extra={"host": settings.host, "port": server.port})
    notifier.send("READY=1", f"STATUS=serving {settings.host}:{server.port}")
    await run_until_signal(asyncio.create_task(_wait_for_ever()))
    notifier.send("STOPPING=1")
    await server.stop()


async def _wait_for_ever() -> None:
    await asyncio.Event().wait()


def run_sign(enroller: Enroller, arguments: argparse.Namespace) -> None:
    """Answer a request that came in a file, from a node that cannot reach the registrar. Raise RequestRefused."""
    if arguments.out.exists():
        raise ConfigError((f"--out {arguments.out}: already exists, and is never overwritten",))
    try:
        data = arguments.request.read_bytes()[: REQUEST_BYTES_MAX + 1]
        request = msgspec.json.decode(data, type=EnrolRequest)
        answer = enroller.enrol(request, read_clock_s(), "file")
        create_private(arguments.out, msgspec.json.encode(answer))
    except OSError as error:
        raise ConfigError((f"{error.filename}: {error.strerror}",)) from error
    except msgspec.DecodeError as error:
        raise ConfigError((f"{arguments.request}: is not a request: {error}",)) from error
    print(f"{arguments.out}: take it back to the node")


def run_revoke(enroller: Enroller, arguments: argparse.Namespace) -> None:
    """Revoke by name: an address, or the host of a server."""
    name = _lower_address(arguments.name)
    if enroller.register.get_node(name) is None and not enroller.register.list_certificates(name):
        raise ConfigError((f"{name}: this registrar has given it no certificate; see: flchain registrar list",))
    count = enroller.revoke(name, read_clock_s())
    print(f"{name}: revoked, {count} certificates")
    print("brokers do not know yet: run `flchain registrar broker` again for each and reload it (docs/security.md)")


def run_list(enroller: Enroller, arguments: argparse.Namespace) -> None:
    """Print nodes and the certificates that are valid, for people or as JSON."""
    clock_s = read_clock_s()
    good = [made for made in enroller.register.list_certificates() if made.not_after_s > clock_s and not made.revoked_s]
    ends = {made.name: made.not_after_s for made in good}
    rows = [
        {
            "address": node.address,
            "role": node.role,
            "public_key": node.public_key,
            "home": node.home,
            "is_revoked": bool(node.revoked_s),
            "good_until": format_time(ends[node.address]) if node.address in ends else None,
        }
        for node in enroller.register.list_nodes()
    ]
    rows += [
        {"address": made.name, "role": "server", "is_revoked": False, "good_until": format_time(made.not_after_s)}
        for made in good
        if made.role == "server"
    ]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    if not rows:
        print("no node has enrolled yet; give it a token: flchain registrar token", file=sys.stderr)
    for row in rows:
        state = "revoked" if row["is_revoked"] else f"until {row['good_until']}" if row["good_until"] else "expired"
        print(f"{row['address']}  {row['role']:<7} {state}")


def run_network(enroller: Enroller, arguments: argparse.Namespace) -> None:
    """Print the [[validators]] and [[devices]] of a network file: the nodes that have enrolled. Raise ConfigError."""
    nodes = [node for node in enroller.register.list_nodes() if not node.revoked_s]
    miners = [node for node in nodes if node.role == "miner"]
    devices = [node for node in nodes if node.role == "device"]
    if devices and not miners:
        raise ConfigError(("no miner has enrolled yet: every device needs one as its home",))
    lines = [f"# {len(miners)} miners and {len(devices)} devices that have enrolled with {enroller.settings.name}"]
    lines += [f'\n[[validators]]  # {node.address}\npublic_key = "{node.public_key}"' for node in miners]
    for number, node in enumerate(devices):
        home = node.home or miners[number % len(miners)].public_key
        lines.append(f'\n[[devices]]  # {node.address}\npublic_key = "{node.public_key}"\nhome = "{home}"')
    print("\n".join(lines))
    files = " and ".join(FILE_NAMES.values())
    print(f"next: flchain genesis make; put {files} into {enroller.folder} for the nodes to fetch", file=sys.stderr)


def run_broker(enroller: Enroller, arguments: argparse.Namespace) -> None:
    """Write a broker's files."""
    default = parse_endpoint(enroller.settings.brokers[0])
    try:
        bridges = tuple(parse_endpoint(text) for text in arguments.bridge)
    except ValueError as error:
        raise ConfigError((f"--bridge: {error}",)) from error
    plan = BrokerPlan(
        kind=arguments.kind,
        host=arguments.host or default.host,
        port=arguments.port or default.port,
        bind=arguments.bind,
        folder=arguments.install_dir or arguments.out.resolve(),
        data=arguments.data or Path("/var/lib/mosquitto" if arguments.kind == "mosquitto" else "/var/lib/nats"),
        user=arguments.user,
        bridges=bridges,
        peers=tuple(arguments.peer),
    )
    path = render_broker(enroller, plan, arguments.out, read_clock_s())
    print(f"{path}: for {plan.host}:{plan.port}; let the broker read the files, and nobody else server-key.pem")


def _build_parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="flchain registrar",
        description="Enrol boards and miners; set up brokers. docs/security.md explains the order of things.",
        epilog="examples:\n"
        "  flchain registrar init --host edge.local --broker edge.local:8883\n"
        "  flchain registrar token --count 10 --hours 48\n"
        "  flchain registrar serve\n"
        "  flchain registrar broker --kind mosquitto --out /etc/mosquitto/flchain",
    )
    common = CommandParser(add_help=False)
    common.add_argument(
        "--dir", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help=f"of the registrar (default: {DEFAULT_FOLDER})"
    )
    text = f"file with the passphrase of the authority's key (default: {PASSPHRASE_VARIABLE}, a credential, or none)"
    common.add_argument("--passphrase-file", type=Path, metavar="FILE", help=text)
    actions = parser.add_subparsers(dest="action", required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return add_command(actions, name, text, parents=[common])

    init = add("init", "make a registrar: authority, settings, register")
    init.add_argument("--name", default="field", help="of the network (default: field)")
    init.add_argument("--host", required=True, help="name or address by which nodes reach the registrar")
    init.add_argument("--port", type=int, default=8443, metavar="N", help="its port (default: 8443)")
    init.add_argument("--bind", default="", help="address to listen on (default: all)")
    init.add_argument("--broker", action="append", required=True, metavar="HOST:PORT", help="a broker; can be repeated")
    init.add_argument("--days", type=int, default=30, metavar="N", help="life of a node's certificate (default: 30)")
    token = add("token", "make tokens, each of which lets one node enrol")
    token.add_argument("--role", choices=ROLES, default="device", help="of the node (default: device)")
    token.add_argument("--address", default="", help="only for the node with this address")
    token.add_argument("--home", default="", help="the device's miner (default: the one with fewest devices)")
    token.add_argument("--hours", type=int, default=24, metavar="N", help="how long it is valid (default: 24)")
    token.add_argument("--count", type=int, default=1, metavar="N", help="how many tokens (default: 1)")
    add("serve", "answer nodes that enrol, renew and fetch files")
    sign = add("sign", "answer a request in a file, for a node that cannot reach the registrar")
    sign.add_argument("--request", type=Path, required=True, metavar="FILE", help="from: enroll --request")
    sign.add_argument("--out", type=Path, required=True, metavar="FILE", help="the answer; never overwritten")
    revoke = add("revoke", "revoke a node or a server and all its certificates")
    revoke.add_argument("name", help="the node's address, or the server's host")
    listing = add("list", "show which nodes have enrolled, and until when their certificates are valid")
    listing.add_argument("--json", action="store_true", help="print JSON, for programs")
    add("network", "print validators and devices for the file that `flchain genesis make` reads")
    _add_broker_arguments(add("broker", "write a broker's configuration, rules, certificates and revocation list"))
    return parser


def _add_broker_arguments(broker: argparse.ArgumentParser) -> None:
    broker.add_argument("--kind", choices=KINDS, default="mosquitto", help="of broker (default: mosquitto)")
    broker.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the files are written")
    broker.add_argument("--host", default="", help="the broker's name, as nodes call it (default: the first broker's)")
    broker.add_argument("--port", type=int, default=0, metavar="N", help="its port (default: the first broker's)")
    broker.add_argument("--bind", default="0.0.0.0", help="address to listen on (default: all)")
    broker.add_argument("--install-dir", type=Path, metavar="DIR", help="where they will be used (default: --out)")
    broker.add_argument("--data", type=Path, metavar="DIR", help="the broker's own data (default: /var/lib/KIND)")
    broker.add_argument("--user", default="", help="mosquitto: run as this user (default: mosquitto's own choice)")
    text = "mosquitto: another broker to connect to; can be repeated"
    broker.add_argument("--bridge", action="append", default=[], metavar="HOST:PORT", help=text)
    text = "mosquitto: host of a broker that connects to this one; can be repeated"
    broker.add_argument("--peer", action="append", default=[], metavar="HOST", help=text)


def _load_passphrase(arguments: argparse.Namespace) -> str | None:
    is_set = bool(os.environ.get(PASSPHRASE_VARIABLE)) and arguments.passphrase_file is None
    return load_passphrase(PASSPHRASE_VARIABLE if is_set else None, arguments.passphrase_file)


ACTIONS: dict[str, Act] = {
    "token": run_token,
    "serve": run_serve,
    "sign": run_sign,
    "revoke": run_revoke,
    "list": run_list,
    "network": run_network,
    "broker": run_broker,
}


def main(argv: Sequence[str]) -> int:
    """Entry point of `flchain registrar`. Raise ConfigError, RequestRefused."""
    arguments = _build_parser().parse_args(argv)
    if arguments.action == "init":
        run_init(arguments.dir, arguments)
        return 0
    find_registrar(arguments.dir)
    enroller = Enroller.open(arguments.dir, _load_passphrase(arguments))
    try:
        ACTIONS[arguments.action](enroller, arguments)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ConfigError((f"{error.filename or arguments.dir}: {error.strerror or error}",)) from error
    except sqlite3.Error as error:
        raise ConfigError((f"{arguments.dir / REGISTER_FILE}: {error}",)) from error
    finally:
        enroller.register.close()
    return 0
