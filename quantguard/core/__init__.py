"""The words of the domain. Standard library only; every other room speaks in these."""
