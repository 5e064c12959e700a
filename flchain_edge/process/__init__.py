"""The parts of a node's process.

`command` is the command line that agent and miner share, `log_actions` its `logs`; `event_loop` has the queue, timers
and signals of both runners, `sd_notify` reports to systemd, `chain_files` reads the genesis and the model that it
names, `kernel_clock` asks the kernel about its clocks.
"""
