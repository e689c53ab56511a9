"""Machines over SSH: sessions, files, bootstrap."""
