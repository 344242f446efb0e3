"""What a piece of evidence proves: bundles made and verified, and whether one admits these bytes under this policy."""
