// Members of consumer groups, told by their standard input what to do. Run from source:
// java -cp 'jars/*' Members.java BOOTSTRAP
//
// Input:   start NAME [key=value ...]   joins; of the keys, "topics" (commas between) and "pattern" (RE2) are this program's
//          close NAME                   leaves; the end of the input closes all
// Output:  NAME ASSIGNED t-0 t-1        what the member has, whenever that changes
//          NAME GOT t-0 17 value        a record; it is committed before the next ones are fetched
//          NAME ERROR text              a commit or a poll that failed
//          NAME CLOSED
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.time.Duration;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.TreeSet;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.errors.RetriableException;
import org.apache.kafka.common.serialization.StringDeserializer;

public class Members {
    static final Map<String, Member> MEMBERS = new HashMap<>();

    public static void main(String[] args) throws Exception {
        var input = new BufferedReader(new InputStreamReader(System.in));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            String[] words = line.split(" ");
            if (words[0].equals("start")) {
                Member member = new Member(words[1], args[0], Arrays.copyOfRange(words, 2, words.length));
                MEMBERS.put(words[1], member);
                member.start();
            } else {
                MEMBERS.remove(words[1]).open = false;
            }
        }
        for (Member member : MEMBERS.values()) {
            member.open = false;
        }
    }

    static synchronized void say(String line) {
        System.out.println(line);
        System.out.flush();
    }

    static class Member extends Thread {
        final String name;
        final Properties properties = new Properties();
        volatile boolean open = true;

        Member(String name, String bootstrap, String[] settings) {
            this.name = name;
            properties.put("bootstrap.servers", bootstrap);
            properties.put("auto.offset.reset", "earliest");
            properties.put("enable.auto.commit", "false");
            properties.put("client.id", name);
            properties.put("metadata.max.age.ms", "1000");
            for (String setting : settings) {
                String[] pair = setting.split("=", 2);
                properties.put(pair[0], pair[1]);
            }
        }

        @Override
        public void run() {
            String topics = (String) properties.remove("topics");
            String pattern = (String) properties.remove("pattern");
            try (var consumer = new KafkaConsumer<>(properties, new StringDeserializer(), new StringDeserializer())) {
                if (pattern != null) {
                    consumer.subscribe(new SubscriptionPattern(pattern));
                } else {
                    consumer.subscribe(Arrays.asList(topics.split(",")));
                }
                String assigned = null;
                while (open) {
                    var records = consumer.poll(Duration.ofMillis(100));
                    var names = new TreeSet<String>();
                    consumer.assignment().forEach(partition -> names.add(partition.toString()));
                    String now = String.join(" ", names);
                    if (!now.equals(assigned)) {
                        assigned = now;
                        say((name + " ASSIGNED " + now).trim());
                    }
                    records.forEach(r -> say(name + " GOT " + r.topic() + "-" + r.partition() + " " + r.offset() + " " + r.value()));
                    if (!records.isEmpty()) {
                        try {
                            consumer.commitSync();
                        } catch (CommitFailedException | RebalanceInProgressException | RetriableException e) {
                            say(name + " ERROR commit " + e);
                        }
                    }
                }
            } catch (Exception e) {
                say(name + " ERROR " + e);
            }
            say(name + " CLOSED");
        }
    }
}
