"""Messages, envelopes, packets, chunks and topics as bytes, with every size limit."""
