// Runs Apache Kafka's console tools one after another in one process: a line of standard input is one command, as a
// shell would read it, its first word one of TOOLS. `<<< "text"` at the end is its input. Prints the line, what the tool
// said, and the status it ended with. What no tool of Kafka's does is done here: `transaction begin|commit ID ...` and
// `streams ID IN OUT COUNT` (see below).

import java.io.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.util.*;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.TransactionState;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.common.utils.Exit;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;

public class Transcript {
    static final Map<String, String> TOOLS = Map.ofEntries(
        Map.entry("kafka-topics", "org.apache.kafka.tools.TopicCommand"),
        Map.entry("kafka-configs", "kafka.admin.ConfigCommand"),
        Map.entry("kafka-consumer-groups", "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"),
        Map.entry("kafka-share-groups", "org.apache.kafka.tools.consumer.group.ShareGroupCommand"),
        Map.entry("kafka-streams-groups", "org.apache.kafka.tools.streams.StreamsGroupCommand"),
        Map.entry("kafka-groups", "org.apache.kafka.tools.GroupsCommand"),
        Map.entry("kafka-get-offsets", "org.apache.kafka.tools.GetOffsetShell"),
        Map.entry("kafka-delete-records", "org.apache.kafka.tools.DeleteRecordsCommand"),
        Map.entry("kafka-log-dirs", "org.apache.kafka.tools.LogDirsCommand"),
        Map.entry("kafka-features", "org.apache.kafka.tools.FeatureCommand"),
        Map.entry("kafka-transactions", "org.apache.kafka.tools.TransactionsCommand"),
        Map.entry("kafka-broker-api-versions", "org.apache.kafka.tools.BrokerApiVersionsCommand"),
        Map.entry("kafka-metadata-quorum", "org.apache.kafka.tools.MetadataQuorumCommand"),
        Map.entry("kafka-cluster", "org.apache.kafka.tools.ClusterTool"),
        Map.entry("kafka-acls", "org.apache.kafka.tools.AclCommand"),
        Map.entry("kafka-reassign-partitions", "org.apache.kafka.tools.reassign.ReassignPartitionsCommand"),
        Map.entry("kafka-leader-election", "org.apache.kafka.tools.LeaderElectionCommand"),
        Map.entry("kafka-client-metrics", "org.apache.kafka.tools.ClientMetricsCommand"),
        Map.entry("kafka-dump-log", "org.apache.kafka.tools.DumpLogSegments"),
        Map.entry("kafka-console-producer", "org.apache.kafka.tools.ConsoleProducer"),
        Map.entry("kafka-console-consumer", "org.apache.kafka.tools.consumer.ConsoleConsumer"),
        Map.entry("kafka-console-share-consumer", "org.apache.kafka.tools.consumer.ConsoleShareConsumer"));

    /** Thrown instead of an exit. Some tools catch it and try to end again: the first status counts, and no later word. */
    static final class Ended extends RuntimeException {
        Ended() {
            super("ended", null, false, false);
        }
    }

    static Integer ended;

    static void end(int status) {
        if (ended == null) ended = status;
        System.setOut(new PrintStream(OutputStream.nullOutputStream()));
        System.setErr(System.out);
        throw new Ended();
    }

    public static void main(String[] arguments) throws Exception {
        String server = arguments[0];
        Exit.setExitProcedure((status, message) -> end(status));
        Exit.setHaltProcedure((status, message) -> end(status));
        PrintStream out = System.out;
        String[] lines = new String(System.in.readAllBytes(), StandardCharsets.UTF_8).split("\n");
        for (String line : lines) {
            if (line.isBlank()) continue;
            List<String> words = words(line);
            String input = "";
            int at = words.indexOf("<<<");
            if (at >= 0) {
                input = words.get(at + 1).replace("\\n", "\n").replace("\\t", "\t");
                words = words.subList(0, at);
            }
            ByteArrayOutputStream said = new ByteArrayOutputStream();
            int status = run(server, words, input, new PrintStream(said, true, StandardCharsets.UTF_8));
            out.println("$ " + line);
            String text = said.toString(StandardCharsets.UTF_8);
            out.print(text.isEmpty() || text.endsWith("\n") ? text : text + "\n");
            out.println("[" + status + "]");
            out.flush();
        }
        Runtime.getRuntime().halt(0);
    }

    static int run(String server, List<String> words, String input, PrintStream said) {
        PrintStream out = System.out, err = System.err;
        ended = null;
        System.setOut(said);
        System.setErr(said);
        System.setIn(new ByteArrayInputStream(input.getBytes(StandardCharsets.UTF_8)));
        try {
            if (words.get(0).equals("transaction")) return transaction(server, words);
            if (words.get(0).equals("streams")) return streams(server, words, said);
            String name = TOOLS.get(words.get(0));
            if (name == null) throw new IllegalArgumentException("no such tool: " + words.get(0));
            List<String> given = new ArrayList<>(List.of("--bootstrap-server", server));
            given.addAll(words.subList(1, words.size()));
            // These take their subcommand first, or no server at all.
            if (words.get(0).equals("kafka-cluster")) {
                given = new ArrayList<>(words.subList(1, words.size()));
                given.addAll(List.of("--bootstrap-server", server));
            }
            if (words.get(0).equals("kafka-dump-log")) given = new ArrayList<>(words.subList(1, words.size()));
            Class.forName(name).getMethod("main", String[].class).invoke(null, (Object) given.toArray(new String[0]));
            return ended == null ? 0 : ended;
        } catch (java.lang.reflect.InvocationTargetException e) {
            if (ended != null) return ended;
            said.println(e.getCause());
            return 1;
        } catch (Exception e) {
            said.println(e);
            return 1;
        } finally {
            System.setOut(out);
            System.setErr(err);
        }
    }

    /** Transactions that are open, by their id. */
    static final Map<String, KafkaProducer<String, String>> OPEN = new HashMap<>();

    /** `transaction begin ID TOPIC VALUE` sends a record and leaves the transaction open; `commit ID` ends it. */
    static int transaction(String server, List<String> words) throws Exception {
        String id = words.get(2);
        switch (words.get(1)) {
            case "begin" -> {
                KafkaProducer<String, String> producer = new KafkaProducer<>(
                    Map.of("bootstrap.servers", server, "transactional.id", id, "enable.metrics.push", false),
                    new StringSerializer(), new StringSerializer());
                producer.initTransactions();
                producer.beginTransaction();
                producer.send(new ProducerRecord<>(words.get(3), 0, null, words.get(4)));
                producer.flush();
                OPEN.put(id, producer);
            }
            case "commit" -> {
                OPEN.get(id).commitTransaction();
                // The markers are written behind the answer.
                try (Admin admin = Admin.create(Map.of("bootstrap.servers", server, "enable.metrics.push", false))) {
                    while (admin.describeTransactions(List.of(id)).description(id).get().state() != TransactionState.COMPLETE_COMMIT)
                        Thread.sleep(20);
                }
            }
            default -> throw new IllegalArgumentException(words.get(1));
        }
        return 0;
    }

    /** `streams ID IN OUT COUNT`: a Streams application of the streams protocol that copies so many records and ends. */
    static int streams(String server, List<String> words, PrintStream said) throws Exception {
        Properties config = new Properties();
        config.put("bootstrap.servers", server);
        config.put("application.id", words.get(1));
        config.put("group.protocol", "streams");
        config.put("num.stream.threads", 1);
        config.put("enable.metrics.push", false);
        config.put("state.dir", Files.createTempDirectory("transcript").toString());
        StreamsBuilder builder = new StreamsBuilder();
        CountDownLatch copied = new CountDownLatch(Integer.parseInt(words.get(4)));
        builder.stream(words.get(2), Consumed.with(Serdes.String(), Serdes.String()))
            .peek((key, value) -> copied.countDown())
            .to(words.get(3), Produced.with(Serdes.String(), Serdes.String()));
        try (KafkaStreams streams = new KafkaStreams(builder.build(), config)) {
            streams.start();
            said.println(copied.await(60, TimeUnit.SECONDS) ? "it copied them" : "it did not copy them");
        }
        return 0;
    }

    /** Words between blanks; quotes of both kinds keep blanks together. */
    static List<String> words(String line) {
        List<String> words = new ArrayList<>();
        StringBuilder word = null;
        char quote = 0;
        for (char c : line.toCharArray()) {
            if (quote != 0) {
                if (c == quote) quote = 0;
                else word.append(c);
            } else if (c == '"' || c == '\'') {
                quote = c;
                if (word == null) word = new StringBuilder();
            } else if (c == ' ') {
                if (word != null) words.add(word.toString());
                word = null;
            } else {
                if (word == null) word = new StringBuilder();
                word.append(c);
            }
        }
        if (word != null) words.add(word.toString());
        return words;
    }
}
