"""LlamaIndex metadata filters in the languages of the databases."""
