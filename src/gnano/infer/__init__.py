"""Text generation with a trained checkpoint."""
