"""The pull-request check: what a change of policies and of pinned models means, before anything is run."""
