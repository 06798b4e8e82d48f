"""The `resight` command: one small file per group of commands, no logic of its own."""
