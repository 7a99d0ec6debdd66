"""Reads a partition from its beginning with two consumers and compares the SHA-256 of its values with a file's lines.

Usage: tiered.py BOOTSTRAP TOPIC FILE
"""

import hashlib
import sys

import confluent_kafka
import kafka

bootstrap, topic, path = sys.argv[1:4]
with open(path, "rb") as lines:
    wanted = lines.read()
count = wanted.count(b"\n")
digest = hashlib.sha256(wanted).hexdigest()


def check(name, values):
    found = hashlib.sha256()
    number = 0
    for value in values:
        found.update(value + b"\n")
        number += 1
    assert number == count, f"{name}: {number} records, not {count}"
    assert found.hexdigest() == digest, f"{name}: other records"
    print(f"{name}: {number} records, sha256 {digest}")


def confluent():
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "c", "enable.auto.commit": False, "check.crcs": True}
    )
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
    for _ in range(count):
        message = consumer.poll(30)
        assert message is not None, "nothing within 30 s"
        assert message.error() is None, message.error()
        yield message.value()
    consumer.close()


def kafka_python():
    consumer = kafka.KafkaConsumer(bootstrap_servers=bootstrap, consumer_timeout_ms=30_000, check_crcs=True)
    at = kafka.TopicPartition(topic, 0)
    consumer.assign([at])
    consumer.seek_to_beginning(at)
    for _ in range(count):
        yield next(consumer).value
    consumer.close()


check("confluent-kafka", confluent())
check("kafka-python", kafka_python())
