"""One file for each harm: answers in, judgements out."""
