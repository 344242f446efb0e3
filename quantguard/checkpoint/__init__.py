"""A model directory on disk, untrusted: nothing in it is executed, followed out of its root, or trusted for size."""
