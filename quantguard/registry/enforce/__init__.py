"""The registry's plugin: protected names move only to versions that an admission admits."""
