"""Observe, plan, apply, report: one file a kind."""
