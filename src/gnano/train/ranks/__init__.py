"""Several processes that train one model: how they meet, watch each other and divide it."""
