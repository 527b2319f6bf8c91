"""Completing masks: given parts, several draws and their consensus, patterns that erase."""

from .consensus import consensus
from .given_prior import given_log_prior, random_walk
from .put_back import given_ids_by_overlap, given_ids_by_votes, paste_known

__all__ = [
    "consensus",
    "given_ids_by_overlap",
    "given_ids_by_votes",
    "given_log_prior",
    "paste_known",
    "random_walk",
]
