"""One pass over vectors in files, fragment by fragment, on any executor."""

from nudge_rag.stores.lake.fragments import Fragment, FragmentedStore
from nudge_rag.stores.lake.mapping import map_nodes
from nudge_rag.stores.lake.scanning import scan

__all__ = ["Fragment", "FragmentedStore", "map_nodes", "scan"]
