"""CSN: convolution similarity networks, which compare pairs of images by parts as filters."""
