"""Small packages under the agent's name, a dpkg database that says one of them is installed, and releases of them."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from agent.edge.update.apply import Applier, Debs
from agent.edge.update.inbox import REQUEST, TRUST
from agent.edge.update.trust import Trust, encode_trust
from flchain.base.crypto import Identity
from flchain.wire.envelope import seal
from flchain.wire.release import Package, Release, ReleaseState

CHAIN = bytes(range(32))
OPERATOR, STRANGER = Identity.from_seed(b"o" * 32), Identity.from_seed(b"s" * 32)
SUITE, ARCHITECTURE = "bookworm", "arm64"
CONTROL = """\
Package: flchain-agent
Version: {version}
Architecture: {architecture}
Maintainer: FLchain <flchain@example.org>
Installed-Size: 64
Description: the agent
 of a board
"""


def build_deb(folder: Path, version: str = "0.2.0+deb12", architecture: str = ARCHITECTURE, name: str = "") -> Path:
    """A package with one program, one settings file and one script."""
    tree = folder / f"tree-{version}-{architecture}-{name}"
    (tree / "DEBIAN").mkdir(parents=True)
    control = CONTROL.format(version=version, architecture=architecture)
    (tree / "DEBIAN" / "control").write_text(control.replace("flchain-agent", name or "flchain-agent"))
    (tree / "DEBIAN" / "conffiles").write_text("/etc/flchain/agent.conf\n")
    (tree / "DEBIAN" / "postinst").write_text("#!/bin/sh\nexit 0\n")
    (tree / "DEBIAN" / "postinst").chmod(0o755)
    program = tree / "opt" / "flchain-agent" / "bin" / "flchain-agent"
    for path, text in ((program, f"version {version}\n"), (tree / "etc" / "flchain" / "agent.conf", "a = 1\n")):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    program.chmod(0o755)
    (program.parent / "link").symlink_to("flchain-agent")
    target = folder / f"{name or 'flchain-agent'}_{version}_{architecture}.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(target)], check=True, capture_output=True
    )
    return target


class Bench:
    """One board: root's folder, the agent's folder, and dpkg's database."""

    def __init__(self, folder: Path, installed: str = "0.1.0+deb12") -> None:
        self.folder, self.root, self.agent = folder, folder / "root", folder / "agent"
        self.agent.mkdir()
        self.machine = folder / "machine"
        self._install(installed)
        self.free_bytes = 10**12
        (self.agent / TRUST).write_bytes(encode_trust(Trust(CHAIN, (OPERATOR.public_key,))))
        self.applier = Applier(
            self.root,
            self.agent,
            Debs(self.machine, dpkg_query=str(folder / "dpkg-query")),
            SUITE,
            etc=folder / "none",
            get_free=lambda path: self.free_bytes,
        )

    def _install(self, version: str) -> None:
        info = self.machine / "var/lib/dpkg/info"
        info.mkdir(parents=True)
        deb = build_deb(self.folder, version)
        subprocess.run(["dpkg-deb", "--extract", str(deb), str(self.machine)], check=True)
        subprocess.run(["dpkg-deb", "--control", str(deb), str(self.folder / "control")], check=True)
        for path in (self.folder / "control").iterdir():
            (info / f"flchain-agent.{path.name}").write_bytes(path.read_bytes())
            (info / f"flchain-agent.{path.name}").chmod(path.stat().st_mode)
        (info / "flchain-agent.control").unlink()
        names = subprocess.run(["dpkg-deb", "--contents", str(deb)], check=True, capture_output=True, text=True).stdout
        paths = [line.split(" ./", 1)[1].split(" -> ")[0].rstrip("/") for line in names.splitlines() if " ./" in line]
        (info / "flchain-agent.list").write_text("".join(f"/{path or '.'}\n" for path in paths))
        stanza = CONTROL.format(version=version, architecture=ARCHITECTURE)
        head, rest = stanza.split("\n", 1)
        conffiles = "Conffiles:\n /etc/flchain/agent.conf 0123456789abcdef0123456789abcdef\n"
        (self.folder / "status").write_text(f"{head}\nStatus: install ok installed\n{conffiles}{rest}")
        script = self.folder / "dpkg-query"
        script.write_text(f"#!/bin/sh\ncat {self.folder}/status\n")
        script.chmod(0o755)

    def release(self, deb: Path, **changes: object) -> Release:
        """A release of this package for this kind of board."""
        data = deb.read_bytes()
        package = Package(SUITE, ARCHITECTURE, hashlib.sha256(data).digest(), len(data))
        plain = Release(7, "0.2.0", (package,), 10_000, ReleaseState.ROLLING, 900, 0)
        fields = {name: getattr(plain, name) for name in plain.__struct_fields__}
        return Release(**(fields | changes))

    def ask(
        self, release: Release, deb: Path | None = None, *, signer: Identity = OPERATOR, chain: bytes = CHAIN
    ) -> bytes:
        """Lay a request down, as the agent does."""
        raw = seal(release, chain, signer)
        (self.agent / REQUEST).write_bytes(raw)
        if deb is not None:
            (self.agent / f"{release.packages[0].sha256.hex()}.deb").write_bytes(deb.read_bytes())
        return raw
