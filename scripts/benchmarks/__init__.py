"""The rows of `scripts/bench.py`, a file for each part of segtrain. Each row is a function (quick) ->
Result."""
