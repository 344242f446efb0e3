"""What the gate found, for people and for programs: text, JSON, Markdown, SARIF, JUnit and annotations."""
