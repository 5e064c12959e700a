"""`flchain emulate`: sensors for people without hardware. Each speaks the protocol of the real one."""
