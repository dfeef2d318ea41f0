"""Data: readers with their protocols, images as tensors, and the samplers of batches.

A reader gives a :class:`ReidDataset`: records of images, not the images. :class:`ImageDataset` decodes them.
"""

from .augmentation import Augmentation
from .datasets.combined import read_combined
from .datasets.counts import count_split, verify_split
from .datasets.cuhk01 import read_cuhk01
from .datasets.cuhk03 import read_cuhk03
from .datasets.cuhk03_old import read_cuhk03_old
from .datasets.dukemtmc_reid import read_dukemtmc_reid
from .datasets.folder import read_folder
from .datasets.listing import read_images
from .datasets.market1501 import read_market1501
from .datasets.market_layout import read_market_layout
from .datasets.msmt17 import read_msmt17
from .datasets.omniglot import read_omniglot
from .datasets.registry import list_datasets, read_dataset
from .datasets.synthetic import make_synthetic
from .datasets.tables import read_csv, read_wildlife
from .datasets.vehicleid import read_vehicleid
from .datasets.veri776 import read_veri776
from .datasets.viper import read_viper
from .decoding import decode_image
from .images import ImageDataset, Sample, check_images
from .loaders import TrainBatch, make_evaluation_loader, make_train_loader
from .records import ImageRecord, ReidDataset, RetrievalSplit, SplitCounts
from .samplers import IdentitySampler, PairSampler, ShuffledSampler, TrainSampler, make_sampler

__all__ = [
    "Augmentation",
    "IdentitySampler",
    "ImageDataset",
    "ImageRecord",
    "PairSampler",
    "ReidDataset",
    "RetrievalSplit",
    "Sample",
    "ShuffledSampler",
    "SplitCounts",
    "TrainBatch",
    "TrainSampler",
    "check_images",
    "count_split",
    "decode_image",
    "list_datasets",
    "make_evaluation_loader",
    "make_sampler",
    "make_synthetic",
    "make_train_loader",
    "read_combined",
    "read_csv",
    "read_cuhk01",
    "read_cuhk03",
    "read_cuhk03_old",
    "read_dataset",
    "read_dukemtmc_reid",
    "read_folder",
    "read_images",
    "read_market1501",
    "read_market_layout",
    "read_msmt17",
    "read_omniglot",
    "read_vehicleid",
    "read_veri776",
    "read_viper",
    "read_wildlife",
    "verify_split",
]
