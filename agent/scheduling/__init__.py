"""How the CPU is split between training and mining: pure."""
