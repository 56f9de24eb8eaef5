"""What clients of Qdrant work out again and again is kept: the schemas of their models, and the paths of filters.

Each client copies and converts all schemas, 15 ms a thousand times; local mode parses a filter's path for every node.
"""

from __future__ import annotations

import functools
from typing import Any

from qdrant_client.embed import type_inspector
from qdrant_client.local import payload_value_extractor


def keep_schemas() -> None:
    """Let all clients of this process look at one description of the models, to which they only ever add."""
    inspector: Any = type_inspector
    extractor: Any = payload_value_extractor
    if not hasattr(inspector.ModelSchemaParser, "cache_info"):
        inspector.ModelSchemaParser = functools.cache(inspector.ModelSchemaParser)
        extractor.parse_json_path = functools.cache(extractor.parse_json_path)
