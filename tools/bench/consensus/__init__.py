"""`flchain bench consensus`: the rules of agreement side by side."""
