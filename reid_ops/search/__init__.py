"""Gallery search: exact or approximate, with identifiers and cameras kept beside the vectors."""

from .approximate import RecallReport
from .index import GalleryIndex
from .storage import IndexFileError

__all__ = ["GalleryIndex", "IndexFileError", "RecallReport"]
