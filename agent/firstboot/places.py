"""Where provisioning reads and writes: every path, below one root that a test or an image's maker can choose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent.provisioning.settings import FILE, RESET_FILES
from flchain_edge.enrolment.enrol import PROVISIONED_FILE

BOOT_FOLDERS = ("boot/firmware", "boot/flchain", "boot", "etc/flchain")
"""Where the file is looked for, first to last: the boot partition as systems mount it, then what cloud-init writes."""

CLOUD_INIT_FILES = (
    "boot/firmware/user-data",
    "boot/user-data",
    "var/lib/cloud/instances/*/*",
    "var/lib/cloud/seed/*/*",
)
"""Where cloud-init keeps what it was given, the content of our file included."""


@dataclass(frozen=True)
class Places:
    """The paths of one system. `root` is / on a board."""

    root: Path = Path("/")

    @property
    def boot_folders(self) -> tuple[Path, ...]:
        return tuple(self.root / name for name in BOOT_FOLDERS)

    @property
    def state(self) -> Path:
        """Root's own, on the data partition: what was taken from the file, token and passphrase until they are used."""
        return self.root / "var/lib/flchain-provision"

    @property
    def settings(self) -> Path:
        """The last provisioning file that was good, its token destroyed."""
        return self.state / FILE

    @property
    def token(self) -> Path:
        return self.state / "token"

    @property
    def passphrase(self) -> Path:
        return self.state / "passphrase"

    @property
    def reset_asked(self) -> Path:
        """There while a reset runs that no file on the boot partition has asked for: a power cut does not end it."""
        return self.state / "reset-asked"

    @property
    def agent(self) -> Path:
        """The agent's own, on the data partition."""
        return self.root / "var/lib/flchain-agent"

    @property
    def agent_config(self) -> Path:
        """The last file of an enrolment: the board is enrolled if it exists."""
        return self.agent / "agent.toml"

    @property
    def is_enrolled(self) -> bool:
        return self.agent_config.is_file()

    @property
    def provisioned(self) -> Path:
        """What the enrolment puts into agent.toml."""
        return self.agent / PROVISIONED_FILE

    @property
    def credentials(self) -> Path:
        """Where systemd looks for a unit's credentials; in memory, filled again at each boot."""
        return self.root / "run/credstore"

    @property
    def token_credentials(self) -> tuple[Path, Path]:
        """The unit's token: the one that this program hands on, and one that a person has put there."""
        return self.credentials / "flchain-agent.token", self.root / "etc/credstore/flchain-agent.token"

    @property
    def passphrase_credential(self) -> Path:
        return self.credentials / "flchain-agent.passphrase"

    @property
    def report(self) -> Path:
        """What the last attempt to enrol came to; written by the agent's user."""
        return self.root / "run/flchain-enroll/report.json"

    @property
    def issue(self) -> Path:
        """What the consoles show above the login; linked from /etc/issue.d by systemd/tmpfiles.d."""
        return self.root / "run/issue.d/flchain.issue"

    @property
    def word(self) -> Path:
        """How the board stands, for everybody: other users cannot look into the folders that tell it."""
        return self.root / "run/flchain-provision/state.json"

    @property
    def service(self) -> Path:
        """What Avahi announces."""
        return self.root / "etc/avahi/services/flchain.service"

    def list_leftovers(self) -> list[Path]:
        """Return what power cuts have left of files that were being written."""
        folders = (self.state, self.credentials)
        return [path for folder in folders for path in sorted(folder.glob(".*")) if path.is_file()]

    def list_token_files(self) -> list[Path]:
        """Return every file that may hold a token; the order is that of finding one when the card is stolen."""
        found = [folder / FILE for folder in self.boot_folders]
        found += [path for pattern in CLOUD_INIT_FILES for path in sorted(self.root.glob(pattern))]
        found += [self.token, *self.token_credentials]
        return [path for path in found if path.is_file() and not path.is_symlink()]

    def find_file(self) -> Path | None:
        """Return the provisioning file, if there is one."""
        return next((path for folder in self.boot_folders if (path := folder / FILE).is_file()), None)

    def find_misnamed(self) -> Path | None:
        """Return a file that was probably meant to be the provisioning file: editors of Windows add an ending."""
        found = (path for folder in self.boot_folders for path in sorted(folder.glob(f"{FILE}.*")))
        return next((path for path in found if path.suffix.lower() in (".txt", ".toml")), None)

    def find_reset_file(self) -> Path | None:
        """Return the file that asks for a reset, if there is one; a folder of that name does as well."""
        found = (folder / name for folder in self.boot_folders for name in RESET_FILES)
        return next((path for path in (*found, self.reset_asked) if path.exists()), None)

    def get_boot_folder(self) -> Path:
        """Return the folder in which a person should put the file on this system."""
        return next((folder for folder in self.boot_folders if folder.is_dir()), self.boot_folders[0])
