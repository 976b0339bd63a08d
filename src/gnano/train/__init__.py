"""The train room: recipes, the one loop, and checkpoints."""
