"""Effects on database members: certificates, bootstrap, delivery of the guard, the operator's vote, declarations."""
