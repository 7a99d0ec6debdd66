// Writes what Apache Kafka's own classes make of every message, record schema and version: `cargo xtask golden`.
//
//   java -cp 'JARS/*' Golden.java SPECS OUT
//
// SPECS holds one folder of JSON specs per jar. OUT is a gzipped file of lines, tab between the columns:
//   message, version, sample, hexadecimal bytes, the value as Rust's `{:?}` prints the generated structure
// Samples: `full` sets every field of the version; `null` is full with null wherever it is allowed and tagged fields in
// turn left alone; `default` is the untouched object; `hollow` has one default element in every array of structures.
// Values depend on nothing but the path of their field, so two runs give the same file.

import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.File;
import java.io.OutputStream;
import java.lang.reflect.Method;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.zip.GZIPOutputStream;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.ObjectSerializationCache;
import org.apache.kafka.common.record.internal.BaseRecords;
import org.apache.kafka.common.record.internal.MemoryRecords;

public class Golden {
    static final String[] PACKAGES = {
        "org.apache.kafka.common.message", "org.apache.kafka.common.metadata", "org.apache.kafka.raft.generated",
        "org.apache.kafka.coordinator.group.generated", "org.apache.kafka.coordinator.transaction.generated",
        "org.apache.kafka.coordinator.share.generated", "org.apache.kafka.server.log.remote.metadata.storage.generated",
        "org.apache.kafka.storage.internals.log", "org.apache.kafka.server.log.remote.storage.generated",
        "org.apache.kafka.storage.generated", "org.apache.kafka.server.storage.log.generated",
    };

    enum Sample { FULL, NULL, DEFAULT, HOLLOW }

    record Versions(int lo, int hi) {
        static Versions parse(JsonNode node) {
            String s = node == null ? "none" : node.asText();
            if (s.equals("none")) return new Versions(0, -1);
            if (s.endsWith("+")) return new Versions(Integer.parseInt(s.substring(0, s.length() - 1)), Short.MAX_VALUE);
            String[] ends = s.split("-");
            return new Versions(Integer.parseInt(ends[0]), Integer.parseInt(ends[ends.length - 1]));
        }

        boolean has(int v) {
            return lo <= v && v <= hi;
        }

        Versions and(Versions o) {
            return new Versions(Math.max(lo, o.lo), Math.min(hi, o.hi));
        }

        boolean isEmpty() {
            return lo > hi;
        }
    }

    final String name;
    final JsonNode spec;
    final Class<?> root;
    final Versions valid;
    final Map<String, JsonNode> structs = new HashMap<>();

    Golden(JsonNode spec) throws Exception {
        this.spec = spec;
        name = spec.get("name").asText();
        valid = Versions.parse(spec.get("validVersions"));
        root = find(name);
        collect(spec.get("fields"));
        if (spec.has("commonStructs")) for (JsonNode s : spec.get("commonStructs")) {
            structs.put(s.get("name").asText(), s);
            collect(s.get("fields"));
        }
    }

    static Class<?> find(String name) throws ClassNotFoundException {
        for (String pack : PACKAGES) for (String suffix : new String[] {"Data", ""}) {
            try {
                return Class.forName(pack + "." + name + suffix);
            } catch (ClassNotFoundException e) {
                // the next one
            }
        }
        throw new ClassNotFoundException(name);
    }

    void collect(JsonNode fields) {
        for (JsonNode f : fields) if (f.has("fields")) {
            structs.put(element(f.get("type").asText()), f);
            collect(f.get("fields"));
        }
    }

    static String element(String type) {
        return type.startsWith("[]") ? type.substring(2) : type;
    }

    static int hash(String path) {
        int h = 0x811c9dc5;
        for (byte b : path.getBytes(StandardCharsets.UTF_8)) h = (h ^ (b & 0xff)) * 0x01000193;
        return h ^ (h >>> 15);
    }

    static String camel(String name) {
        return Character.toUpperCase(name.charAt(0)) + name.substring(1);
    }

    static Method method(Class<?> type, String name, int parameters) {
        for (Method m : type.getDeclaredMethods())
            if (m.getName().equals(name) && m.getParameterCount() == parameters && !m.isBridge()) return m;
        throw new IllegalStateException(type + "." + name);
    }

    Class<?> struct(String type) throws ClassNotFoundException {
        return Class.forName(root.getName() + "$" + type, true, root.getClassLoader());
    }

    void fill(Object target, JsonNode fields, int v, Sample sample, String path, Versions within) throws Exception {
        for (JsonNode f : fields) {
            String fieldName = f.get("name").asText();
            String type = f.get("type").asText();
            Versions tagged = Versions.parse(f.get("taggedVersions"));
            Versions versions = f.has("versions") ? Versions.parse(f.get("versions")) : tagged;
            if (!versions.has(v)) continue;
            String at = path + "." + fieldName;
            Method setter = method(target.getClass(), "set" + camel(fieldName), 1);
            boolean nullable = Versions.parse(f.get("nullableVersions")).has(v);
            if (sample == Sample.HOLLOW) {
                if (type.startsWith("[]") && structs.containsKey(element(type)))
                    setter.invoke(target, value(type, setter.getParameterTypes()[0], v, sample, at, versions));
                continue;
            }
            if (sample == Sample.NULL && tagged.has(v) && (hash(at) & 1) == 0) continue;
            if (sample == Sample.NULL && nullable) setter.invoke(target, new Object[] {null});
            else setter.invoke(target, value(type, setter.getParameterTypes()[0], v, sample, at, versions));
        }
    }

    Object value(String type, Class<?> java, int v, Sample sample, String path, Versions within) throws Exception {
        int h = hash(path);
        long wide = ((long) h << 32) ^ hash(path + "~");
        if (type.startsWith("[]")) {
            Collection<Object> list = newCollection(java);
            int depth = (int) path.chars().filter(c -> c == '[').count();
            int n = sample == Sample.HOLLOW || depth >= 2 ? 1 : 2;
            for (int i = 0; i < n; i++)
                list.add(value(type.substring(2), null, v, sample, path + "[" + i + "]", within));
            return list;
        }
        switch (type) {
            case "bool": return (h & 3) != 0;
            case "int8": return (byte) h;
            case "int16": return (short) h;
            case "int32": return h;
            case "int64": return wide;
            case "uint16": return h & 0xffff;
            case "uint32": return h & 0xffffffffL;
            case "float64": return (h >> 8) / 8.0;
            case "uuid": return new Uuid(wide, ~wide);
            case "string": return text(path, h);
            case "bytes": {
                byte[] bytes = bytes(path, h);
                return java == byte[].class ? bytes : ByteBuffer.wrap(bytes);
            }
            case "records": return MemoryRecords.readableRecords(ByteBuffer.wrap(bytes(path, h)));
            default: {
                Object o = struct(type).getDeclaredConstructor().newInstance();
                fill(o, structs.get(type).get("fields"), v, sample, path, within);
                return o;
            }
        }
    }

    @SuppressWarnings("unchecked")
    static Collection<Object> newCollection(Class<?> type) throws Exception {
        if (type == null || type == List.class) return new ArrayList<>();
        return (Collection<Object>) type.getDeclaredConstructor().newInstance();
    }

    static String text(String path, int h) {
        String last = path.substring(path.lastIndexOf('.') + 1);
        switch (h & 7) {
            case 0: return "";
            case 1: return last + "-\u00e9\u20ac\ud834\udd1e";
            case 2: return last.repeat(1 + 130 / last.length());
            default: return last + (h & 0xff);
        }
    }

    static byte[] bytes(String path, int h) {
        byte[] bytes = new byte[(h & 7) == 0 ? 0 : (h & 7) == 1 ? 130 : h >>> 28];
        for (int i = 0; i < bytes.length; i++) bytes[i] = (byte) (h + i * 37);
        return bytes;
    }

    // As Rust prints it.

    void printStruct(StringBuilder out, Object o, String type, JsonNode fields, Versions within) throws Exception {
        out.append(type);
        boolean first = true;
        for (JsonNode f : fields) {
            Versions versions = f.has("versions") ? Versions.parse(f.get("versions")) : Versions.parse(f.get("taggedVersions"));
            versions = versions.and(within);
            if (versions.isEmpty()) continue;
            String fieldName = f.get("name").asText();
            Method getter = method(o.getClass(), Character.toLowerCase(fieldName.charAt(0)) + fieldName.substring(1), 0);
            out.append(first ? " { " : ", ").append(snake(fieldName)).append(": ");
            first = false;
            boolean optional = !Versions.parse(f.get("nullableVersions")).and(versions).isEmpty();
            Object value = getter.invoke(o);
            if (optional && value == null) {
                out.append("None");
                continue;
            }
            if (optional) out.append("Some(");
            print(out, value, f.get("type").asText(), versions);
            if (optional) out.append(")");
        }
        if (!first) out.append(" }");
    }

    void print(StringBuilder out, Object value, String type, Versions within) throws Exception {
        if (type.startsWith("[]")) {
            out.append("[");
            String separator = "";
            for (Object element : (Collection<?>) value) {
                out.append(separator);
                print(out, element, type.substring(2), within);
                separator = ", ";
            }
            out.append("]");
            return;
        }
        switch (type) {
            case "string": out.append('"').append(value).append('"'); break;
            case "bytes":
                if (value instanceof byte[]) value = ByteBuffer.wrap((byte[]) value);
                printBytes(out, (ByteBuffer) value);
                break;
            case "records": printBytes(out, value == null ? ByteBuffer.allocate(0) : ((MemoryRecords) value).buffer()); break;
            case "bool": case "int8": case "int16": case "int32": case "int64": case "uint16": case "uint32":
            case "float64": case "uuid": out.append(value); break;
            default: {
                JsonNode s = structs.get(type);
                // An inline structure exists where its field does, a common one says so itself.
                Versions versions = s.has("type") ? within : Versions.parse(s.get("versions")).and(valid);
                printStruct(out, value, type, s.get("fields"), versions);
            }
        }
    }

    static void printBytes(StringBuilder out, ByteBuffer buffer) {
        out.append("b\"");
        for (int i = buffer.position(); i < buffer.limit(); i++) {
            int b = buffer.get(i) & 0xff;
            if (b == '\n') out.append("\\n");
            else if (b == '\r') out.append("\\r");
            else if (b == '\t') out.append("\\t");
            else if (b == '\\' || b == '"') out.append('\\').append((char) b);
            else if (b == 0) out.append("\\0");
            else if (b >= 0x20 && b < 0x7f) out.append((char) b);
            else out.append(String.format("\\x%02x", b));
        }
        out.append('"');
    }

    static String snake(String name) {
        name = name.replace("KRaft", "Kraft");
        StringBuilder out = new StringBuilder();
        for (int i = 0; i < name.length(); i++) {
            char c = name.charAt(i);
            boolean starts = i > 0 && (!Character.isUpperCase(name.charAt(i - 1))
                || i + 1 < name.length() && Character.isLowerCase(name.charAt(i + 1)));
            if (Character.isUpperCase(c) && starts) out.append('_');
            out.append(Character.toLowerCase(c));
        }
        return out.toString();
    }

    static ByteBuffer encode(Message message, short version) {
        ObjectSerializationCache cache = new ObjectSerializationCache();
        ByteBufferAccessor out = new ByteBufferAccessor(ByteBuffer.allocate(message.size(cache, version)));
        message.write(out, cache, version);
        ByteBuffer buffer = out.buffer();
        buffer.flip();
        return buffer;
    }

    void run(StringBuilder out) throws Exception {
        for (int v = valid.lo(); v <= valid.hi(); v++) {
            String before = null;
            for (Sample sample : Sample.values()) {
                Message message = (Message) root.getDeclaredConstructor().newInstance();
                if (sample != Sample.DEFAULT) fill(message, spec.get("fields"), v, sample, name, valid);
                ByteBuffer bytes;
                try {
                    bytes = encode(message, (short) v);
                } catch (NullPointerException e) {
                    continue; // a record set that is null by default but may not be
                }
                StringBuilder hex = new StringBuilder();
                while (bytes.hasRemaining()) hex.append(String.format("%02x", bytes.get()));
                StringBuilder text = new StringBuilder();
                printStruct(text, message, name, spec.get("fields"), valid);
                String line = hex + "\t" + text;
                if (line.equals(before)) continue;
                before = line;
                out.append(name).append('\t').append(v).append('\t').append(sample.name().toLowerCase()).append('\t')
                    .append(line).append('\n');
            }
        }
    }

    public static void main(String[] args) throws Exception {
        ObjectMapper json = new ObjectMapper();
        json.configure(JsonParser.Feature.ALLOW_COMMENTS, true);
        StringBuilder out = new StringBuilder();
        File[] jars = new File(args[0]).listFiles(File::isDirectory);
        Arrays.sort(jars);
        for (File jar : jars) {
            if (jar.getName().equals("kafka-streams")) continue;
            File[] files = jar.listFiles((dir, file) -> file.endsWith(".json"));
            Arrays.sort(files);
            for (File file : files) {
                JsonNode spec = json.readTree(file);
                if (spec.get("validVersions").asText().equals("none")) continue;
                new Golden(spec).run(out);
            }
        }
        try (OutputStream file = new GZIPOutputStream(Files.newOutputStream(Path.of(args[1])))) {
            file.write(out.toString().getBytes(StandardCharsets.UTF_8));
        }
    }
}
