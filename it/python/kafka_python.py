"""kafka-python: produce, read in a group, commit, seek by time, with the codecs whose libraries are installed.

Arguments: bootstrap address, records per codec. Ends with status 0 when everything was as it should be.
"""
import sys
import time

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka import codec as codecs
from kafka.admin import NewTopic

bootstrap, count = sys.argv[1], int(sys.argv[2])
admin = KafkaAdminClient(bootstrap_servers=bootstrap)
available = [None] + [c for c in ["gzip", "snappy", "lz4", "zstd"] if getattr(codecs, f"has_{c}")()]
for codec in available:
    topic = f"kafka-python-{codec}"
    admin.create_topics([NewTopic(topic, num_partitions=2, replication_factor=1)])
    producer = KafkaProducer(bootstrap_servers=bootstrap, compression_type=codec, acks="all", linger_ms=5)
    sent = [producer.send(topic, key=b"k%d" % i, value=b"v%d" % i, headers=[("h", b"1"), ("h", b"2")])
            for i in range(count)]
    producer.flush(max(120, count / 1000))
    for future in sent:
        future.get(30)
    producer.close()
    seen = set()
    # A thousand records a second is slow even for a busy machine.
    limit = time.monotonic() + max(120, count / 1000)
    # A first member reads a part, commits and leaves; a second one reads the rest.
    for part in [count // 2, count]:
        consumer = KafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=f"g-{codec}", check_crcs=True,
                                 auto_offset_reset="earliest", enable_auto_commit=False, max_poll_records=100)
        while len(seen) < part and time.monotonic() < limit:
            for records in consumer.poll(500).values():
                for record in records:
                    assert record.value not in seen, f"{record.value} twice after a commit"
                    assert list(record.headers) == [("h", b"1"), ("h", b"2")], record.headers
                    seen.add(record.value)
        consumer.commit()
        consumer.close()
    assert seen == {b"v%d" % i for i in range(count)}, f"{codec}: {len(seen)} of {count}"
    print(codec, count)

producer = KafkaProducer(bootstrap_servers=bootstrap)
for i in range(3):
    producer.send("timed", value=b"%d" % i, timestamp_ms=1_700_000_000_000 + 1000 * i).get(30)
producer.close()
consumer = KafkaConsumer(bootstrap_servers=bootstrap, consumer_timeout_ms=20000)
partition = TopicPartition("timed", 0)
consumer.assign([partition])
found = consumer.offsets_for_times({partition: 1_700_000_000_500})[partition]
assert (found.offset, found.timestamp) == (1, 1_700_000_001_000), found
consumer.seek(partition, found.offset)
assert next(consumer).value == b"1"
assert consumer.beginning_offsets([partition])[partition] == 0
assert consumer.end_offsets([partition])[partition] == 3
consumer.close()
