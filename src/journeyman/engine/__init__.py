"""Engines sample tokens: `base.py` is the protocol, `local/` the torch engine, `fake.py` the one for tests."""
