"""Hostile model directories, made from a number: what is fuzzed and how to run it stands in docs/fuzzing.md."""
