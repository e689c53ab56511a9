"""Developers' commands: what is generated from the typed models."""
