"""What a run shows: its numbers (trackers) and pictures of its predictions."""
