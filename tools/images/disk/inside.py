"""A command inside a root that is not booted, in mounts of its own: of this machine it has the kernel and the files."""

from __future__ import annotations

from pathlib import Path

from tools.images.programs import run_tool

# Device nodes are made on a file system of the namespace's own, never on the machine's /dev.
_ENTER = """set -e
mount -t proc proc "$0/proc"
mount -t tmpfs -o mode=755 tmpfs "$0/dev"
mknod -m 666 "$0/dev/null" c 1 3; mknod -m 666 "$0/dev/zero" c 1 5; mknod -m 666 "$0/dev/full" c 1 7
mknod -m 666 "$0/dev/random" c 1 8; mknod -m 666 "$0/dev/urandom" c 1 9; mknod -m 666 "$0/dev/tty" c 5 0
ln -s /proc/self/fd "$0/dev/fd"
mount -t tmpfs tmpfs "$0/run"
exec chroot "$0" "$@"
"""
ENVIRONMENT = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL=C.UTF-8",
    "HOME=/",
    "DEBIAN_FRONTEND=noninteractive",
)


def run_inside(root: Path, *command: str, timeout_s: float = 3600) -> str:
    """Run a command in a root and return what it prints. Raises ToolError with its last words if it fails.

    `ischroot` is true for what runs there, so that packages do not start services. What it leaves behind is ended.
    """
    enter = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _ENTER, str(root))
    return run_tool((*enter, "env", "-i", *ENVIRONMENT, *command), timeout_s=timeout_s)
