"""From files to arrays: decoding, labels, pairs of image and mask, splits, a scan of the masks."""
