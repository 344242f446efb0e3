"""What runs on the runner's host: the launcher of the three sealed containers."""
