"""The harmless test model of this field, as EICAR is for anti-virus."""
