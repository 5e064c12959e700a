"""The building blocks of codecs: positions, small numbers and public randomness as bits."""
