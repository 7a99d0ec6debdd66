"""A short life of a Python client, whose traffic is recorded: topics, records, a group, a transaction, configs.

Arguments: the module (confluent_kafka or kafka), bootstrap address. Ends with status 0 when everything was as it should be.
"""
import sys

module, bootstrap = sys.argv[1:3]


def confluent():
    from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
    from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

    common = {"bootstrap.servers": bootstrap}
    admin = AdminClient(common)

    def wait(futures):
        return [future.result(30) for future in futures.values()]

    wait(admin.create_topics([NewTopic("first", 2, 1, config={"retention.ms": "600000000"})]))
    for options in [{}, {"enable.idempotence": True, "compression.type": "lz4"}, {"acks": "1"}]:
        producer = Producer({**common, **options})
        for i in range(4):
            producer.produce("first", key=b"k%d" % i, value=b"v%d" % i, partition=i % 2, headers=[("h", b"x")])
        assert producer.flush(30) == 0
    producer = Producer({**common, "transactional.id": "buyer"})
    producer.init_transactions(30)
    for commit in [True, False]:
        producer.begin_transaction()
        producer.produce("first", value=b"bought", partition=0)
        producer.flush(30)
        (producer.commit_transaction if commit else producer.abort_transaction)(30)
    for protocol in ["classic", "consumer"]:
        consumer = Consumer({**common, "group.id": protocol, "group.protocol": protocol, "auto.offset.reset": "earliest",
                             "enable.auto.commit": False})
        consumer.subscribe(["first"])
        seen = 0
        while seen < 13:
            message = consumer.poll(1)
            if message is not None:
                assert message.error() is None, message.error()
                seen += 1
        consumer.commit(asynchronous=False)
        consumer.close()
    wait(admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions("classic", [TopicPartition("first", 0)])]))
    wait(admin.describe_consumer_groups(["classic"]))
    wait(admin.describe_configs([ConfigResource("topic", "first")]))
    wait(admin.delete_consumer_groups(["classic"]))
    wait(admin.delete_topics(["first"]))


def kafka_python():
    from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
    from kafka.admin import NewTopic

    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics([NewTopic("first", num_partitions=2, replication_factor=1)])
    for codec in [None, "gzip"]:
        producer = KafkaProducer(bootstrap_servers=bootstrap, compression_type=codec, acks="all")
        for i in range(4):
            producer.send("first", key=b"k%d" % i, value=b"v%d" % i, partition=i % 2).get(30)
        producer.close()
    consumer = KafkaConsumer("first", bootstrap_servers=bootstrap, group_id="readers", auto_offset_reset="earliest",
                             enable_auto_commit=False)
    seen = 0
    while seen < 8:
        seen += sum(len(records) for records in consumer.poll(500).values())
    consumer.commit()
    consumer.close()
    consumer = KafkaConsumer(bootstrap_servers=bootstrap)
    partition = TopicPartition("first", 0)
    consumer.assign([partition])
    assert consumer.offsets_for_times({partition: 1_000})[partition].offset == 0
    assert consumer.end_offsets([partition])[partition] == 4
    consumer.close()
    admin.list_consumer_groups() if hasattr(admin, "list_consumer_groups") else admin.list_groups()
    admin.delete_topics(["first"])
    admin.close()


{"confluent_kafka": confluent, "kafka": kafka_python}[module]()
