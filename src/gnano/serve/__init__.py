"""The HTTP server: OpenAI's API for one or several checkpoints, and the routes of the web page."""
