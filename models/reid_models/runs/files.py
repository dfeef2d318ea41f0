"""The files of a run folder."""

RECIPE = "recipe.yaml"  # the whole configuration
METRICS = "metrics.csv"  # the log of training
LAST = "last.ckpt"  # what a run needs to go on
BEST = "best.safetensors"  # the network of the best validation
TRAINING = "training.json"  # how long it trained
EVALUATION = "evaluation.json"  # what `reid evaluate` measured
OCCLUDED = "occluded"  # a folder: what it measured of occluded images, a file for each kind and level
FEATURES = "features"  # a folder: of images that were looked at

#: Those that are read back, each on its own.
READ = (RECIPE, METRICS, EVALUATION, BEST)
