"""`flchain bench consensus`: the consensus rules side by side."""
