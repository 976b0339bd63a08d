"""The `gnano demo` command: its text generators, its questions and its steps."""
