"""Pure decisions. No I/O, no clock, no random."""
