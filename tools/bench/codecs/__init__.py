"""`flchain bench codecs`: bytes, rounds and time of every codec of updates."""
