"""Evidence files: canonical, versioned, written whole or not at all."""
