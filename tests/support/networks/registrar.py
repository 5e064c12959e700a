"""A registrar that serves in a thread of this process, set up and used by the commands that an operator types."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import io
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from flchain.base.crypto import Identity
from flchain_edge.enrolment.messages import build_enrol_request
from flchain_edge.keys.keystore import load_or_create_identity
from flchain_edge.keys.tls_key import build_request, load_or_create_tls_key
from flchain_edge.mqtt.settings import Endpoint, MqttSettings
from tools.cli import main
from tools.network.broker import Broker, BrokerKind, find_free_port, start_configured_broker
from tools.registrar.enroller import Enroller
from tools.registrar.server import RegistrarServer

HOST = "localhost"


def run_command(*arguments: str, codes: tuple[int, ...] = (0,)) -> str:
    """`flchain ARGUMENTS` in this process; its stdout. Fails if it ends with another code, with what it said."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    assert code in codes, err.getvalue()
    return out.getvalue()


@dataclass
class Registrar:
    """Its folder, and where it answers."""

    folder: Path
    port: int
    clock_offset_s: float = 0.0
    brokers: list[Path] = field(default_factory=list)

    def run(self, action: str, *arguments: str) -> str:
        """`flchain registrar ACTION --dir FOLDER ...`."""
        return run_command("registrar", action, "--dir", str(self.folder), *arguments)

    def make_token(self, role: str = "device", *arguments: str) -> str:
        """One token."""
        return self.run("token", "--role", role, *arguments).strip()

    def start_broker(
        self, kind: BrokerKind, folder: Path, *arguments: str, host: str = HOST, bind: str = "127.0.0.1"
    ) -> Broker:
        """The real broker on the files that `flchain registrar broker` writes."""
        data = folder / "data"
        data.mkdir(parents=True)

        def render(port: int) -> Path:
            self.render_broker(kind, folder, port, *arguments, host=host, bind=bind)
            return folder / f"{kind}.conf"

        return start_configured_broker(kind, data, render, is_tls=True)

    def render_broker(
        self, kind: str, folder: Path, port: int, *arguments: str, host: str = HOST, bind: str = "127.0.0.1"
    ) -> None:
        """Write the files (again)."""
        where = ["--out", str(folder), "--data", str(folder / "data"), "--host", host, "--bind", bind]
        self.run("broker", "--kind", kind, "--port", str(port), "--user", get_user(), *where, *arguments)


def get_user() -> str:
    """The user for mosquitto in a test: the test's own, since otherwise it could not read the folder."""
    return getpass.getuser()


@contextlib.contextmanager
def started_registrar(folder: Path, *brokers: Endpoint, days: int = 30) -> Iterator[Registrar]:
    """A new registrar that answers until the end of the block."""
    registrar = make_registrar(folder, *brokers, days=days)
    with serving(registrar):
        yield registrar


@contextlib.contextmanager
def serving(registrar: Registrar) -> Iterator[RegistrarServer]:
    """Its server, in a thread."""
    loop = asyncio.new_event_loop()
    started: list[RegistrarServer] = []

    def read_clock_s() -> float:
        return time.time() + registrar.clock_offset_s

    async def start() -> Callable[[], None]:
        enroller = Enroller.open(registrar.folder, None)
        server = RegistrarServer(enroller, read_clock_s)
        await server.start(enroller.settings.bind, enroller.settings.port)
        started.append(server)
        return enroller.register.close

    async def stop(close: Callable[[], None]) -> None:
        await started[0].stop()
        close()

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    close = asyncio.run_coroutine_threadsafe(start(), loop).result(20)
    try:
        yield started[0]
    finally:
        asyncio.run_coroutine_threadsafe(stop(close), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@dataclass(frozen=True)
class Member:
    """A node with keys and certificate in a folder, as enrolment leaves them."""

    identity: Identity
    folder: Path

    @property
    def address(self) -> str:
        """In hexadecimal."""
        return self.identity.address.hex()

    def connect_to(self, broker: Broker, client_id: str = "") -> MqttSettings:
        """Settings with which it connects."""
        return MqttSettings(
            host=HOST,
            port=broker.port,
            client_id=client_id or self.address,
            tls_ca=self.folder / "ca.pem",
            tls_certificate=self.folder / "tls.pem",
            tls_key=self.folder / "tls-key.pem",
        )


def enrol_member(registrar: Registrar, folder: Path, role: str, clock_s: int | None = None) -> Member:
    """Keys, token, request, certificate, without a server between."""
    folder.mkdir(parents=True)
    identity = load_or_create_identity(folder / "key.pem", None)
    csr = build_request(load_or_create_tls_key(folder / "tls-key.pem"), identity.address.hex())
    enroller = Enroller.open(registrar.folder, None)
    now_s = int(time.time()) if clock_s is None else clock_s
    token = enroller.make_token(role, "", "", 3_600, now_s)
    answer = enroller.enrol(build_enrol_request(identity, token, role, csr), now_s, "test")
    enroller.register.close()
    (folder / "ca.pem").write_text(answer.ca)
    (folder / "tls.pem").write_text(answer.certificate)
    return Member(identity, folder)


def make_registrar(
    folder: Path, *brokers: Endpoint, days: int = 30, host: str = HOST, bind: str = "127.0.0.1"
) -> Registrar:
    """A new registrar that does not serve."""
    registrar = Registrar(folder, find_free_port())
    known = [text for broker in brokers or (Endpoint(HOST, 8883),) for text in ("--broker", str(broker))]
    where = ["--host", host, "--bind", bind, "--port", str(registrar.port)]
    registrar.run("init", *where, "--days", str(days), *known)
    return registrar
