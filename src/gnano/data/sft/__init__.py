"""Data for fine-tuning: conversations, preferences, chat templates and packed datasets."""
