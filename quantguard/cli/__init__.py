"""argv to call to print to exit code."""
