"""First boot, pure: what the provisioning file may say, the files that it becomes, what a board says of itself."""
