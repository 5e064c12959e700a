"""First boot, what is done to the board: read the provisioning file, apply it, destroy its token, reset the board."""
