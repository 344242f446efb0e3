"""Choose roundings that take the ground from under the backdoor."""
