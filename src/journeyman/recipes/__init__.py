"""Straight-line programs that people read and copy."""
