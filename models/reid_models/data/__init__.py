"""Data: readers with their protocols, images as tensors, and the identity sampler.

A reader gives a :class:`ReidDataset`: records of images, not the images. :class:`ImageDataset` decodes them.
"""

from .builtin_set import read_omniglot
from .files import read_images
from .folder import read_csv, read_folder
from .images import ImageDataset, Sample, check_images, decode_image
from .market1501 import read_market1501
from .pipeline import Augmentation, TrainBatch, make_evaluation_loader, make_train_loader
from .records import ImageRecord, ReidDataset, RetrievalSplit
from .registry import list_datasets, read_dataset
from .sampler import IdentitySampler
from .splits import SPLIT_TABLE, SplitCounts, count_split, verify_split
from .synthetic import make_synthetic
from .vehicleid import read_vehicleid
from .veri776 import read_veri776

__all__ = [
    "SPLIT_TABLE",
    "Augmentation",
    "IdentitySampler",
    "ImageDataset",
    "ImageRecord",
    "ReidDataset",
    "RetrievalSplit",
    "Sample",
    "SplitCounts",
    "TrainBatch",
    "check_images",
    "count_split",
    "decode_image",
    "list_datasets",
    "make_evaluation_loader",
    "make_synthetic",
    "make_train_loader",
    "read_csv",
    "read_dataset",
    "read_folder",
    "read_images",
    "read_market1501",
    "read_omniglot",
    "read_vehicleid",
    "read_veri776",
    "verify_split",
]
