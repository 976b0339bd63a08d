"""The export room: foreign formats, out and in."""
