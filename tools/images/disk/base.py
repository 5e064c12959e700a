"""The base of an image: Debian's packages, our files, a ramdisk. It is made once for a recipe and kept as a tarball.

Everything here costs minutes where it is made for another architecture; the agent's package goes on top in seconds.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from tools.images.disk.inside import run_inside
from tools.images.disk.recipes import FILES, FIRMWARE_CONFIG, Recipe
from tools.images.emulation import ensure_runnable
from tools.images.mirror import list_lines, read_mirror
from tools.images.programs import run_tool
from tools.images.roots import get_cache, unpack_root

ARCHITECTURE = "arm64"
MAKE_TIMEOUT_S = 7200.0
FIREWALL = FIRMWARE_CONFIG / "firewall" / "device.nft"
DPKG_OPTIONS = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-include=/usr/share/doc/flchain-*",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/lintian/*",
)
"""What a board has no reader for; licences stay."""
ROOT_LABEL = "flchain-root"
CMDLINE = f"root=LABEL={ROOT_LABEL} rootwait ro panic=10 quiet"
"""`ro`: of the root below the overlay. A kernel that panics starts again after 10 s."""

HOSTS = b"127.0.0.1 localhost\n127.0.1.1 flchain\n::1 localhost ip6-localhost\n"
MOUNT_POINTS = ("flchain-data", "flchain-agent", "flchain-provision", "flchain-update", "systemd/timesync")
"""Below /var/lib: what etc/fstab mounts."""
RASPI_CUSTOM = b"dtparam=watchdog=on\n"
UNWANTED = (
    "etc/ssh/ssh_host_*",
    "etc/machine-id.*",
    "var/lib/dbus/machine-id",
    "var/lib/systemd/random-seed",
    "var/lib/apt/lists/*",
    "var/cache/apt/*",
    "var/cache/debconf/*-old",
    "var/log/*.log",
    "var/log/apt/*",
    "vmlinuz.old",
    "initrd.img.old",
)


def make_base(recipe: Recipe, cache: Path | None = None) -> Path:
    """Return the tarball of a recipe's base, made the first time. Raises ConfigError and ToolError."""
    cache = get_cache() if cache is None else cache
    cache.mkdir(parents=True, exist_ok=True)
    bootstrapped = _keep(cache, f"base-{recipe.board}-{_hash_packages(recipe)}", lambda at: _bootstrap(recipe, at))
    name = f"system-{recipe.board}-{_hash_packages(recipe)}-{_hash_files(recipe)}"
    return _keep(cache, name, lambda at: _make_system(recipe, bootstrapped, at))


def _keep(cache: Path, name: str, make: Callable[[Path], None]) -> Path:
    """Return the tarball of this name; `make` makes it where there is none. Two processes make it once."""
    tarball = cache / f"{name}.tar"
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tarball.exists():
            unfinished = cache / f"{name}.part.tar"
            try:
                make(unfinished)
                unfinished.rename(tarball)
            finally:
                unfinished.unlink(missing_ok=True)
    return tarball


def _hash_packages(recipe: Recipe) -> str:
    chosen = repr((recipe.release, recipe.components, recipe.packages, recipe.backports, DPKG_OPTIONS))
    return hashlib.sha256(chosen.encode()).hexdigest()[:8]


def _hash_files(recipe: Recipe) -> str:
    """Everything else that the system is made of: this file too, which says how."""
    total = hashlib.sha256(repr((recipe, CMDLINE)).encode())
    for path in sorted((*FILES.rglob("*"), FIREWALL, Path(__file__))):
        if path.is_file():
            total.update(repr((path.name, path.stat().st_mode & 0o111, path.read_bytes())).encode())
    return total.hexdigest()[:8]


def _bootstrap(recipe: Recipe, tarball: Path) -> None:
    ensure_runnable(ARCHITECTURE, tarball.parent)
    mirror = read_mirror()
    lines = [line.replace(" main", f" {' '.join(recipe.components)}") for line in list_lines(mirror, recipe.release)]
    hooks: list[str] = []
    if recipe.backports:
        suite = f"{recipe.release}-backports"
        lines.append(f"deb {mirror.archive} {suite} {' '.join(recipe.components)}")
        names = " ".join(recipe.backports)
        hooks = [
            f'--customize-hook=chroot "$1" apt-get install -qy --no-install-recommends -t {suite} {names}',
            '--customize-hook=chroot "$1" apt-get autoremove -qy --purge',
        ]
    packages = [name for name in recipe.packages if name not in recipe.backports]
    command = (
        "mmdebstrap", "--quiet", "--skip=check/qemu", f"--architectures={ARCHITECTURE}", "--variant=minbase",
        f"--include={','.join(packages)}", *(f"--dpkgopt={option}" for option in DPKG_OPTIONS), *hooks,
        recipe.release, str(tarball), *lines,
    )  # fmt: skip
    # The ramdisk is made once, when our files are there.
    run_tool(command, env={"INITRD": "No"}, timeout_s=MAKE_TIMEOUT_S)


def _make_system(recipe: Recipe, bootstrapped: Path, tarball: Path) -> None:
    with tempfile.TemporaryDirectory(dir=tarball.parent) as name:
        root = unpack_root(bootstrapped, Path(name) / "root")
        _write_files(recipe, root)
        for unit in recipe.disable:
            run_inside(root, "systemctl", "disable", unit)
        run_inside(root, "passwd", "--lock", "root")
        run_inside(root, "update-initramfs", "-c", "-k", "all")
        if recipe.firmware == "extlinux":
            run_inside(root, "/usr/lib/flchain-image/copy-kernel")
        _clean(root)
        run_tool(("tar", "-cf", str(tarball), "-C", str(root), "--numeric-owner", "--xattrs", "--one-file-system", "."))


def _write_files(recipe: Recipe, root: Path) -> None:
    """Put our files into the root, and what they read about this board."""
    for source in sorted(FILES.rglob("*")):
        if source.is_file():
            put_file(root / source.relative_to(FILES), source.read_bytes(), source.stat().st_mode & 0o111 != 0)
    own = root / "usr" / "lib" / "flchain-image"
    put_file(own / "board", f"{recipe.name}\n".encode())
    put_file(own / "models", "".join(f"{model}\n" for model in recipe.models).encode())
    put_file(root / "etc" / "nftables.conf", FIREWALL.read_bytes(), is_program=True)
    put_file(root / "etc" / "hostname", b"flchain\n")
    put_file(root / "etc" / "hosts", HOSTS)
    if recipe.ramdisk_modules:
        tools = root / "etc" / "initramfs-tools"
        put_file(tools / "conf.d" / "modules", b"MODULES=list\n")
        put_file(tools / "modules", "".join(f"{name}\n" for name in recipe.ramdisk_modules).encode())
    for folder in ("boot/firmware", *(f"var/lib/{name}" for name in MOUNT_POINTS)):
        (root / folder).mkdir(parents=True, exist_ok=True)
    if recipe.firmware == "extlinux":
        put_file(own / "append", f"{recipe.cmdline} {CMDLINE}\n".encode())
    else:
        consoles = recipe.cmdline.replace("console=", "")
        settings = f'ROOTPART="LABEL={ROOT_LABEL}"\nCONSOLES="{consoles}"\nCMA=0\n'
        put_file(root / "etc" / "default" / "raspi-firmware", settings.encode())
        put_file(root / "etc" / "default" / "raspi-extra-cmdline", f"{CMDLINE}\n".encode())
        put_file(root / "etc" / "default" / "raspi-firmware-custom", RASPI_CUSTOM)


def put_file(path: Path, content: bytes, is_program: bool = False) -> None:
    """Write a file of root's that everyone may read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    path.chmod(0o755 if is_program else 0o644)


def _clean(root: Path) -> None:
    """Remove what would make all cards of this image one machine, and what is fetched again when it is needed."""
    put_file(root / "etc" / "machine-id", b"")
    put_file(root / "etc" / "resolv.conf", b"")
    for pattern in UNWANTED:
        for path in root.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
