"""What may be promoted: the policy's schema, its reading, and the decision."""
