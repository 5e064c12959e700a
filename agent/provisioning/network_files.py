"""Wi-Fi settings as files: for NetworkManager (Raspberry Pi OS), or for wpa_supplicant and systemd-networkd (ours).

One seam, two writers: each turns the same settings into the files of its programs, named from the root of the system.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agent.provisioning.settings import WifiSettings

KEY_DIGITS = 64
"""A WPA key in hexadecimal; anything shorter is a passphrase."""
INTERFACE = "wlan0"
"""Where no interface is there yet; the name on every board of ours."""
COUNTRY_FILE = "etc/modprobe.d/flchain-wifi.conf"
NETWORK_MANAGER_FILE = "etc/NetworkManager/system-connections/flchain-wifi.nmconnection"
NETWORKD_FILE = "etc/systemd/network/25-flchain-wifi.network"
SUPPLICANT_FOLDER = "etc/wpa_supplicant"


@dataclass(frozen=True)
class SystemFile:
    """A file of the system: its text, and its mode, 0o600 if it holds a secret."""

    text: str
    mode: int = 0o644


def build_network_manager(wifi: WifiSettings, interface: str) -> dict[str, SystemFile]:
    """Return NetworkManager's key file (nm-settings-keyfile(5)); it takes any wireless interface."""
    lines = [
        "[connection]",
        "id=flchain-wifi",
        "type=wifi",
        "autoconnect-retries=0",  # for ever: a board has nobody who tries again
        "",
        "[wifi]",
        "mode=infrastructure",
        f"ssid={''.join(f'{byte};' for byte in wifi.ssid.encode())}",
        *(["hidden=true"] if wifi.hidden else []),
    ]
    if wifi.password:
        # of a key file's value: a backslash, and a space at its start
        password = wifi.password.replace("\\", "\\\\")
        password = "\\s" + password[1:] if password.startswith(" ") else password
        lines += ["", "[wifi-security]", "key-mgmt=wpa-psk", f"psk={password}"]
    lines += ["", "[ipv4]", "method=auto", "", "[ipv6]", "method=auto"]
    return {NETWORK_MANAGER_FILE: SystemFile("\n".join(lines) + "\n", 0o600)}


def build_supplicant(wifi: WifiSettings, interface: str) -> dict[str, SystemFile]:
    """Return the files of wpa_supplicant@.service and of systemd-networkd, which gets the address."""
    lines = [
        "ctrl_interface=DIR=/run/wpa_supplicant GROUP=netdev",
        *([f"country={wifi.country}"] if wifi.country else []),
        "network={",
        f"  ssid={wifi.ssid.encode().hex()}",
        *(["  scan_ssid=1"] if wifi.hidden else []),
    ]
    if not wifi.password:
        lines += ["  key_mgmt=NONE"]
    elif len(wifi.password) == KEY_DIGITS:
        lines += ["  key_mgmt=WPA-PSK", f"  psk={wifi.password}"]
    else:
        lines += ["  key_mgmt=WPA-PSK SAE", "  ieee80211w=1", f'  psk="{wifi.password}"']
    network = "[Match]\nType=wlan\n\n[Network]\nDHCP=yes\n\n[DHCPv4]\nRouteMetric=600\n"
    return {
        f"{SUPPLICANT_FOLDER}/wpa_supplicant-{interface}.conf": SystemFile("\n".join([*lines, "}"]) + "\n", 0o600),
        NETWORKD_FILE: SystemFile(network),
    }


WRITERS: Mapping[str, Callable[[WifiSettings, str], dict[str, SystemFile]]] = {
    "NetworkManager": build_network_manager,
    "wpa_supplicant": build_supplicant,
}
"""By the program that makes the connection; where both are installed, the first has the network."""


def build_network_files(wifi: WifiSettings, writer: str, interface: str) -> dict[str, SystemFile]:
    """Return the files, with the country for the kernel's rules on channels, which holds for both."""
    files = WRITERS[writer](wifi, interface)
    if wifi.country:
        files[COUNTRY_FILE] = SystemFile(f"options cfg80211 ieee80211_regdom={wifi.country}\n")
    return files
