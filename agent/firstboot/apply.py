"""Apply a form to the system: host name, time zone, Wi-Fi, who may log in. Each file is written only if it differs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agent.firstboot.disk import remove_file, write_file, write_link
from agent.firstboot.form import Form
from agent.firstboot.places import Places
from agent.firstboot.programs import Programs
from agent.provisioning.network_files import (
    COUNTRY_FILE,
    INTERFACE,
    NETWORK_MANAGER_FILE,
    NETWORKD_FILE,
    SUPPLICANT_FOLDER,
    SystemFile,
    build_network_files,
)

ZONES = "usr/share/zoneinfo"
KEYS_FOLDER, SSHD_FILE = "etc/ssh/authorized_keys.d", "etc/ssh/sshd_config.d/flchain.conf"
HOST_KEYS = "var/lib/flchain-provision/ssh"
"""Where our image's sshd has its host keys: on the data partition. Other systems make theirs themselves."""
FIREWALL_FOLDER, FIREWALL_FILE = "etc/flchain/firewall.d", "etc/flchain/firewall.d/ssh.nft"
SSHD_TEXT = "# Written by flchain-provision: root's list of keys, beside each user's own.\n"
SSHD_TEXT += "AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/authorized_keys.d/%u\n"
FIRST_UID, LAST_UID = 1000, 59_999
"""Of people, on Debian; the first of them is the one that the system was set up for."""
HOSTS_MARK = "# flchain"


@dataclass
class Applied:
    """What was done, and what could not be."""

    done: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def apply_form(form: Form, places: Places, programs: Programs) -> Applied:
    """Bring the system to what the form says. What cannot be done is a problem, and keeps nothing else from it."""
    applied = Applied()
    for step in (_apply_name, _apply_timezone, _apply_wifi, _apply_ssh):
        try:
            for done in step(form, places, programs):
                applied.done.append(done)
        except _NotPossible as error:
            applied.problems.append(str(error))
        except OSError as error:
            applied.problems.append(f"{error.filename or places.root}: {error.strerror or error}")
    return applied


class _NotPossible(Exception):
    """This system cannot do what the form asks for."""


def remove_applied(places: Places) -> Iterator[str]:
    """Remove every file that `apply_form` made, and yield which. Name and time zone stay: a system has to have some."""
    for name in sorted(_list_owned(places)):
        if remove_file(places.root / name):
            yield f"/{name}"


def _list_owned(places: Places) -> set[str]:
    found = {COUNTRY_FILE, NETWORK_MANAGER_FILE, NETWORKD_FILE, SSHD_FILE, FIREWALL_FILE}
    for folder, pattern in ((KEYS_FOLDER, "*"), (SUPPLICANT_FOLDER, "wpa_supplicant-*.conf")):
        found |= {f"{folder}/{path.name}" for path in (places.root / folder).glob(pattern)}
    return found


def _apply_name(form: Form, places: Places, programs: Programs) -> Iterator[str]:
    if not form.name:
        return
    name = form.name.lower()
    hosts = places.root / "etc/hosts"
    lines = hosts.read_text().splitlines() if hosts.is_file() else ["127.0.0.1 localhost"]
    kept = [line for line in lines if not line.startswith("127.0.1.1") and not line.endswith(HOSTS_MARK)]
    write_file(hosts, "\n".join([*kept, f"127.0.1.1 {name} {HOSTS_MARK}"]).encode() + b"\n", 0o644)
    if write_file(places.root / "etc/hostname", f"{name}\n".encode(), 0o644):
        programs.run("hostnamectl", "set-hostname", name)
        yield f"host name {name}"


def _apply_timezone(form: Form, places: Places, programs: Programs) -> Iterator[str]:
    if not form.timezone:
        return
    if not (places.root / ZONES / form.timezone).is_file():
        raise _NotPossible(f"timezone: this system does not know {form.timezone} (a typing error, or no tzdata?)")
    write_file(places.root / "etc/timezone", f"{form.timezone}\n".encode(), 0o644)
    if write_link(places.root / "etc/localtime", f"/{ZONES}/{form.timezone}"):
        yield f"time zone {form.timezone}"


def _apply_wifi(form: Form, places: Places, programs: Programs) -> Iterator[str]:
    wifi = form.network.wifi
    owned = {COUNTRY_FILE, NETWORK_MANAGER_FILE, NETWORKD_FILE}
    if wifi is None:
        for name in sorted(owned):
            if remove_file(places.root / name):
                yield f"removed /{name}"
        return
    interface = find_wireless(places.root) or INTERFACE
    writer = find_writer(places.root)
    if writer is None:
        raise _NotPossible("[network.wifi]: neither NetworkManager nor wpa_supplicant is installed here")
    files = build_network_files(wifi, writer, interface)
    changed = [name for name, file in files.items() if _write(places.root / name, file)]
    for name in sorted(owned - set(files)):
        remove_file(places.root / name)
    if changed:
        programs.run("rfkill", "unblock", "wlan")
    if writer == "wpa_supplicant":
        programs.run(
            "systemctl", "restart" if changed else "start", "--no-block", f"wpa_supplicant@{interface}.service"
        )
    elif changed:
        programs.run("nmcli", "connection", "reload")
    if changed:
        yield f"Wi-Fi {wifi.ssid}, by {writer}"


def find_writer(root: Path) -> str | None:
    """Return the program that makes Wi-Fi connections on this system."""
    for name in ("NetworkManager", "wpa_supplicant"):
        if any((root / folder / name).exists() for folder in ("usr/sbin", "sbin", "usr/bin")):
            return name
    return None


def find_wireless(root: Path) -> str | None:
    """Return the first wireless interface, by name."""
    return min((path.parent.name for path in (root / "sys/class/net").glob("*/phy80211")), default=None)


def _apply_ssh(form: Form, places: Places, programs: Programs) -> Iterator[str]:
    folder = places.root / KEYS_FOLDER
    user = (form.ssh_user or _find_user(places.root)) if form.ssh_keys else ""
    for path in folder.glob("*"):
        if path.name != user and remove_file(path):
            yield f"removed the keys of {path.name}"
    if not user:
        remove_file(places.root / SSHD_FILE)
        remove_file(places.root / FIREWALL_FILE)
        return
    drop_ins = (places.root / SSHD_FILE).parent
    if not drop_ins.is_dir():
        raise _NotPossible("ssh_keys: no SSH server is installed here (openssh-server)")
    if any(HOST_KEYS in path.read_text(errors="replace") for path in drop_ins.glob("*.conf")):
        _make_host_key(places, programs)
    changed = write_file(places.root / SSHD_FILE, SSHD_TEXT.encode(), 0o644)
    if (places.root / FIREWALL_FOLDER).is_dir() and write_file(
        places.root / FIREWALL_FILE, b"tcp dport 22 accept\n", 0o644
    ):
        programs.run("systemctl", "try-reload-or-restart", "--no-block", "nftables.service")
    if write_file(folder / user, "".join(f"{key}\n" for key in form.ssh_keys).encode(), 0o644):
        yield f"{len(form.ssh_keys)} SSH keys of {user}"
    programs.run("systemctl", "restart" if changed else "start", "--no-block", "ssh.service")


def _make_host_key(places: Places, programs: Programs) -> None:
    key = places.root / HOST_KEYS / "ssh_host_ed25519_key"
    if not key.is_file():
        key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        programs.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key))


def _find_user(root: Path) -> str:
    """Return the first person of /etc/passwd, otherwise root."""
    passwd = root / "etc/passwd"
    rows = [line.split(":") for line in passwd.read_text().splitlines()] if passwd.is_file() else []
    people = [(int(row[2]), row[0]) for row in rows if len(row) == 7 and row[2].isdecimal()]
    return min((uid, name) for uid, name in [*people, (LAST_UID, "root")] if FIRST_UID <= uid <= LAST_UID)[1]


def _write(path: Path, file: SystemFile) -> bool:
    return write_file(path, file.text.encode(), file.mode)
