"""Helpers that do not depend on any other part of gnano."""
