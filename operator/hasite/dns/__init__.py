"""DNS providers, and the authoritative servers themselves."""
