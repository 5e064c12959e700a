"""What codecs are made of: positions, small numbers and public randomness as bits."""
