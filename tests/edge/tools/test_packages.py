"""The registrar's packages: only operators bring them, only members fetch them, and what breaks off goes on."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from flchain.base.crypto import Identity
from flchain.base.errors import ConfigError, TryAgain
from flchain_edge.enrolment.client import RegistrarClient
from flchain_edge.enrolment.messages import build_package_request, build_renew_request, build_upload_headers
from flchain_edge.keys.tls_key import build_request, load_or_create_tls_key
from tests.support.networks.registrar import HOST, Member, Registrar, enrol_member, make_registrar, serving
from tools.registrar import server as server_module
from tools.registrar.http_messages import Pace
from tools.registrar.packages import PACKAGES_MAX, PackageRefused, PackageStore

DATA = b"".join(number.to_bytes(4, "big") for number in range(100_000))
SHA256 = hashlib.sha256(DATA).hexdigest()
PACKAGE_MAX = 1_000_000


@dataclass
class Site:
    """A registrar that serves, its operator and a board."""

    registrar: Registrar
    operator: Member
    board: Member
    fingerprint: bytes

    def connect(self) -> RegistrarClient:
        return RegistrarClient(HOST, self.registrar.port, (self.board.folder / "ca.pem").read_text())

    def bring(self, member: Member, data: bytes = DATA, sha256: str = SHA256) -> None:
        headers = build_upload_headers(member.identity, self.fingerprint, sha256, len(data))
        self.connect().send_package(io.BytesIO(data), sha256, len(data), headers)

    def fetch(self, member: Member, offset: int = 0, sha256: str = SHA256) -> bytes:
        sink = io.BytesIO()
        request = build_package_request(member.identity, self.fingerprint, sha256, offset)
        self.connect().fetch_package(request, sink, PACKAGE_MAX)
        return sink.getvalue()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    registrar = make_registrar(tmp_path / "registrar")
    operator, board = (enrol_member(registrar, tmp_path / role, role) for role in ("operator", "device"))
    fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert((registrar.folder / "ca.pem").read_text())).digest()
    with serving(registrar):
        yield Site(registrar, operator, board, fingerprint)


def test_an_operators_package_reaches_a_board_whole_or_from_where_it_stopped(site: Site) -> None:
    """Sent once or twice, fetched from the start, from any byte, and from its end: the very bytes."""
    site.bring(site.operator)
    site.bring(site.operator)
    assert PackageStore(site.registrar.folder).list_names() == [SHA256]
    for offset in (0, 1, 65_536, len(DATA) - 1, len(DATA)):
        assert site.fetch(site.board, offset) == DATA[offset:]
    with pytest.raises(ConfigError, match="bad-offset"):
        site.fetch(site.board, len(DATA) + 1)


def test_only_an_operator_brings_packages(site: Site, tmp_path: Path) -> None:
    """A board, a stranger, a revoked operator, another operator's signature: refused, and nothing is kept."""
    stranger = Member(Identity.from_seed(b"s" * 32), tmp_path)
    miner = enrol_member(site.registrar, tmp_path / "miner", "miner")
    for member, code in ((site.board, "wrong-role"), (miner, "wrong-role"), (stranger, "unknown-node")):
        with pytest.raises(ConfigError, match=code):
            site.bring(member)
    forged = build_upload_headers(site.operator.identity, site.fingerprint, SHA256, len(DATA) + 1)
    with pytest.raises(ConfigError, match="bad-signature"):
        site.connect().send_package(io.BytesIO(DATA), SHA256, len(DATA), forged)
    site.registrar.run("revoke", site.operator.address)
    with pytest.raises(ConfigError, match="revoked"):
        site.bring(site.operator)
    assert not PackageStore(site.registrar.folder).list_names()


def test_a_refusal_reaches_who_still_sends(site: Site, tmp_path: Path) -> None:
    """A refused upload of 20 MB, more than any buffer on its way holds, ends with the registrar's word."""
    data = bytes(20_000_000)
    with pytest.raises(ConfigError, match="unknown-node"):
        site.bring(Member(Identity.from_seed(b"s" * 32), tmp_path), data, hashlib.sha256(data).hexdigest())


def test_only_members_fetch_packages(site: Site, tmp_path: Path) -> None:
    """A stranger, a revoked board, a signature for another package, a name that is no hash: refused."""
    site.bring(site.operator)
    stranger = Member(Identity.from_seed(b"s" * 32), tmp_path)
    with pytest.raises(ConfigError, match="unknown-node"):
        site.fetch(stranger)
    with pytest.raises(ConfigError, match="no-package"):
        site.fetch(site.board, sha256="0" * 64)
    right = build_package_request(site.board.identity, site.fingerprint, SHA256, 0)
    for changes in ({"sha256": "0" * 64}, {"sha256": "../" + SHA256}, {"sha256": SHA256.upper()}, {"offset": -1}):
        with pytest.raises(ConfigError, match="bad-signature"):
            site.connect().fetch_package(msgspec.structs.replace(right, **changes), io.BytesIO(), PACKAGE_MAX)
    site.registrar.run("revoke", site.board.address)
    with pytest.raises(ConfigError, match="revoked"):
        site.fetch(site.board)


def test_a_package_of_another_hash_or_size_is_not_kept(site: Site) -> None:
    """Damaged on its way, empty, or larger than any package: nothing of it stays on the registrar's disk."""
    with pytest.raises(ConfigError, match="SHA-256 is another one"):
        site.bring(site.operator, DATA, "1" * 64)
    with pytest.raises(ConfigError, match="bad-size"):
        site.bring(site.operator, b"", hashlib.sha256(b"").hexdigest())
    huge = build_upload_headers(site.operator.identity, site.fingerprint, SHA256, 256_000_001)
    with pytest.raises((ConfigError, TryAgain)):
        site.connect().send_package(io.BytesIO(b"x"), SHA256, 256_000_001, huge)
    with pytest.raises(TryAgain):  # a board that gets more than its release names
        site.bring(site.operator)
        site.connect().fetch_package(
            build_package_request(site.board.identity, site.fingerprint, SHA256, 0), io.BytesIO(), len(DATA) - 1
        )
    assert [path.name for path in (site.registrar.folder / "packages").iterdir()] == [SHA256]


def test_an_upload_that_breaks_off_leaves_nothing(site: Site) -> None:
    """The operator's line is cut in the middle of a package: no part stays, and the next attempt goes through."""
    headers = build_upload_headers(site.operator.identity, site.fingerprint, SHA256, len(DATA))
    context = ssl.create_default_context(cafile=str(site.registrar.folder / "ca.pem"))
    lines = [f"PUT /v1/package/{SHA256} HTTP/1.1", f"Content-Length: {len(DATA)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    bare = socket.create_connection(("127.0.0.1", site.registrar.port))
    with context.wrap_socket(bare, server_hostname=HOST) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + DATA[:200_000])
    site.bring(site.operator)
    assert site.fetch(site.board) == DATA


def test_boards_that_find_no_place_are_told_to_come_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every place for downloads taken a board hears `busy`, which it tries again; other requests are answered."""
    site.bring(site.operator)
    monkeypatch.setattr(server_module, "DOWNLOADS_MAX", 0)
    with pytest.raises(TryAgain, match="busy"):
        site.fetch(site.board)
    monkeypatch.undo()
    assert site.fetch(site.board) == DATA


def test_downloads_share_what_the_operator_gives_them() -> None:
    """At 200,000 bytes a second chunks of 50,000 wait by turns, whoever sends them; without a bound nobody waits."""
    pace = Pace(200_000)
    assert [pace.reserve(50_000, now_s) for now_s in (9.0, 9.0, 9.0, 9.5, 20.0, 20.1)] == pytest.approx(
        [0.0, 0.25, 0.5, 0.25, 0.0, 0.15]
    )
    assert [Pace(0).reserve(50_000, 9.0) for _ in range(3)] == [0.0, 0.0, 0.0]


def test_a_full_store_says_what_to_remove(tmp_path: Path) -> None:
    """With PACKAGES_MAX packages another one is refused; a crash's leftovers are cleaned away at the next start."""
    store, folder = PackageStore(tmp_path), tmp_path / "packages"
    folder.mkdir()
    for number in range(PACKAGES_MAX):
        (folder / f"{number:064x}").touch()
    (folder / ".part-left").touch()

    async def give() -> AsyncIterator[bytes]:
        yield DATA

    with pytest.raises(PackageRefused, match="remove those of old releases"):
        asyncio.run(store.keep(SHA256, give()))
    store.clean()
    assert len(list(folder.iterdir())) == PACKAGES_MAX
    (folder / f"{0:064x}").unlink()
    asyncio.run(store.keep(SHA256, give()))
    assert store.find(SHA256) is not None
    with contextlib.suppress(PackageRefused):
        asyncio.run(store.keep("2" * 64, give()))
    assert store.find("2" * 64) is None


def test_operators_are_named_to_those_who_enrol_and_renew(site: Site) -> None:
    """A board learns from the registrar whose releases it installs; a revoked operator is no longer named."""
    csr = build_request(load_or_create_tls_key(site.board.folder / "tls-key.pem"), site.board.address)

    def ask() -> list[str]:
        return site.connect().renew(build_renew_request(site.board.identity, site.fingerprint, csr)).operators

    assert ask() == [site.operator.identity.public_key.hex()]
    site.registrar.run("revoke", site.operator.address)
    assert ask() == []
