"""Databases in the local world: disasters, and the histories of clients that wrote all the while."""
