import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListOffsetsResult;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.EmitStrategy;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.processor.TimestampExtractor;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.Record;

/**
 * Sliding-window P99 for each service and endpoint, in Kafka Streams: what `benchmarks.peers` runs beside our flow.
 *
 * <p>Arguments: `dsl` or `tuned`, servers, input topic, output topic, application id, directory for state. It reads to
 * the end of the input, commits, and exits. `dsl` is what the documentation leads to. `tuned` is the most that we could
 * take away: no repartitioning, panes instead of windows, and no state store, so that nothing of it survives a crash.
 */
public final class SlidingP99 {
    private static final long SLIDE_MS = 10_000;
    private static final long LENGTH_MS = 60_000;
    private static final long LATENESS_MS = 5_000;
    private static final int PANES = (int) (LENGTH_MS / SLIDE_MS);
    private static final Duration POLL = Duration.ofMillis(100);
    private static final int QUIET_POLLS = 10;

    /** One request; a heartbeat has no series. */
    private record Event(long timestampMs, String series, double latencyMs, boolean error) {
        boolean isHeartbeat() {
            return series.isEmpty();
        }
    }

    /** A histogram with buckets of 2% width, exact counts, sum and maximum. */
    private static final class Sketch {
        private static final double WIDTH = Math.log(1.02);
        private static final int BUCKETS = 1_100;
        private static final double LEAST_MS = 0.01;

        final int[] buckets = new int[BUCKETS];
        long count;
        long errors;
        double sum;
        double max;

        void add(Event event) {
            int bucket = (int) (Math.log(Math.max(event.latencyMs, LEAST_MS) / LEAST_MS) / WIDTH);
            buckets[Math.min(bucket, BUCKETS - 1)]++;
            count++;
            errors += event.error ? 1 : 0;
            sum += event.latencyMs;
            max = Math.max(max, event.latencyMs);
        }

        void add(Sketch other) {
            for (int i = 0; i < BUCKETS; i++) {
                buckets[i] += other.buckets[i];
            }
            count += other.count;
            errors += other.errors;
            sum += other.sum;
            max = Math.max(max, other.max);
        }

        double quantile(double q) {
            long rank = (long) Math.ceil(q * count);
            long seen = 0;
            for (int i = 0; i < BUCKETS; i++) {
                seen += buckets[i];
                if (seen >= rank) {
                    return LEAST_MS * Math.exp((i + 0.5) * WIDTH);
                }
            }
            return max;
        }

        byte[] toJson(String series, long endMs) {
            int cut = series.indexOf('|');
            return String.format(
                    Locale.ROOT,
                    "{\"service\":\"%s\",\"endpoint\":\"%s\",\"window_end_ms\":%d,\"count\":%d,\"errors\":%d,"
                        + "\"mean_ms\":%.3f,\"max_ms\":%.3f,\"p50_ms\":%.3f,\"p90_ms\":%.3f,\"p99_ms\":%.3f}",
                    series.substring(0, cut), series.substring(cut + 1), endMs, count, errors, sum / count, max,
                    quantile(0.5), quantile(0.9), quantile(0.99))
                .getBytes(StandardCharsets.UTF_8);
        }

        /** Only the buckets that hold something, as pairs of number and count. */
        byte[] toBytes() {
            int used = 0;
            for (int bucket : buckets) {
                used += bucket > 0 ? 1 : 0;
            }
            ByteBuffer bytes = ByteBuffer.allocate(4 * Long.BYTES + used * (Short.BYTES + Integer.BYTES));
            bytes.putLong(count).putLong(errors).putDouble(sum).putDouble(max);
            for (int i = 0; i < BUCKETS; i++) {
                if (buckets[i] > 0) {
                    bytes.putShort((short) i).putInt(buckets[i]);
                }
            }
            return bytes.array();
        }

        static Sketch of(byte[] data) {
            ByteBuffer bytes = ByteBuffer.wrap(data);
            Sketch sketch = new Sketch();
            sketch.count = bytes.getLong();
            sketch.errors = bytes.getLong();
            sketch.sum = bytes.getDouble();
            sketch.max = bytes.getDouble();
            while (bytes.hasRemaining()) {
                sketch.buckets[bytes.getShort()] = bytes.getInt();
            }
            return sketch;
        }
    }

    /** Panes of all series of one partition; closes windows as the time of the partition passes them. */
    private static final class Windows extends ContextualProcessor<byte[], Event, byte[], byte[]> {
        private final Map<String, Map<Long, Sketch>> series = new HashMap<>();
        private long topMs = Long.MIN_VALUE;
        private long nextEndMs = Long.MIN_VALUE;

        @Override
        public void process(Record<byte[], Event> record) {
            Event event = record.value();
            long pane = Math.floorDiv(event.timestampMs, SLIDE_MS);
            if (topMs == Long.MIN_VALUE) {
                nextEndMs = (pane + 1) * SLIDE_MS;
            }
            if (!event.isHeartbeat() && (pane + 1) * SLIDE_MS > topMs - LATENESS_MS) {
                series.computeIfAbsent(event.series, unused -> new HashMap<>())
                    .computeIfAbsent(pane, unused -> new Sketch())
                    .add(event);
            }
            topMs = Math.max(topMs, event.timestampMs);
            for (; nextEndMs <= topMs - LATENESS_MS; nextEndMs += SLIDE_MS) {
                close(nextEndMs);
            }
        }

        private void close(long endMs) {
            long last = endMs / SLIDE_MS - 1;
            for (Map.Entry<String, Map<Long, Sketch>> one : series.entrySet()) {
                Sketch window = new Sketch();
                for (long pane = last - PANES + 1; pane <= last; pane++) {
                    Sketch part = one.getValue().get(pane);
                    if (part != null) {
                        window.add(part);
                    }
                }
                one.getValue().remove(last - PANES + 1);
                if (window.count > 0) {
                    byte[] key = one.getKey().getBytes(StandardCharsets.UTF_8);
                    context().forward(new Record<>(key, window.toJson(one.getKey(), endMs), endMs));
                }
            }
        }
    }

    private static final JsonFactory JSON = new JsonFactory();

    private static Event parse(byte[] data) {
        long timestampMs = 0;
        String service = "";
        String endpoint = "";
        double latencyMs = 0;
        int status = 200;
        try (JsonParser parser = JSON.createParser(data)) {
            parser.nextToken();
            while (parser.nextToken() == JsonToken.FIELD_NAME) {
                String name = parser.currentName();
                parser.nextToken();
                switch (name) {
                    case "timestamp_ms" -> timestampMs = parser.getLongValue();
                    case "service" -> service = parser.getText();
                    case "endpoint" -> endpoint = parser.getText();
                    case "latency_ms" -> latencyMs = parser.getDoubleValue();
                    case "status" -> status = parser.getIntValue();
                    default -> parser.skipChildren();
                }
            }
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
        String series = service.isEmpty() ? "" : service + "|" + endpoint;
        return new Event(timestampMs, series, latencyMs, status >= 500);
    }

    private static byte[] pack(Event event) {
        byte[] name = event.series.getBytes(StandardCharsets.UTF_8);
        ByteBuffer bytes = ByteBuffer.allocate(Long.BYTES + Double.BYTES + 1 + name.length);
        bytes.putLong(event.timestampMs).putDouble(event.latencyMs).put((byte) (event.error ? 1 : 0)).put(name);
        return bytes.array();
    }

    private static Event unpack(byte[] data) {
        ByteBuffer bytes = ByteBuffer.wrap(data);
        long timestampMs = bytes.getLong();
        double latencyMs = bytes.getDouble();
        boolean error = bytes.get() == 1;
        String name = new String(data, bytes.position(), bytes.remaining(), StandardCharsets.UTF_8);
        return new Event(timestampMs, name, latencyMs, error);
    }

    private static <T> Serde<T> serde(java.util.function.Function<T, byte[]> out, java.util.function.Function<byte[], T> in) {
        Serializer<T> writes = (topic, value) -> value == null ? null : out.apply(value);
        Deserializer<T> reads = (topic, data) -> data == null ? null : in.apply(data);
        return Serdes.serdeFrom(writes, reads);
    }

    private static void dsl(KStream<byte[], Event> events, String output) {
        Serde<Sketch> sketches = serde(Sketch::toBytes, Sketch::of);
        events.filterNot((key, event) -> event.isHeartbeat())
            .groupBy((key, event) -> event.series, Grouped.with(Serdes.String(), serde(SlidingP99::pack, SlidingP99::unpack)))
            .windowedBy(
                TimeWindows.ofSizeAndGrace(Duration.ofMillis(LENGTH_MS), Duration.ofMillis(LATENESS_MS))
                    .advanceBy(Duration.ofMillis(SLIDE_MS)))
            .emitStrategy(EmitStrategy.onWindowClose())
            .aggregate(
                Sketch::new,
                (series, event, sketch) -> {
                    sketch.add(event);
                    return sketch;
                },
                Materialized.with(Serdes.String(), sketches))
            .toStream((window, sketch) -> window)
            .map((window, sketch) ->
                org.apache.kafka.streams.KeyValue.pair(
                    window.key().getBytes(StandardCharsets.UTF_8), sketch.toJson(window.key(), window.window().end())))
            .to(output, Produced.with(Serdes.ByteArray(), Serdes.ByteArray()));
    }

    /** Waits until the group has committed the end of every partition, and for a second has made no other progress. */
    private static void awaitEnd(KafkaStreams streams, Admin admin, String group, String input) throws Exception {
        List<TopicPartition> partitions = new ArrayList<>();
        admin.describeTopics(List.of(input)).allTopicNames().get().get(input).partitions()
            .forEach(info -> partitions.add(new TopicPartition(input, info.partition())));
        Map<TopicPartition, OffsetSpec> latest = new HashMap<>();
        partitions.forEach(partition -> latest.put(partition, OffsetSpec.latest()));
        Map<TopicPartition, ListOffsetsResult.ListOffsetsResultInfo> ends = admin.listOffsets(latest).all().get();
        double before = -1;
        for (int quiet = 0; quiet < QUIET_POLLS; ) {
            Thread.sleep(POLL.toMillis());
            double processed = streams.metrics().values().stream()
                .filter(metric -> metric.metricName().name().equals("process-total"))
                .mapToDouble(metric -> (Double) metric.metricValue())
                .sum();
            Map<TopicPartition, OffsetAndMetadata> done =
                admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
            boolean atEnd = partitions.stream().allMatch(partition -> {
                long end = ends.get(partition).offset();
                OffsetAndMetadata place = done.get(partition);
                return end == 0 || (place != null && place.offset() >= end);
            });
            quiet = atEnd && processed == before && streams.state() == KafkaStreams.State.RUNNING ? quiet + 1 : 0;
            before = processed;
        }
    }

    public static void main(String[] arguments) throws Exception {
        String servers = arguments[1];
        String input = arguments[2];
        String output = arguments[3];
        String application = arguments[4];
        Properties config = new Properties();
        config.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, servers);
        config.put(StreamsConfig.APPLICATION_ID_CONFIG, application);
        config.put(StreamsConfig.STATE_DIR_CONFIG, arguments[5]);
        config.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        config.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
        config.put(StreamsConfig.producerPrefix("compression.type"), "lz4");
        TimestampExtractor eventTime = (record, partitionTime) -> ((Event) record.value()).timestampMs;
        StreamsBuilder builder = new StreamsBuilder();
        KStream<byte[], Event> events = builder.stream(
            input,
            Consumed.with(Serdes.ByteArray(), serde(SlidingP99::pack, SlidingP99::parse)).withTimestampExtractor(eventTime));
        if (arguments[0].equals("dsl")) {
            dsl(events, output);
        } else {
            events.process(Windows::new).to(output, Produced.with(Serdes.ByteArray(), Serdes.ByteArray()));
        }
        Properties client = new Properties();
        client.put("bootstrap.servers", servers);
        try (KafkaStreams streams = new KafkaStreams(builder.build(), config);
                Admin admin = Admin.create(client)) {
            streams.setUncaughtExceptionHandler(error -> {
                error.printStackTrace();
                Runtime.getRuntime().halt(1);
                return null;
            });
            streams.start();
            awaitEnd(streams, admin, application, input);
        }
    }
}
