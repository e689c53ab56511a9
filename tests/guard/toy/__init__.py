"""A small database server with replication, and a driver for it: what the guard holds in its own tests.

It has what matters to the guard: a history on disk, streams to standbys, acknowledgements that wait for them, a role
that it is told, and histories that part ways.
"""
