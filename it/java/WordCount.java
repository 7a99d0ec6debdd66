// A Kafka Streams application that counts words, and what feeds it and reads its results. Run from source:
// java -cp 'jars/*' WordCount.java MODE BOOTSTRAP ...
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.Properties;
import java.util.TreeMap;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.LongDeserializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;

public class WordCount {
    static final String[] WORDS = {"all", "streams", "lead", "to", "kafka", "or", "to", "another", "broker"};

    public static void main(String[] args) throws Exception {
        switch (args[0]) {
            case "topics" -> topics(args[1]);
            case "count" -> {
                int from = Integer.parseInt(args[2]);
                int to = Integer.parseInt(args[3]);
                feed(args[1], from, to);
                counts(args[1], 3L * to, args[4]);
            }
            case "app" -> app(args);
            default -> throw new IllegalArgumentException(args[0]);
        }
    }

    static Properties base(String bootstrap) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        return properties;
    }

    static void topics(String bootstrap) throws Exception {
        try (Admin admin = Admin.create(base(bootstrap))) {
            short one = 1;
            admin.createTopics(List.of(new NewTopic("lines", 4, one), new NewTopic("counts", 2, one))).all().get();
        }
    }

    /** Lines from (inclusive) to to (exclusive), three words each. */
    static void feed(String bootstrap, int from, int to) {
        Properties properties = base(bootstrap);
        try (var producer = new KafkaProducer<>(properties, new StringSerializer(), new StringSerializer())) {
            for (int i = from; i < to; i++) {
                String line = WORDS[i % WORDS.length] + " " + WORDS[(i * 7) % WORDS.length] + " word" + i % 10;
                producer.send(new ProducerRecord<>("lines", Integer.toString(i), line));
            }
        }
    }

    /** Reads results until they add up to at least total, and prints them. */
    static void counts(String bootstrap, long total, String isolation) {
        Properties properties = base(bootstrap);
        properties.put("group.id", "reader-" + System.nanoTime());
        properties.put("auto.offset.reset", "earliest");
        properties.put("isolation.level", isolation);
        var counts = new TreeMap<String, Long>();
        Deserializer<Long> longs = new LongDeserializer();
        long until = System.currentTimeMillis() + 120_000;
        try (var consumer = new KafkaConsumer<>(properties, new StringDeserializer(), longs)) {
            consumer.subscribe(List.of("counts"));
            long sum = 0;
            while (sum < total && System.currentTimeMillis() < until) {
                consumer.poll(Duration.ofMillis(200)).forEach(record -> counts.put(record.key(), record.value()));
                sum = counts.values().stream().mapToLong(Long::longValue).sum();
            }
        }
        counts.forEach((word, count) -> System.out.println(word + " " + count));
    }

    /** app BOOTSTRAP STATE_DIR KEY=VALUE...: runs until its standard input ends. */
    static void app(String[] args) throws Exception {
        StreamsBuilder builder = new StreamsBuilder();
        KStream<String, String> lines = builder.stream("lines");
        lines.flatMapValues(line -> Arrays.asList(line.split(" ")))
            .groupBy((key, word) -> word, Grouped.as("by-word"))
            .count(Materialized.as("counted"))
            .toStream()
            .to("counts", Produced.with(Serdes.String(), Serdes.Long()));
        Properties properties = base(args[1]);
        properties.put("state.dir", args[2]);
        properties.put("default.key.serde", Serdes.String().getClass());
        properties.put("default.value.serde", Serdes.String().getClass());
        properties.put("auto.offset.reset", "earliest");
        properties.put("commit.interval.ms", "100");
        properties.put("statestore.cache.max.bytes", "0");
        for (String pair : Arrays.copyOfRange(args, 3, args.length)) {
            String[] parts = pair.split("=", 2);
            properties.put(parts[0], parts[1]);
        }
        KafkaStreams streams = new KafkaStreams(builder.build(), properties);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        streams.setStateListener((now, before) -> System.out.println("STATE " + now));
        streams.start();
        while (System.in.read() >= 0) {
            int tasks = streams.metadataForLocalThreads().stream().mapToInt(t -> t.activeTasks().size()).sum();
            System.out.println("TASKS " + tasks);
        }
        System.out.println("CLOSED " + streams.close(Duration.ofSeconds(60)));
    }
}
