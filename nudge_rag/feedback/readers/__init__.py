"""Readers of what other tools recorded: dictionaries, tables or files of their schemas, without their packages."""
