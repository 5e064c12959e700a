"""What a device says of itself, for people and programs: typed from the running agent to the reader. Pure."""
