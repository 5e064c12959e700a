"""`flchain bench codecs`: bytes, rounds and time of every update codec."""
