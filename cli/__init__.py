"""The `resight` command: one module per group of commands; the logic is in the other packages."""
