"""What a site survives, on real machines. One world for all of them; each leaves the sites Ready."""
