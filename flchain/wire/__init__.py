"""Bytes of messages, envelopes, packets and chunks, with every size limit."""
