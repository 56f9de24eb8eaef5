"""One module per database: its adapter, its filters, its nodes or documents by id."""
