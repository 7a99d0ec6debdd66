"""confluent-kafka (librdkafka): produce with each codec, read in a group whose members come and go, commit, seek by time.

Arguments: bootstrap address, records per codec. Ends with status 0 when everything was as it should be.
"""
import sys
import threading
import time

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

bootstrap, count = sys.argv[1], int(sys.argv[2])
common = {"bootstrap.servers": bootstrap}
admin = AdminClient(common)


def wait(futures):
    for future in futures.values():
        future.result(30)


def produce(topic, codec):
    failed = []
    producer = Producer({**common, "compression.type": codec, "enable.idempotence": True, "linger.ms": 5,
                         "queue.buffering.max.messages": 100000})
    for i in range(count):
        while True:
            try:
                producer.produce(topic, key=f"k{i}", value=f"{codec} {i}", headers=[("n", str(i)), ("n", None)],
                                 on_delivery=lambda error, message: error and failed.append(error))
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    assert producer.flush(120) == 0 and not failed, failed[:3]


def member(group, topic, seen, lock, until, commit):
    consumer = Consumer({**common, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False,
                         "session.timeout.ms": 6000, "check.crcs": True})
    consumer.subscribe([topic])
    while not until():
        message = consumer.poll(0.2)
        if message is None:
            continue
        assert message.error() is None, message.error()
        number = message.key().decode()[1:]
        assert message.headers() == [("n", number.encode()), ("n", None)], message.headers()
        with lock:
            seen.add(message.value().decode())
    if commit and consumer.assignment():
        try:
            consumer.commit(asynchronous=False)
        except Exception as error:  # a member of an older generation has nothing to commit
            print("commit:", error)
    consumer.close()


for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
    topic = f"confluent-{codec}"
    wait(admin.create_topics([NewTopic(topic, num_partitions=3, replication_factor=1)]))
    produce(topic, codec)
    seen, lock, want = set(), threading.Lock(), {f"{codec} {i}" for i in range(count)}
    # Fails the test rather than waiting for ever.
    limit = time.monotonic() + 120
    done = lambda: len(seen) >= count or time.monotonic() > limit
    first = threading.Thread(target=member, args=(f"g-{codec}", topic, seen, lock, done, True))
    some = lambda: len(seen) > count // 3 or done()
    second = threading.Thread(target=member, args=(f"g-{codec}", topic, seen, lock, some, False))
    first.start()
    second.start()
    second.join()
    first.join()
    assert seen == want, f"{codec}: {len(seen)} of {count}"
    print(codec, count)

# Seek by time: the middle of three records that are apart.
wait(admin.create_topics([NewTopic("timed", num_partitions=1, replication_factor=1)]))
producer = Producer(common)
for i in range(3):
    producer.produce("timed", value=str(i), timestamp=1_700_000_000_000 + 1000 * i)
producer.flush(30)
consumer = Consumer({**common, "group.id": "timed", "enable.auto.commit": False})
found = consumer.offsets_for_times([TopicPartition("timed", 0, 1_700_000_000_500)], timeout=30)
assert found[0].offset == 1, found
consumer.assign([TopicPartition("timed", 0, found[0].offset)])
message = None
limit = time.monotonic() + 30
while message is None and time.monotonic() < limit:
    message = consumer.poll(1)
assert message.value() == b"1", message
consumer.commit(message=message, asynchronous=False)
assert consumer.committed([TopicPartition("timed", 0)], timeout=30)[0].offset == 2
assert consumer.get_watermark_offsets(TopicPartition("timed", 0), timeout=30) == (0, 3)
consumer.close()
described = admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, "timed")])
assert list(described.values())[0].result(30)["retention.ms"].value == "604800000"
groups = admin.list_consumer_groups().result(30)
assert "timed" in {group.group_id for group in groups.valid}, groups.valid
wait(admin.delete_topics(["timed"]))
