"""Deterministic simulation of the guard's protocol: guards, servers, fuses, operators and clients in one event loop."""
