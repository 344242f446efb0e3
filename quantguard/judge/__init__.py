"""A language model behind an OpenAI-compatible address, asked whether answers refuse. Sees no weights."""
