"""Data only, no I/O: what travels between the parts, over the wire and to disk."""
