"""A broker's configuration from the templates in firmware_config/broker: mutual TLS, and topic rules for each node."""

from __future__ import annotations

import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from string import Template

from flchain.base.errors import ConfigError
from flchain.ledger.genesis import Genesis
from flchain.wire.topics import ROOT, Role, Topics, list_grants
from flchain_edge.keys.private_files import replace_private
from flchain_edge.mqtt.settings import Endpoint
from flchain_edge.process.chain_files import load_genesis
from tools.registrar.authority import SERVER_DAYS, read_server
from tools.registrar.enroller import DAY_S, FILE_NAMES, RENEW_FRACTION, Enroller

KINDS = ("mosquitto", "nats")
CONFIG_FILES = {"mosquitto": "mosquitto.conf", "nats": "nats.conf"}
CONNECTIONS_MAX = 10_000


@dataclass(frozen=True)
class BrokerPlan:
    """How one broker is to be set up. It will find these files in `folder`, and keep its own data in `data`."""

    kind: str
    host: str
    port: int
    bind: str
    folder: Path
    data: Path
    user: str = ""
    bridges: tuple[Endpoint, ...] = ()
    """Brokers that this one connects to; mosquitto only."""
    peers: tuple[str, ...] = ()
    """Hosts whose brokers connect to this one."""

    @property
    def is_bridge(self) -> bool:
        """Return whether this broker is a client of another."""
        return bool(self.bridges)


def find_data_folder() -> Path:
    """Return firmware_config, in a clone or where an installation has put it. Raise ConfigError."""
    for folder in (Path(__file__).parents[2], Path(sys.prefix) / "share" / "flchain"):
        if (folder / "firmware_config" / "broker").is_dir():
            return folder / "firmware_config"
    raise ConfigError(("firmware_config: is not installed beside this program",))


def render_broker(enroller: Enroller, plan: BrokerPlan, out: Path, clock_s: int) -> Path:
    """Write configuration, rules, certificates and revocation list into `out`; return the configuration's path.

    Raise ConfigError. The broker's key and certificate are kept while they stay valid for long enough.
    """
    _check_plan(plan)
    texts = _build_texts(enroller, plan)
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_server_good(enroller, out / "server.pem", plan, clock_s):
            certificate, key = enroller.make_server(plan.host, clock_s, is_bridge=plan.is_bridge)
            replace_private(out / "server-key.pem", key.encode())
            replace_private(out / "server.pem", certificate.encode())
        texts |= {"ca.pem": enroller.authority.ca_pem, "crl.pem": enroller.build_crl(clock_s)}
        for name, text in texts.items():
            replace_private(out / name, text.encode())
    except OSError as error:
        raise ConfigError((f"{error.filename or out}: {error.strerror or error}",)) from error
    return out / CONFIG_FILES[plan.kind]


def _check_plan(plan: BrokerPlan) -> None:
    problems = []
    if plan.kind not in KINDS:
        problems.append(f"--kind: must be one of {', '.join(KINDS)}, is {plan.kind!r}")
    if plan.kind == "nats" and (plan.bridges or plan.peers):
        problems.append("--bridge, --peer: only mosquitto can be bridged; NATS servers form a cluster instead")
    for text in (plan.host, plan.bind, plan.user, str(plan.folder), str(plan.data), *plan.peers):
        if not re.fullmatch(r"[\w.:/@+-]*", text):
            problems.append(f"{text!r}: has a character that a configuration file would misread")
    if problems:
        raise ConfigError(tuple(problems))


def _is_server_good(enroller: Enroller, path: Path, plan: BrokerPlan, clock_s: int) -> bool:
    """Return whether the certificate there is ours, not revoked, for this broker, and valid for long enough."""
    try:
        found = read_server(path.read_text())
    except (OSError, ValueError):
        return False
    made = enroller.register.list_certificates(plan.host)
    return (
        plan.host in found.hosts
        and found.is_bridge >= plan.is_bridge
        and found.not_after_s - clock_s > SERVER_DAYS * DAY_S // RENEW_FRACTION
        and any(int(known.serial, 16) == found.serial and not known.revoked_s for known in made)
    )


def _build_texts(enroller: Enroller, plan: BrokerPlan) -> dict[str, str]:
    genesis_path = enroller.folder / FILE_NAMES["genesis"]
    # Before there is a chain the rules allow any; the operator makes the files again once there is one.
    genesis: Genesis | None = load_genesis(genesis_path) if genesis_path.is_file() else None
    chain = Topics.of_chain(genesis.compute_id()).prefix.rpartition("/")[2] if genesis else "+"
    templates = find_data_folder() / "broker"
    if plan.kind == "mosquitto":
        return {
            "mosquitto.conf": _build_mosquitto(templates, plan),
            "acl": _build_acl(templates, enroller, plan, chain),
        }
    return {"nats.conf": _build_nats(templates, enroller, plan, chain)}


def _fill(path: Path, **values: object) -> str:
    try:
        return Template(path.read_text()).substitute(values)
    except OSError as error:
        raise ConfigError((f"{path}: {error.strerror}",)) from error


def _build_mosquitto(templates: Path, plan: BrokerPlan) -> str:
    bridges = ""
    for number, bridge in enumerate(plan.bridges):
        where = {"host": bridge.host, "port": bridge.port, "name": f"site-{number}"}
        bridges += _fill(templates / "mosquitto-bridge.conf.in", **where, folder=plan.folder, own=plan.host)
    return _fill(
        templates / "mosquitto.conf.in",
        user_line=f"user {plan.user}" if plan.user else "",
        port=plan.port,
        bind=plan.bind,
        folder=plan.folder,
        data=plan.data,
        connections_max=CONNECTIONS_MAX,
        bridges=bridges,
    )


def _build_acl(templates: Path, enroller: Enroller, plan: BrokerPlan, chain: str) -> str:
    """Return mosquitto's rules: devices by pattern; miners, operators, other brokers and the revoked by name."""
    users = "".join(
        f"\n# another broker of this network\nuser {peer}\ntopic readwrite flchain/#\n" for peer in plan.peers
    )
    for node in enroller.register.list_nodes():
        if node.revoked_s:
            # The revocation list does not end an open connection; this silences it.
            users += f"\n# revoked\nuser {node.address}\ntopic deny #\n"
        elif node.role != Role.DEVICE:
            users += _fill(templates / f"mosquitto-{node.role}.acl.in", address=node.address, chain=chain)
    return _fill(templates / "mosquitto.acl.in", chain=chain, users=users)


def _build_nats(templates: Path, enroller: Enroller, plan: BrokerPlan, chain: str) -> str:
    users = ""
    for node in enroller.register.list_nodes():
        if not node.revoked_s:
            grants = list_grants(f"{ROOT}/{chain}", node.address, Role(node.role))
            subjects = {"write": _to_subjects(grants.publish), "read": _to_subjects(grants.subscribe)}
            users += _fill(templates / "nats-user.conf.in", address=node.address, **subjects)
    where = {"name": re.sub(r"\W", "-", plan.host), "bind": plan.bind, "port": plan.port}
    return _fill(templates / "nats.conf.in", **where, folder=plan.folder, data=plan.data, users=users)


def _to_subjects(filters: tuple[str, ...]) -> str:
    """Return MQTT filters as quoted NATS subjects; our topics hold neither dots nor blanks (docs/protocol.md)."""
    return ", ".join(f'"{text.replace("/", ".").replace("+", "*")}"' for text in filters)


def read_clock_s() -> int:
    """Return the present time, seconds since 1970."""
    return int(time.time())
