"""`make demo`: a website at two datacentres of the local world, and a live view of it while one goes dark."""
