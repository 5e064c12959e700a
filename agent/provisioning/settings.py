"""The sections of flchain.toml that agent.toml does not have: network, registrar, tasks, button."""

from __future__ import annotations

from dataclasses import dataclass, field

FILE = "flchain.toml"
"""The provisioning file: in the folder of the boot partition, which any computer can write."""
RESET_FILES = ("flchain-reset", "flchain-reset.txt")
"""A file of such a name beside it asks for a factory reset. Editors of Windows add an ending, and hide it."""
NAME_FORM = "at most 32 letters, digits and -, a letter or digit first and last"
NAME_PATTERN = "|[A-Za-z0-9](?:[A-Za-z0-9-]{0,30}[A-Za-z0-9])?"
"""A host name of one label (RFC 1123), at most 32 characters: it is the board's name in the fleet, too."""
TIMEZONE_PATTERN = "|[A-Za-z0-9_+-]{1,32}(?:/[A-Za-z0-9_+-]{1,32}){0,2}"
LINE_PATTERN = r"|[A-Za-z0-9_. -]{1,31}|gpiochip\d{1,3}:\d{1,4}"
SSID_BYTES_MAX = 32
"""IEEE 802.11; bytes, not characters."""
PASSWORD_PATTERN = r"|[ -~]{8,63}|[0-9a-fA-F]{64}"
"""WPA: a passphrase in printable ASCII, or the key itself; empty: an open network."""


@dataclass(frozen=True)
class WifiSettings:
    """A section [network.wifi]."""

    ssid: str = field(metadata={"min": 1, "help": "name of the network", "example": "field-station"})
    password: str = field(
        default="",
        repr=False,
        metadata={
            "pattern": PASSWORD_PATTERN,
            "form": "8 to 63 characters of ASCII, or 64 digits of 0-9 and a-f",
            "secret": True,
            "help": "passphrase, or the key itself; empty: an open network",
        },
    )
    country: str = field(
        default="",
        metadata={
            "pattern": "|[A-Z]{2}",
            "form": "two capital letters, as DE",
            "help": "where the board is: sets the channels",
        },
    )
    hidden: bool = field(default=False, metadata={"help": "the network does not announce its name"})

    def __post_init__(self) -> None:
        if len(self.ssid.encode()) > SSID_BYTES_MAX or not self.ssid.isprintable():
            raise ValueError(f"ssid: at most {SSID_BYTES_MAX} bytes, all printable")


@dataclass(frozen=True)
class NetworkSettings:
    """A section [network]; a board on a cable needs none."""

    wifi: WifiSettings | None = field(default=None, metadata={"help": "a wireless network"})


@dataclass(frozen=True)
class RegistrarSettings:
    """A section [registrar]."""

    token: str = field(
        default="",
        repr=False,
        metadata={"secret": True, "max": 512, "help": "from: flchain registrar token; works once, destroyed after use"},
    )
    passphrase: str = field(
        default="", repr=False, metadata={"secret": True, "max": 256, "help": "protects the board's key file"}
    )

    def __post_init__(self) -> None:
        if "\n" in self.passphrase or "\r" in self.passphrase:
            raise ValueError("passphrase: one line")


@dataclass(frozen=True)
class TaskSettings:
    """A section [tasks]: in which rounds the board takes part, and how."""

    follow: str = field(
        default="full",
        metadata={"choices": ("full", "light"), "help": "light: receive the result of a round only, far fewer bytes"},
    )
    until_round: int = field(default=0, metadata={"min": 0, "help": "take part up to this round; 0: without end"})


@dataclass(frozen=True)
class ButtonSettings:
    """A section [button]: held while the board starts, it asks for a factory reset. No section: no button."""

    line: str = field(
        default="",
        metadata={
            "pattern": LINE_PATTERN,
            "form": "the name of a GPIO line such as GPIO17, or its place such as gpiochip0:17",
            "help": "GPIO line, by name or as CHIP:NUMBER (see: gpioinfo); empty: as in the board's profile",
        },
    )
    hold_s: float = field(default=5.0, metadata={"min": 1.0, "max": 60.0, "help": "seconds that it must be held"})
    active_low: bool = field(default=True, metadata={"help": "it connects the line to ground, against a pull-up"})
