// Golden record batches by Kafka's own classes, and the reverse: batches from elsewhere, read by Kafka's classes.
//
//   java -cp "$(kafka classpath)" BatchGolden.java write > crates/wire/testdata/batch/golden.txt
//   java -cp "$(kafka classpath)" BatchGolden.java check FILE     (FILE in the same format; exit 1 on a difference)
//
// Format, one line each: "batch NAME HEX", then "h BASE LAST LEADER_EPOCH ATTRIBUTES MAX_TIMESTAMP PRODUCER_ID
// PRODUCER_EPOCH BASE_SEQUENCE COUNT", then for every record "r OFFSET TIMESTAMP KEY VALUE [HEADER_KEY=HEADER_VALUE ...]".
// A field is hex, "-" for null, "." for empty, or "#LENGTH:CRC32C" beyond 64 bytes.

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.util.*;
import java.util.zip.CRC32C;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.message.*;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.*;
import org.apache.kafka.common.utils.BufferSupplier;
import org.apache.kafka.common.utils.ByteBufferOutputStream;

public class BatchGolden {
    static final byte V2 = RecordBatch.MAGIC_VALUE_V2;
    static final long T = 1_700_000_000_000L;

    static byte[] b(String s) { return s.getBytes(StandardCharsets.UTF_8); }

    static String hex(ByteBuffer buf) {
        StringBuilder s = new StringBuilder();
        for (int i = buf.position(); i < buf.limit(); i++) s.append(String.format("%02x", buf.get(i)));
        return s.toString();
    }

    static String field(ByteBuffer buf) {
        if (buf == null) return "-";
        if (!buf.hasRemaining()) return ".";
        if (buf.remaining() <= 64) return hex(buf);
        CRC32C crc = new CRC32C();
        crc.update(buf.duplicate());
        return "#" + buf.remaining() + ":" + Long.toHexString(crc.getValue());
    }

    static List<String> describe(RecordBatch batch, int attributes) {
        List<String> lines = new ArrayList<>();
        batch.ensureValid();
        lines.add(String.format("h %d %d %d %d %d %d %d %d %d", batch.baseOffset(), batch.lastOffset(),
            batch.partitionLeaderEpoch(), attributes, batch.maxTimestamp(), batch.producerId(), batch.producerEpoch(),
            batch.baseSequence(), batch.countOrNull()));
        try (var records = batch.streamingIterator(BufferSupplier.create())) {
            while (records.hasNext()) {
                org.apache.kafka.common.record.internal.Record r = records.next();
                StringBuilder s = new StringBuilder("r " + r.offset() + " " + r.timestamp() + " " + field(r.key()) + " " + field(r.value()));
                for (Header h : r.headers())
                    s.append(" ").append(field(ByteBuffer.wrap(b(h.key())))).append("=").append(field(h.value() == null ? null : ByteBuffer.wrap(h.value())));
                lines.add(s.toString());
            }
        }
        return lines;
    }

    static List<String> describe(ByteBuffer bytes) {
        List<String> lines = new ArrayList<>();
        for (RecordBatch batch : MemoryRecords.readableRecords(bytes.duplicate()).batches()) lines.addAll(describe(batch, bytes.getShort(21)));
        return lines;
    }

    static void put(String name, ByteBuffer bytes) {
        System.out.println("batch " + name + " " + hex(bytes));
        describe(bytes).forEach(System.out::println);
    }

    static Header[] headers(Object... kv) {
        Header[] out = new Header[kv.length / 2];
        for (int i = 0; i < out.length; i++) out[i] = new RecordHeader((String) kv[2 * i], (byte[]) kv[2 * i + 1]);
        return out;
    }

    static void mixed(MemoryRecordsBuilder m, boolean large) {
        m.append(T, b("key"), b("value"));
        m.append(T + 5, (byte[]) null, b("no key"));
        m.append(T - 70_000, b("tombstone"), null);
        m.append(T + 1, new byte[0], new byte[0]);
        m.append(T + 2, (byte[]) null, null);
        m.append(T + 3, b("h"), b("v"), headers("a", b("1"), "a", b("2"), "b", null, "", new byte[0], "schl\u00fcssel", new byte[] {0, -1}));
        for (int i = 0; i < 40; i++) m.append(T + i * 1000L, b("user-" + i % 7), b("{\"n\":" + i + ",\"text\":\"some text that repeats\"}"));
        if (large) {
            byte[] v = new byte[200_000];
            for (int i = 0; i < v.length; i++) v[i] = (byte) (i / 1000 + i % 13);
            m.append(T + 99, b("large"), v);
        }
    }

    static MemoryRecordsBuilder builder(Compression c, TimestampType type, long base, long pid, int epoch, int seq, boolean txn) {
        return MemoryRecords.builder(ByteBuffer.allocate(1024), V2, c, type, base, T + 123_456, pid, (short) epoch, seq, txn, false, 11);
    }

    static void write() throws Exception {
        Map<String, Compression> codecs = new LinkedHashMap<>();
        codecs.put("none", Compression.NONE);
        codecs.put("gzip", Compression.gzip().build());
        codecs.put("snappy", Compression.snappy().build());
        codecs.put("lz4", Compression.lz4().build());
        codecs.put("zstd", Compression.zstd().build());
        codecs.put("gzip-level9", Compression.gzip().level(9).build());
        codecs.put("lz4-level17", Compression.lz4().level(17).build());
        codecs.put("zstd-level22", Compression.zstd().level(22).build());
        for (var e : codecs.entrySet()) {
            MemoryRecordsBuilder m = builder(e.getValue(), TimestampType.CREATE_TIME, 1_000_000_007L, 4_242, 3, Integer.MAX_VALUE - 2, false);
            mixed(m, e.getValue() != Compression.NONE);
            put("mixed-" + e.getKey(), m.build().buffer());
        }
        MemoryRecordsBuilder lat = builder(Compression.lz4().build(), TimestampType.LOG_APPEND_TIME, 5, -1, -1, -1, false);
        mixed(lat, false);
        put("log-append-time", lat.build().buffer());
        MemoryRecordsBuilder txn = builder(Compression.NONE, TimestampType.CREATE_TIME, 0, 9, 1, 0, true);
        txn.append(-1, b("k"), b("v"));
        put("transactional-no-timestamp", txn.build().buffer());

        MemoryRecordsBuilder gaps = new MemoryRecordsBuilder(new ByteBufferOutputStream(512), V2, Compression.zstd().build(),
            TimestampType.CREATE_TIME, 100, -1, 9, (short) 1, 50, false, false, 3, Integer.MAX_VALUE, T + 86_400_000);
        gaps.appendWithOffset(102, T, b("a"), null);
        gaps.appendWithOffset(109, T + 1, b("b"), b("c"));
        gaps.overrideLastOffset(120);
        put("compacted-with-horizon", gaps.build().buffer());
        ByteBuffer empty = ByteBuffer.allocate(61);
        DefaultRecordBatch.writeEmptyHeader(empty, V2, 9, (short) 1, 50, 200, 207, 4, TimestampType.CREATE_TIME, T, true, false);
        empty.flip();
        put("emptied", empty);

        put("commit", MemoryRecords.withEndTransactionMarker(77, T, 5, 4_242, (short) 3, new EndTransactionMarker(ControlRecordType.COMMIT, 17)).buffer());
        put("abort", MemoryRecords.withEndTransactionMarker(78, T, 5, 4_242, (short) 3, new EndTransactionMarker(ControlRecordType.ABORT, 18)).buffer());
        var voter = new LeaderChangeMessage.Voter().setVoterId(1);
        put("leader-change", MemoryRecords.withLeaderChangeMessage(0, T, 7, ByteBuffer.allocate(256),
            new LeaderChangeMessage().setLeaderId(1).setVoters(List.of(voter)).setGrantingVoters(List.of(voter))).buffer());
        put("snapshot-header", MemoryRecords.withSnapshotHeaderRecord(0, T, 7, ByteBuffer.allocate(256),
            new SnapshotHeaderRecord().setVersion((short) 0).setLastContainedLogTimestamp(T - 1)).buffer());
        put("kraft-version", MemoryRecords.withKRaftVersionRecord(1, T, 7, ByteBuffer.allocate(256), new KRaftVersionRecord().setKRaftVersion((short) 1)).buffer());
        put("voters", MemoryRecords.withVotersRecord(2, T, 7, ByteBuffer.allocate(256), new VotersRecord().setVoters(List.of(
            new VotersRecord.Voter().setVoterId(1).setKRaftVersionFeature(new VotersRecord.KRaftVersionFeature().setMaxSupportedVersion((short) 1))))).buffer());
        put("snapshot-footer", MemoryRecords.withSnapshotFooterRecord(3, T, 7, ByteBuffer.allocate(256), new SnapshotFooterRecord()).buffer());
    }

    static void check(String file) throws Exception {
        int batches = 0, bad = 0;
        List<String> expected = null, got = new ArrayList<>();
        String name = "";
        List<String> lines = new ArrayList<>(Files.readAllLines(Path.of(file)));
        lines.add("batch end ");
        for (String line : lines) {
            if (!line.startsWith("batch ")) { expected.add(line); continue; }
            if (expected != null && !expected.equals(got)) { bad++; System.out.println(name + ": expected " + expected + "\n  got " + got); }
            expected = new ArrayList<>();
            String[] part = line.split(" ", 3);
            name = part[1];
            if (name.equals("end")) break;
            byte[] bytes = HexFormat.of().parseHex(part[2]);
            try { got = describe(ByteBuffer.wrap(bytes)); } catch (Exception e) { got = List.of(e.toString()); }
            batches++;
        }
        System.out.println(batches + " batches, " + bad + " differ");
        if (bad > 0) System.exit(1);
    }

    public static void main(String[] args) throws Exception {
        if (args[0].equals("write")) write(); else check(args[1]);
    }
}
