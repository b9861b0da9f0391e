"""Which partition a key belongs to: Kafka's default partitioner, so that it is the same on every engine.

Source: `org.apache.kafka.clients.producer.internals.BuiltInPartitioner` and `Utils.murmur2` (Apache Kafka);
murmur2 with seed 0x9747b28c over the key's bytes, made positive, modulo the number of partitions.
"""

_SEED = 0x9747B28C
_MULTIPLIER = 0x5BD1E995
_SHIFT = 24
_MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """The 32-bit murmur2 hash of `data`, as an unsigned number."""
    length = len(data)
    mixed = (_SEED ^ length) & _MASK
    whole = length - length % 4
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at : at + 4], "little")
        word = (word * _MULTIPLIER) & _MASK
        word ^= word >> _SHIFT
        word = (word * _MULTIPLIER) & _MASK
        mixed = ((mixed * _MULTIPLIER) & _MASK) ^ word
    if length > whole:
        mixed ^= int.from_bytes(data[whole:], "little")
        mixed = (mixed * _MULTIPLIER) & _MASK
    mixed ^= mixed >> 13
    mixed = (mixed * _MULTIPLIER) & _MASK
    return mixed ^ (mixed >> 15)


def partition_for(key: bytes | None, partitions: int) -> int:
    """The partition of `key` among `partitions`; entries without a key go to partition 0."""
    if key is None or partitions == 1:
        return 0
    return (murmur2(key) & 0x7FFFFFFF) % partitions
