// franz-go against a broker: produce with each codec, read in a group whose members come and go, commit, seek by time.
//
// Arguments: bootstrap address, records per codec, or `traffic` for a short life that is recorded. Ends with status 0 when everything was as it should be.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

var codecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func client(options ...kgo.Opt) *kgo.Client {
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(os.Args[1])}, options...)...)
	must(err)
	return c
}

// member reads until done says so, then commits what it read and leaves.
func member(ctx context.Context, group, topic string, seen *sync.Map, done func() bool) {
	c := client(kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.SessionTimeout(6*time.Second))
	defer c.Close()
	for !done() {
		poll, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		fetches := c.PollFetches(poll)
		cancel()
		must(ctx.Err())
		fetches.EachRecord(func(r *kgo.Record) {
			if len(r.Headers) != 2 || string(r.Headers[1].Value) != string(r.Key) {
				log.Fatalf("headers of %s: %v", r.Key, r.Headers)
			}
			seen.Store(string(r.Value), true)
		})
	}
	if err := c.CommitUncommittedOffsets(ctx); err != nil {
		log.Printf("commit: %v", err) // a member of an older generation
	}
}

func size(m *sync.Map) (n int) {
	m.Range(func(any, any) bool { n++; return true })
	return
}

func roundTrip(ctx context.Context, admin *kadm.Client, name string, codec kgo.CompressionCodec, count int) {
	topic := "franz-" + name
	_, err := admin.CreateTopic(ctx, 3, 1, nil, topic)
	must(err)
	producer := client(kgo.ProducerBatchCompression(codec), kgo.DefaultProduceTopic(topic))
	for i := range count {
		key := []byte(strconv.Itoa(i))
		headers := []kgo.RecordHeader{{Key: "h", Value: nil}, {Key: "h", Value: key}}
		record := &kgo.Record{Key: key, Value: fmt.Appendf(nil, "%s %d", name, i), Headers: headers}
		producer.Produce(ctx, record, func(_ *kgo.Record, err error) { must(err) })
	}
	must(producer.Flush(ctx))
	producer.Close()
	var seen sync.Map
	var group sync.WaitGroup
	all := func() bool { return size(&seen) >= count }
	some := func() bool { return size(&seen) >= count/3 }
	for _, done := range []func() bool{all, some} {
		group.Add(1)
		go func() { defer group.Done(); member(ctx, "g-"+name, topic, &seen, done) }()
	}
	group.Wait()
	if size(&seen) != count {
		log.Fatalf("%s: %d of %d", name, size(&seen), count)
	}
	fmt.Println(name, count)
}

// short is a life with one group member at a time, whose traffic is recorded.
func short(ctx context.Context, admin *kadm.Client) {
	_, err := admin.CreateTopic(ctx, 2, 1, nil, "first")
	must(err)
	for _, codec := range []string{"none", "zstd"} {
		producer := client(kgo.ProducerBatchCompression(codecs[codec]), kgo.DefaultProduceTopic("first"),
			kgo.RecordPartitioner(kgo.ManualPartitioner()))
		for i := range 6 {
			record := &kgo.Record{Key: []byte(strconv.Itoa(i)), Value: []byte(codec), Partition: int32(i % 2)}
			must(producer.ProduceSync(ctx, record).FirstErr())
		}
		producer.Close()
	}
	buyer := client(kgo.TransactionalID("buyer"), kgo.DefaultProduceTopic("first"))
	for _, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort} {
		must(buyer.BeginTransaction())
		must(buyer.ProduceSync(ctx, &kgo.Record{Key: []byte("k"), Value: []byte("bought")}).FirstErr())
		must(buyer.EndTransaction(ctx, end))
	}
	buyer.Close()
	reader := client(kgo.ConsumerGroup("readers"), kgo.ConsumeTopics("first"), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	for seen := 0; seen < 13; {
		seen += reader.PollFetches(ctx).NumRecords()
		must(ctx.Err())
	}
	must(reader.CommitUncommittedOffsets(ctx))
	reader.Close()
	lags, err := admin.Lag(ctx, "readers")
	must(err)
	must(lags.Error())
	_, err = admin.DeleteTopics(ctx, "first")
	must(err)
}

func main() {
	if os.Args[2] == "traffic" {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		short(ctx, kadm.NewClient(client()))
		return
	}
	count, err := strconv.Atoi(os.Args[2])
	must(err)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	c := client(kgo.AllowAutoTopicCreation())
	admin := kadm.NewClient(c)
	for name, codec := range codecs {
		roundTrip(ctx, admin, name, codec, count)
	}
	_, err = admin.CreateTopic(ctx, 1, 1, nil, "timed")
	must(err)
	for i := range 3 {
		record := &kgo.Record{Topic: "timed", Value: []byte(strconv.Itoa(i)), Timestamp: time.UnixMilli(1_700_000_000_000 + int64(i)*1000)}
		must(c.ProduceSync(ctx, record).FirstErr())
	}
	offsets, err := admin.ListOffsetsAfterMilli(ctx, 1_700_000_000_500, "timed")
	must(err)
	if found, _ := offsets.Lookup("timed", 0); found.Offset != 1 {
		log.Fatalf("offset by time: %v", found)
	}
	at := kgo.NewOffset().AfterMilli(1_700_000_000_500)
	reader := client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"timed": {0: at}}))
	defer reader.Close()
	if r := reader.PollFetches(ctx).Records(); len(r) == 0 || string(r[0].Value) != "1" {
		log.Fatalf("seek by time: %v", r)
	}
	lags, err := admin.Lag(ctx, "g-none")
	must(err)
	must(lags.Error())
}
