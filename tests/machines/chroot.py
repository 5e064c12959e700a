"""A command inside a Debian root that is not booted: mounts of its own, the network of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.images.mirror import list_lines, read_mirror
from tools.images.programs import find_program

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BUNDLE = "/etc/ssl/certs/flchain-tests.crt"
HOST_BUNDLES = (Path("/etc/ssl/certs/ca-certificates.crt"), Path("/etc/pki/tls/certs/ca-bundle.crt"))
HOSTS = "127.0.0.1 localhost\n::1 localhost ip6-localhost\n127.0.1.1 {name}\n"
ENVIRONMENT = {
    "PATH": PATH,
    "LC_ALL": "C.UTF-8",
    "HOME": "/tmp",
    "DEBIAN_FRONTEND": "noninteractive",
    "PIP_CERT": BUNDLE,
    "SSL_CERT_FILE": BUNDLE,
}
PASSED_ON = ("PIP_INDEX_URL", "PIP_DEFAULT_TIMEOUT", "http_proxy", "https_proxy", "no_proxy")
"""Of this machine's environment: where packages come from. An option of pip's that names a file here would not work."""

# The shell stays, as PID 1: it buries the children of those who ended before them, as an init does.
# Device nodes are made on a file system of the namespace's own, never on the machine's /dev.
# The root becomes the real one of the name space: in a chroot the kernel makes no user name spaces.
_ENTER = """set -e
mount --rbind "$0" "$0"
mount -t proc proc "$0/proc"
mount -t sysfs -o ro sysfs "$0/sys"
mount -t tmpfs -o mode=755 tmpfs "$0/dev"
mknod -m 666 "$0/dev/null" c 1 3; mknod -m 666 "$0/dev/zero" c 1 5; mknod -m 666 "$0/dev/full" c 1 7
mknod -m 666 "$0/dev/random" c 1 8; mknod -m 666 "$0/dev/urandom" c 1 9; mknod -m 666 "$0/dev/tty" c 5 0
ln -s /proc/self/fd "$0/dev/fd"; ln -s fd/0 "$0/dev/stdin"; ln -s fd/1 "$0/dev/stdout"; ln -s fd/2 "$0/dev/stderr"
mkdir "$0/dev/pts" "$0/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$0/dev/pts"; ln -s pts/ptmx "$0/dev/ptmx"
mount -t tmpfs -o mode=1777 tmpfs "$0/dev/shm"
while [ "$1" != -- ]; do mkdir -p "$0$2"; mount --rbind "$1" "$0$2"; shift 2; done
shift
cd "$0"
mkdir -p .outside
pivot_root . .outside
cd /
umount -l /.outside
"$@" || exit $?
exit 0
"""


@dataclass(frozen=True)
class Chroot:
    """A prepared root in a folder."""

    folder: Path
    shared: tuple[tuple[Path, str], ...] = ()
    """Folders of this machine, and where they are seen inside."""

    def run(
        self,
        *command: str,
        env: Mapping[str, str] | None = None,
        user: str = "root",
        check: bool = True,
        text: str | None = None,
        timeout_s: float = 600,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end with `text` as its input; with `check`, fail with all that it said."""
        inside = self.build_command(*command, env=env, user=user)
        return run_checked(inside, check=check, text=text, timeout_s=timeout_s)

    def build_command(self, *command: str, env: Mapping[str, str] | None = None, user: str = "root") -> tuple[str, ...]:
        """Return the command that runs `command` inside, for who needs more than its end."""
        as_user = () if user == "root" else ("runuser", "-u", user, "--")
        settings = {**ENVIRONMENT, **_list_passed_on(), **(env or {})}
        inside = ("env", "-i", *(f"{name}={value}" for name, value in settings.items()), *as_user, *command)
        shared = tuple(text for outside, inside in self.shared for text in (str(outside), inside))
        # --kill-child: whatever the command left behind ends with it
        enter = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _ENTER, str(self.folder))
        return (*enter, *shared, "--", *inside)

    def install(self, *packages: str) -> None:
        """Install packages by apt: names, or paths of .deb files outside, which are copied in."""
        inside = [self.copy_in(Path(package)) if package.endswith(".deb") else package for package in packages]
        self.run("apt-get", "install", "-y", "-q", "--no-install-recommends", *inside)

    def copy_in(self, path: Path, target: str = "/srv") -> str:
        """Copy a file into a folder of the root (a container hides what is in /tmp); its path inside."""
        shutil.copy(path, self.folder / target.lstrip("/"))
        return f"{target}/{path.name}"


def prepare(folder: Path, release: str, name: str = "machine") -> Chroot:
    """Give an unpacked root a name, name resolution, this machine's certificates and its package mirror."""
    etc = folder / "etc"
    (etc / "hosts").write_text(HOSTS.format(name=name))
    (etc / "hostname").write_text(f"{name}\n")
    (etc / "resolv.conf").unlink(missing_ok=True)
    shutil.copyfile("/etc/resolv.conf", etc / "resolv.conf")
    bundle = next((path for path in HOST_BUNDLES if path.exists()), None)
    target = folder / BUNDLE.lstrip("/")
    if bundle is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle, target)
    (etc / "apt" / "sources.list").write_text("".join(f"{line}\n" for line in list_lines(read_mirror(), release)))
    return Chroot(folder)


def run_checked(
    command: tuple[str, ...], *, check: bool, text: str | None, timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run a command and capture what it says; with `check`, a failure is an assertion that shows it."""
    program = find_program(command[0])
    assert program is not None, f"{command[0]} is not installed"
    streams = {"stdin": subprocess.DEVNULL} if text is None else {"input": text}
    done = subprocess.run(
        (program, *command[1:]),
        **streams,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_s,
        check=False,
    )
    if check and done.returncode:
        raise AssertionError(
            f"{command[-6:]} exit code {done.returncode}\n{done.stdout[-8000:]}\n{done.stderr[-4000:]}"
        )
    return done


def _list_passed_on() -> dict[str, str]:
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ}
