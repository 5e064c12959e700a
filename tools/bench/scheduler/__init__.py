"""`flchain bench scheduler`: the policies against the best fixed split."""
