"""Inside the virtual machine: a process that takes more memory than its group may is killed, and the group says so."""

from __future__ import annotations

import os
import sys
import time

sys.path.insert(0, os.getcwd())

from agent.edge.cpu.cgroup import open_cgroup2
from agent.edge.cpu.values import CpuBoard

LIMIT_BYTES = 64_000_000

control = open_cgroup2(CpuBoard(cores=2, memory_bytes_max=LIMIT_BYTES))
assert control.limits_memory
pid = os.fork()
if pid == 0:
    time.sleep(0.5)  # until it is in its group; a fork that is not there would prove nothing
    block = bytearray(2 * LIMIT_BYTES)
    for index in range(0, len(block), 4096):
        block[index] = 1
    os._exit(0)
control.attach("hungry", pid)
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
kills = control.count_oom_kills("hungry")
print(f"limit {LIMIT_BYTES} bytes: exit code {status}, kills {kills}")
sys.exit(status != -9 or kills != 1)
