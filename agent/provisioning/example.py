"""The example of flchain.toml that `flchain-agent provision --example` prints."""

from __future__ import annotations

EXAMPLE = """\
# flchain.toml: what this board needs to know at its first boot. Put it on the boot partition of the card (the small one
# that Windows and macOS show too), beside config.txt, and power the board on. Only the token is needed; what is not set
# stays as it is. On the operator's machine: flchain registrar token

name = "north-3"                      # host name, and name in the fleet
labels = ["site=north", "kind=mast"]  # groups for: flchain fleet
# timezone = "Europe/Berlin"
# ssh_keys = ["ssh-ed25519 AAAA... field"]
# ssh_user = "pi"                     # whose keys these are; default: the first user of the system
# examples = "examples.npz"           # this board's data, if no sensor delivers them: a file beside this one

[registrar]
token = ""                            # flchain1/...: works once, and is destroyed here after use
# passphrase = "..."                  # protects the key file

# [network.wifi]                      # a board on a cable needs none
# ssid = "field-station"
# password = "..."
# country = "DE"

# [tasks]
# follow = "light"                    # receive the result of a round only: far fewer bytes

# [button]                            # held for 5 s while the board starts: factory reset
# line = "GPIO17"                     # to ground; not set: as in the board's profile (flchain-agent board)

# Where the data come from, as in agent.toml: sections [[sensors]], [dataset], [samples]; there
# are [cpu], [mining], [power] and [scheduler], too. A file that is named lies beside this one, and is copied.
# [[sensors]]
# name = "imu"
# kind = "replay"
# replay = { file = "recording.csv", loop = true }
#
# [dataset]
# channels = ["imu.acc_x", "imu.acc_y", "imu.acc_z"]
# label = { channel = "imu.label" }

# Factory reset: an empty file flchain-reset beside this one.
"""
