"""The checks of `doctor`, each on files and processes that are wrong in its own way."""

from __future__ import annotations

import argparse
import json
import os
import socket
import ssl
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.commands.status_view import build_node, is_same_process
from agent.edge.cpu.probe import probe
from agent.edge.cpu.values import CpuBoard
from agent.edge.store.status_file import StatusFile, read_status
from agent.status.values import NodeView, WriterStatus
from flchain.base.crypto import Identity
from flchain.base.errors import ConfigError
from flchain_edge.checks import clock
from flchain_edge.checks.broker import check_endpoint, check_endpoints, check_login
from flchain_edge.checks.checkup import Check, Finding, Level, fail, ok, run_check, run_checkup, warn
from flchain_edge.checks.clock import check_clock
from flchain_edge.checks.keys import check_tls_files
from flchain_edge.checks.machine import check_disk, check_memory, judge_unit
from flchain_edge.keys.tls_key import read_common_name
from flchain_edge.mqtt.settings import Endpoint, MqttSettings
from flchain_edge.storage.mounts import find_mount
from tests.support.builders.board_trees import plant
from tests.support.builders.status import build_status

QUIET, AS_JSON = argparse.Namespace(json=False), argparse.Namespace(json=True)


def levels(findings: object) -> list[str]:
    return [finding.level.name for finding in findings]  # type: ignore[attr-defined]


def test_a_check_that_hangs_raises_or_lies_costs_only_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """Each check has its time; what it raises is a finding; the exit code is 1 if anything failed, otherwise 0."""
    release = threading.Event()

    def hang() -> tuple[Finding, ...]:
        release.wait()
        return ()

    def refuse() -> tuple[Finding, ...]:
        raise ConfigError(("first", "second"))

    def break_down() -> tuple[Finding, ...]:
        raise ZeroDivisionError("ours")

    checks = (
        Check("hangs", hang, 0.05),
        Check("bad", refuse),
        Check("ours", break_down),
        Check("well", lambda: (ok("x"),)),
    )
    assert [len(run_check(check)) for check in checks] == [1, 2, 1, 1]
    assert run_checkup(checks, QUIET) == 1
    release.set()
    out = capsys.readouterr().out
    assert "no answer within 0.05 s" in out and "FAIL  bad         second" in out and "ZeroDivisionError: ours" in out
    assert out.endswith("1 fine, 0 to look at, 4 failed\n")
    assert run_checkup((Check("so", lambda: (warn("y", "do z"),)),), QUIET) == 0
    assert "\n                  -> do z\n" in capsys.readouterr().out
    assert run_checkup((Check("so", lambda: (fail("y", "do z"),)),), AS_JSON) == 1
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "findings": [{"check": "so", "level": "FAIL", "reason": "y", "advice": "do z"}], "ok": 0, "warn": 0, "fail": 1,
    }  # fmt: skip


def test_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the chain or beyond its trust is a failure; no time server, or an own clock that is off, a warning."""
    now_ms = time.time_ns() // 1_000_000
    monkeypatch.setattr(clock, "is_clock_synchronised", lambda: True)
    assert levels(check_clock(now_ms, 3_600, tmp_path)) == ["OK", "OK", "OK"]
    assert levels(check_clock(now_ms + 300_000, 3_600, tmp_path))[0] == "FAIL"
    assert levels(check_clock(now_ms - 7_200_000, 3_600, tmp_path))[0] == "FAIL"
    assert levels(check_clock(None, 3_600, tmp_path)) == ["OK", "OK"]
    monkeypatch.setattr(clock, "is_clock_synchronised", lambda: False)
    plant(tmp_path, {"class/rtc/rtc0/since_epoch": f"{now_ms // 1000 - 4_000}"})
    found = list(check_clock(now_ms, 3_600, tmp_path))
    assert levels(found) == ["OK", "WARN", "WARN"] and "1 h 6 min off" in found[2].reason
    plant(tmp_path, {"class/rtc/rtc0/since_epoch": "nonsense"})
    assert levels(check_clock(now_ms, 3_600, tmp_path))[-1] == "OK"


def test_disk_and_card(tmp_path: Path) -> None:
    """A card that is mounted read-only, counts errors, or reports wear is a finding; a plain card reports nothing."""
    proc, sysfs, data = tmp_path / "proc", tmp_path / "sys", tmp_path / "data"
    data.mkdir()

    def mount(options: str) -> None:
        line = f"29 1 179:2 / {tmp_path.resolve()} {options},noatime shared:1 - ext4 /dev/mmcblk0p2 {options}"
        plant(proc, {"self/mountinfo": f"1 0 0:1 / / rw - overlay overlay rw\n{line}\nnonsense"})

    mount("rw")
    assert levels(check_disk(data / "deeper", sysfs, proc))[-1] == "OK"
    found = find_mount(data, proc)
    assert found is not None and (found.kind, found.source) == ("ext4", "/dev/mmcblk0p2")
    plant(sysfs, {"block/mmcblk0/device/life_time": "0x03 0x09", "block/mmcblk0/device/pre_eol_info": "0x02"})
    plant(sysfs, {"fs/ext4/mmcblk0p2/errors_count": "3"})
    mount("ro")
    texts = [finding.reason for finding in check_disk(data, sysfs, proc)]
    assert "mounted read-only" in texts[1] and "3 errors" in texts[2]
    assert "spare blocks" in texts[3] and "80 to 90%" in texts[4]


def test_memory(tmp_path: Path) -> None:
    """Little is a warning, next to nothing a failure."""
    for kilobytes, wanted in ((900_000, "OK"), (90_000, "WARN"), (9_000, "FAIL")):
        plant(tmp_path, {"meminfo": f"MemTotal: 1 kB\nMemAvailable: {kilobytes} kB"})
        assert levels(check_memory(tmp_path)) == [wanted]


@pytest.mark.parametrize(
    ("known", "wanted"),
    [
        ({"LoadState": "loaded", "ActiveState": "active", "NRestarts": "0", "UnitFileState": "enabled"}, ["OK"]),
        ({"LoadState": "loaded", "ActiveState": "active", "NRestarts": "7", "UnitFileState": "enabled"}, ["WARN"]),
        ({"LoadState": "loaded", "ActiveState": "failed", "UnitFileState": "disabled"}, ["FAIL", "WARN"]),
        ({"LoadState": "loaded", "ActiveState": "inactive", "UnitFileState": "enabled"}, ["WARN"]),
        ({"LoadState": "not-found"}, ["WARN"]),
        ({}, ["WARN"]),
    ],
)
def test_the_unit(known: dict[str, str], wanted: list[str]) -> None:
    """Judge what `systemctl show` says about it."""
    assert levels(judge_unit("flchain-agent.service", known)) == wanted


def test_brokers_that_are_not_there() -> None:
    """A name that nobody knows, a port where nobody listens, a server without TLS: each has its own words."""
    assert "cannot be resolved" in next(check_endpoint(Endpoint("nobody.invalid", 1883), None)).reason
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    assert "cannot be reached" in next(check_endpoint(Endpoint("127.0.0.1", port), None)).reason
    with socket.create_server(("127.0.0.1", 0)) as listening:
        here = Endpoint("127.0.0.1", listening.getsockname()[1])
        assert levels(check_endpoint(here, None)) == ["OK"]

        def answer() -> None:
            peer, _ = listening.accept()
            with peer:
                peer.sendall(b"220 mail\r\n" * 10)
                peer.recv(1000)

        thread = threading.Thread(target=answer, daemon=True)
        found = list(check_endpoints(MqttSettings(brokers=(f"127.0.0.1:{here.port}", f"127.0.0.1:{port}"))))
        assert levels(found) == ["OK", "WARN"], "one of two is enough"
        listening.settimeout(5)
        listening.accept()[0].close()
        listening.accept()[0].close()
        thread.start()
        (finding,) = check_endpoint(here, ssl.create_default_context())
        assert finding.level is Level.FAIL and "no TLS" in finding.reason
        thread.join()


def test_a_login_that_is_refused_or_answered_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody listens the login fails in its time, with the reason."""
    monkeypatch.setattr("flchain_edge.checks.broker.LOGIN_TIMEOUT_S", 0.5)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    (finding,) = check_login(MqttSettings(port=port, client_id="me"))
    assert (
        finding.level is Level.FAIL
        and finding.reason == "this node could not log in: no connection to the broker: Connection refused"
    )


def test_tls_files(tmp_path: Path) -> None:
    """Without TLS, or without a certificate, a node is warned; files that are not certificates are named."""
    assert levels(check_tls_files(MqttSettings(), None, False)) == ["WARN"]
    broken = MqttSettings(tls_ca=tmp_path / "none.pem")
    with pytest.raises(ConfigError, match="tls_ca"):
        list(check_tls_files(broken, None, False))


def test_what_could_enforce_shares(tmp_path: Path) -> None:
    """Version 2 where a group is ours to change, version 1 where its controller is, otherwise the duty cycle."""
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    board = CpuBoard(2, cgroup_root=groups, proc_root=proc)
    assert next(name for name, why in probe(board).items() if not why) == "duty-cycle"
    plant(proc, {"self/cgroup": "0::/unit\n3:cpu,cpuacct:/unit"})
    plant(groups, {"cpu,cpuacct/unit/cpu.cfs_quota_us": "-1"})
    assert next(name for name, why in probe(board).items() if not why) == "cgroup1"
    plant(groups, {"cgroup.controllers": "cpu", "unit/cgroup.controllers": "cpu io", "unit/cgroup.subtree_control": ""})
    before = sorted(groups.rglob("*"))
    assert next(name for name, why in probe(board).items() if not why) == "cgroup2"
    plant(groups, {"unit/cgroup.controllers": "io"})
    assert "no cpu controller" in probe(board)["cgroup2"]
    assert sorted(groups.rglob("*")) == before


def plant_process(root: Path, state: str, start_ticks: int) -> None:
    rest = " ".join(["0"] * 18)
    plant(root, {"7/stat": f"7 (a ) b) {state} {rest} {start_ticks} 0 0"})


def test_a_process_is_known_by_its_start(tmp_path: Path) -> None:
    """A process under the same number that began at another time is another one, and so is one of a longer boot; a
    dead one that nobody has waited for is no more."""
    now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    found = WriterStatus(is_running=True, pid=7, start_ticks=10_000, boot="", written_boot_s=now_s - 5.0, written_ms=0)
    plant_process(tmp_path, "S", 10_000)
    assert is_same_process(found, tmp_path)
    for other in (
        msgspec.structs.replace(found, start_ticks=10_001),
        msgspec.structs.replace(found, pid=8),
        msgspec.structs.replace(found, start_ticks=None),
        msgspec.structs.replace(found, written_boot_s=now_s + 3600.0),
    ):
        assert not is_same_process(other, tmp_path)
    plant_process(tmp_path, "Z", 10_000)
    assert not is_same_process(found, tmp_path)


def judge_status(folder: Path) -> NodeView:
    found = read_status(folder)
    assert found is not None
    return build_node(found.writer, folder)


def test_an_agent_runs_under_whatever_boot_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container shows another boot id than its units see: the agent that wrote the status runs all the same."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    file, status = StatusFile(tmp_path), build_status()
    file.write(status)
    (tmp_path / "boot_id").write_text("another\n")
    monkeypatch.setattr("flchain_edge.process.kernel_clock.BOOT_ID", tmp_path / "boot_id")
    node = judge_status(tmp_path)
    assert (node.state, node.pid) == ("running", os.getpid())
    assert node.age_s is not None and node.age_s < 60.0
    written = json.loads((tmp_path / "status.json").read_text())
    written["writer"]["start_ticks"] += 1
    (tmp_path / "status.json").write_text(json.dumps(written))
    assert judge_status(tmp_path).state == "killed"
    file.close(status)
    assert judge_status(tmp_path).state == "stopped"


def write_certificate(folder: Path, name: str, from_days: float, to_days: float) -> MqttSettings:
    """A certificate that is its own authority, valid from and until this many days from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now + timedelta(days=from_days))
        .not_valid_after(now + timedelta(days=to_days))
        .sign(key, hashes.SHA256())
    )
    pem, own = folder / "node.pem", folder / "node.key"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    own.write_bytes(key.private_bytes(*form))
    own.chmod(0o600)
    return MqttSettings(tls_ca=pem, tls_certificate=pem, tls_key=own)


@pytest.mark.parametrize(
    ("days", "wanted"),
    [((-1, 29), "OK"), ((-27, 3), "WARN"), ((-40, -1), "FAIL"), ((2, 30), "FAIL")],
)
def test_the_nodes_certificate(tmp_path: Path, days: tuple[float, float], wanted: str) -> None:
    """Good, soon to end, ended, not good yet; and one of another name than the node's is a failure in any case."""
    me, other = Identity.from_seed(b"\x01" * 32), Identity.from_seed(b"\x02" * 32)
    mqtt = write_certificate(tmp_path, me.address.hex(), *days)
    assert mqtt.tls_certificate is not None and mqtt.tls_key is not None
    assert read_common_name(mqtt.tls_certificate.read_text()) == me.address.hex()
    assert levels(check_tls_files(mqtt, me, True)) == [wanted]
    assert levels(check_tls_files(mqtt, other, True)) == ["FAIL", wanted]
    mqtt.tls_key.chmod(0o644)
    assert levels(check_tls_files(mqtt, me, False)) == ["WARN", wanted]


def test_text_that_is_no_certificate_has_no_name() -> None:
    """ValueError, whatever it is."""
    for text in ("", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "-----BEGIN"):
        with pytest.raises(ValueError):
            read_common_name(text)
