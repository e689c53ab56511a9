"""Reverse proxy engines."""
