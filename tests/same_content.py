"""Comparison of checkpoints."""

import torch


def assert_same_content(ours, theirs, path=""):
    """Compare nested dicts and lists of tensors and numbers, bit for bit."""
    assert type(ours) is type(theirs), path
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), path
        for key in ours:
            assert_same_content(ours[key], theirs[key], f"{path}/{key}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), path
        for index, pair in enumerate(zip(ours, theirs)):
            assert_same_content(*pair, f"{path}/{index}")
    elif isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), path
    else:
        assert ours == theirs, path
