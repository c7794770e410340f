"""Tables on disk: durable steps, locks, the Delta log, shards and commits. No word of ECGs."""

__all__: list[str] = []
