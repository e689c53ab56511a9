"""The figures of docs/performance.md, measured in the local world."""
