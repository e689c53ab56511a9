"""HASite: a Kubernetes operator that keeps a website up when a datacentre goes dark."""
