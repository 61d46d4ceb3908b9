"""What a data set holds: samples that cannot be used, how often each class occurs."""
