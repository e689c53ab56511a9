"""The guard of a database member: who may take writes, and the database server held to it.

Runs on the database droplets with the distribution's Python (3.11 or later): this package imports nothing but the
standard library, its own modules, and in ``engines`` the database drivers that the distribution packages.
"""
