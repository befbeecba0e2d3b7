"""Training data from files and from the Hugging Face hub: rows, and what they are examples of."""

from journeyman.data.examples import sft_examples
from journeyman.data.preferences import examples_or_pairs, preference_pairs
from journeyman.data.rows import Loaded, Row
from journeyman.data.sources import read_rows

__all__ = ["Loaded", "Row", "examples_or_pairs", "preference_pairs", "read_rows", "sft_examples"]
