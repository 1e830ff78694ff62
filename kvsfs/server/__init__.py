"""The embedded, Apify-compatible key-value store; it meets the rest of kvsfs only over HTTP."""
