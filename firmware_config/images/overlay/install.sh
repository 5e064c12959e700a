#!/bin/sh
# Make the system that runs here an FLchain board:   sudo sh install.sh
# Nothing is downloaded and nothing outside these packages and the files beside them is changed; apt purge undoes it.
set -e
here=$(cd "$(dirname "$0")" && pwd)
say() { echo "FLchain: $*"; }
fail() { say "$*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "run this as root: sudo sh $0"
. /etc/os-release
architecture=$(dpkg --print-architecture)
package=$(ls "$here/packages/$VERSION_CODENAME"/flchain-agent_*_"$architecture".deb 2>/dev/null | tail -1)
[ -n "$package" ] || fail "nothing here is for $PRETTY_NAME ($architecture); packages for: $(ls "$here/packages" | tr '\n' ' ')"
model=$(tr -d '\0' </proc/device-tree/model 2>/dev/null) || model="a machine without a device tree"
found=
while read -r line; do
  case $model in "$line"*) found=yes ;; esac
done <"$here/models"
[ -n "$found" ] || [ -n "$FLCHAIN_ANY_BOARD" ] ||
  fail "this is for $(cat "$here/board"), but this board is: $model. Take the archive of this board."
free_kb=$(df --output=avail -k /opt 2>/dev/null | tail -1 || df --output=avail -k / | tail -1)
[ "$free_kb" -ge 200000 ] || fail "the card is full: 200 MB are needed, $((free_kb / 1000)) MB are free. Nothing was changed."

say "installing $(basename "$package")"
dpkg --install "$package" || fail "dpkg could not install it; what it says above names what is missing: apt --fix-broken install"
for file in $(cd "$here/files" && find . -type f); do
  mkdir -p "$(dirname "/$file")"
  cp "$here/files/$file" "/$file"
done
systemctl daemon-reload 2>/dev/null || true
systemctl disable flchain-overlay.service 2>/dev/null || true
say "done. Put flchain.toml on the boot partition and start again, or: flchain-agent provision --help"
