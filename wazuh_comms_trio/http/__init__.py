"""HTTP/1.1 of our own, over trio streams: ``server`` for agents and local programs, ``client`` for the indexer and
the engine, ``balancers`` for what stands between."""
