"""What the token ids of a tokenizer stand for, as one short text: two tokenizers with equal fingerprints read stored ids alike.

Not for how text is split into tokens: stored ids are never tokenised again, so merges and normalisation do not count.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any


def vocabulary_fingerprint(tokenizer: Any) -> str:
    """SHA-256 over every id with its token, and over which of them are special."""
    tokens = sorted((number, token) for token, number in tokenizer.get_vocab().items())
    added = sorted((number, token.content, bool(token.special)) for number, token in tokenizer.added_tokens_decoder.items())
    return hashlib.sha256(json.dumps([tokens, added]).encode()).hexdigest()
