"""The `gnano doctor` command: checks of a machine, and a self-test of what it computes."""
