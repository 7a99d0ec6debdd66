"""Members of consumer groups over librdkafka, told by their standard input what to do; the words are those of
`it/java/Members.java`. Argument: bootstrap address.
"""
import sys
import threading

from confluent_kafka import Consumer, KafkaException

bootstrap = sys.argv[1]
lock, members = threading.Lock(), {}


def say(*words):
    with lock:
        print(*words, flush=True)


def run(name, settings, closed):
    topics = settings.pop("topics", "").split(",")
    pattern = settings.pop("pattern", None)
    consumer = Consumer({"bootstrap.servers": bootstrap, "auto.offset.reset": "earliest", "enable.auto.commit": False,
                         "client.id": name, "topic.metadata.refresh.interval.ms": 1000, **settings})
    consumer.subscribe(["^" + pattern] if pattern else topics)
    assigned = None
    while not closed.is_set():
        message = consumer.poll(0.1)
        try:
            now = sorted(f"{partition.topic}-{partition.partition}" for partition in consumer.assignment())
        except KafkaException as error:
            # Fenced: librdkafka says so with every call.
            say(name, "ERROR", error)
            break
        if now != assigned:
            assigned = now
            say(name, "ASSIGNED", *now)
        if message is None:
            continue
        if message.error():
            say(name, "ERROR", message.error())
            continue
        say(name, "GOT", f"{message.topic()}-{message.partition()}", message.offset(), message.value().decode())
        try:
            consumer.commit(message=message, asynchronous=False)
        except KafkaException as error:
            say(name, "ERROR commit", error)
    consumer.close()
    say(name, "CLOSED")


for line in sys.stdin:
    verb, name, *pairs = line.split()
    if verb == "start":
        closed = threading.Event()
        thread = threading.Thread(target=run, args=(name, dict(pair.split("=", 1) for pair in pairs), closed))
        members[name] = closed
        thread.start()
    else:
        members.pop(name).set()
for closed in members.values():
    closed.set()
