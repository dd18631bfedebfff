"""Lightning callbacks that watch a network while it trains."""
