"""Topics of one Kafka cluster in another: whole batches, exactly once, with offsets that translate exactly.

Pure: `batches` are what brokers store and send, `recoding` makes one of several, `offset_map` tells offsets
of one side from those of the other, `lane` is the course of one partition, `resuming` says where it goes on,
`joining` whether batches are joined.
With brokers: `fetcher` and `sender` move batches (`fetching` and `producing` are their requests), `ledger`
keeps offset maps in the target, `shard` is what one process carries at a time, `mirroring` runs it all.
Beside them: `names`, `topic_plan`, `topics` and `planning` say what is mirrored and how it is kept, `rights`
asks what may be used, `groups` carries consumers' places; `orders` is what people say meanwhile, `status`
what they are told.
"""
