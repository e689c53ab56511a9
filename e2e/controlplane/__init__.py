"""The control plane's programs: found on this machine, or built from their published Go modules."""
