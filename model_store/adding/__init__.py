"""Add a version to the store: what its weights file is, by evidence, and a probe that it reproduces."""
