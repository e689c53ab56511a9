"""What the plan promises, as tables keyed by a sentence, as invariants, and as a replay with deaths."""
