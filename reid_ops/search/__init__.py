"""Gallery search: exact or approximate, with identifiers and cameras kept beside the vectors."""

from .approximate import RecallReport
from .index import GalleryIndex
from .storage import IndexConflictError, IndexFileError

__all__ = ["GalleryIndex", "IndexConflictError", "IndexFileError", "RecallReport"]
