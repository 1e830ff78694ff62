"""The Apify key-value store API: protocol, HTTP client, retries, and an in-memory twin for tests."""
