"""Parts that an installed package adds to segtrain: each proves that a seam holds."""
