"""What a model learns from: texts, instructions or preferences, each with the same face."""
