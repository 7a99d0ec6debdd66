// Package kfake offers as much of kfake's API as its kafka_tests use, over a real broker: each cluster is one node that
// `cargo xtask suites --serve` starts, behind a proxy that the node advertises in its own place.
package kfake

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

type (
	// Opt sets up a cluster.
	Opt func(*Cluster)

	// Control looks at a request, and may answer it in the broker's place.
	Control func(kmsg.Request) (kmsg.Response, error, bool)

	// Fault answers the next request that it is about with an error.
	Fault struct {
		Keys []kmsg.Key
		Err  *kerr.Error
		When func(kmsg.Request) bool
	}

	// GroupInfo is what a group is seen to be.
	GroupInfo struct {
		Group   string
		State   string
		Members []GroupMember
		Commits map[string]map[int32]GroupCommit
	}

	// GroupMember is one member of it, with the partitions that are its own.
	GroupMember struct {
		MemberID   string
		Assignment map[string][]int32
	}

	// GroupCommit is a committed offset.
	GroupCommit struct {
		Offset      int64
		LeaderEpoch int32
		Metadata    string
	}

	// Cluster is one node and its proxy.
	Cluster struct {
		settings map[string]string
		topics   map[string]int32
		node     *exec.Cmd
		stdin    io.Closer
		broker   string
		listener net.Listener
		client   *kgo.Client

		mu       sync.Mutex
		controls map[int16][]Control
	}
)

// NumBrokers is always one here.
func NumBrokers(int) Opt { return func(*Cluster) {} }

// SeedTopics creates topics before the test begins.
func SeedTopics(partitions int32, topics ...string) Opt {
	return func(c *Cluster) {
		for _, topic := range topics {
			c.topics[topic] = partitions
		}
	}
}

// BrokerConfigs are properties of the node.
func BrokerConfigs(configs map[string]string) Opt {
	return func(c *Cluster) {
		for key, value := range configs {
			c.settings[key] = value
		}
	}
}

// NewCluster starts a node.
func NewCluster(opts ...Opt) (*Cluster, error) {
	c := &Cluster{settings: map[string]string{}, topics: map[string]int32{}, controls: map[int16][]Control{}}
	for _, opt := range opts {
		opt(c)
	}
	var err error
	if c.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	if err := c.start(); err != nil {
		c.Close()
		return nil, err
	}
	go c.serve()
	if c.client, err = kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...)); err != nil {
		c.Close()
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for topic, partitions := range c.topics {
		if _, err := kadm.NewClient(c.client).CreateTopic(ctx, partitions, 1, nil, topic); err != nil {
			c.Close()
			return nil, fmt.Errorf("topic %s: %w", topic, err)
		}
	}
	return c, nil
}

func (c *Cluster) start() error {
	dir, err := os.MkdirTemp(os.Getenv("SUITES_OUT"), "cluster")
	if err != nil {
		return err
	}
	arguments := []string{"suites", "--serve", os.Getenv("SUITES_SIDE"), dir}
	for key, value := range c.settings {
		arguments = append(arguments, key+"="+value)
	}
	arguments = append(arguments, "advertised.listeners=PLAINTEXT://"+c.listener.Addr().String())
	c.node = exec.Command(os.Getenv("SUITES_XTASK"), arguments...)
	if c.node.Stderr, err = os.Create(filepath.Join(dir, "serve.log")); err != nil {
		return err
	}
	if c.stdin, err = c.node.StdinPipe(); err != nil {
		return err
	}
	stdout, err := c.node.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.node.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return fmt.Errorf("the node did not start, see %s: %w", dir, err)
	}
	c.broker = line[:len(line)-1]
	return nil
}

// Close ends the node.
func (c *Cluster) Close() {
	if c.client != nil {
		c.client.Close()
	}
	c.listener.Close()
	if c.stdin != nil {
		c.stdin.Close()
		c.node.Wait()
	}
}

// ListenAddrs is where the proxy listens.
func (c *Cluster) ListenAddrs() []string { return []string{c.listener.Addr().String()} }

// ControlKey shows requests of a kind to a function, until it answers one.
func (c *Cluster) ControlKey(key int16, control Control) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.controls[key] = append(c.controls[key], control)
}

// Fault fails one request: the error goes to the response's ErrorCode.
func (c *Cluster) Fault(fault Fault) {
	for _, key := range fault.Keys {
		c.ControlKey(int16(key), func(request kmsg.Request) (kmsg.Response, error, bool) {
			heartbeat, ok := request.(*kmsg.ConsumerGroupHeartbeatRequest)
			if !ok || fault.When != nil && !fault.When(request) {
				return nil, nil, false
			}
			response := heartbeat.ResponseKind().(*kmsg.ConsumerGroupHeartbeatResponse)
			response.Default()
			response.ErrorCode = fault.Err.Code
			return response, nil, true
		})
	}
}

// control asks the functions for an answer; one that answers is used up.
func (c *Cluster) control(request kmsg.Request) kmsg.Response {
	c.mu.Lock()
	defer c.mu.Unlock()
	controls := c.controls[request.Key()]
	for i, control := range controls {
		if response, _, handled := control(request); handled {
			c.controls[request.Key()] = append(controls[:i:i], controls[i+1:]...)
			return response
		}
	}
	return nil
}

func (c *Cluster) watches(key int16) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.controls[key]) > 0
}

func (c *Cluster) serve() {
	for {
		client, err := c.listener.Accept()
		if err != nil {
			return
		}
		go c.connection(client)
	}
}

// connection passes frames both ways. An answer of a control goes out at once: the tests' clients have one such request
// in flight.
func (c *Cluster) connection(client net.Conn) {
	defer client.Close()
	broker, err := net.Dial("tcp", c.broker)
	if err != nil {
		return
	}
	defer broker.Close()
	var out sync.Mutex
	go func() {
		defer client.Close()
		for {
			frame, err := readFrame(broker)
			if err != nil {
				return
			}
			out.Lock()
			_, err = client.Write(frame)
			out.Unlock()
			if err != nil {
				return
			}
		}
	}()
	for {
		frame, err := readFrame(client)
		if err != nil {
			return
		}
		if answer := c.answer(frame[4:]); answer != nil {
			out.Lock()
			_, err = client.Write(answer)
			out.Unlock()
		} else {
			_, err = broker.Write(frame)
		}
		if err != nil {
			return
		}
	}
}

// readFrame reads a frame with its size before it.
func readFrame(from io.Reader) ([]byte, error) {
	frame := make([]byte, 4)
	if _, err := io.ReadFull(from, frame); err != nil {
		return nil, err
	}
	frame = append(frame, make([]byte, binary.BigEndian.Uint32(frame))...)
	_, err := io.ReadFull(from, frame[4:])
	return frame, err
}

// answer is what a control says to a request, as a frame; nil if the broker is to answer.
func (c *Cluster) answer(frame []byte) []byte {
	key, version := int16(binary.BigEndian.Uint16(frame)), int16(binary.BigEndian.Uint16(frame[2:]))
	request := kmsg.RequestForKey(key)
	if request == nil || !c.watches(key) {
		return nil
	}
	request.SetVersion(version)
	body := frame[8:]
	if size := int16(binary.BigEndian.Uint16(body)); size > 0 {
		body = body[size:]
	}
	body = body[2:]
	if request.IsFlexible() {
		body = body[1:] // clients of these tests send no tags
	}
	if err := request.ReadFrom(body); err != nil {
		return nil
	}
	response := c.control(request)
	if response == nil {
		return nil
	}
	response.SetVersion(version)
	answer := append(make([]byte, 4), frame[4:8]...)
	if response.IsFlexible() {
		answer = append(answer, 0)
	}
	answer = response.AppendTo(answer)
	binary.BigEndian.PutUint32(answer, uint32(len(answer)-4))
	return answer
}

func (g *GroupInfo) add(id string, assigned kadm.TopicsSet) {
	member := GroupMember{MemberID: id, Assignment: map[string][]int32{}}
	for topic, partitions := range assigned {
		for partition := range partitions {
			member.Assignment[topic] = append(member.Assignment[topic], partition)
		}
		slices.Sort(member.Assignment[topic])
	}
	g.Members = append(g.Members, member)
}

// NumAssigned counts the member's partitions.
func (m GroupMember) NumAssigned() int {
	count := 0
	for _, partitions := range m.Assignment {
		count += len(partitions)
	}
	return count
}

// NumAssigned counts the partitions of all members.
func (g *GroupInfo) NumAssigned() int {
	count := 0
	for _, member := range g.Members {
		count += member.NumAssigned()
	}
	return count
}

// GroupInfo looks at a group; nil if there is none.
func (c *Cluster) GroupInfo(group string) *GroupInfo {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	admin := kadm.NewClient(c.client)
	info := &GroupInfo{Group: group, Commits: map[string]map[int32]GroupCommit{}}
	if described, err := admin.DescribeConsumerGroups(ctx, group); err == nil && described[group].Err == nil {
		info.State = described[group].State
		for _, member := range described[group].Members {
			info.add(member.MemberID, member.Assignment)
		}
	} else if described, err := admin.DescribeGroups(ctx, group); err == nil && described[group].Err == nil {
		info.State = described[group].State
		for _, member := range described[group].Members {
			assigned := kadm.TopicsSet{}
			if consumer, ok := member.Assigned.AsConsumer(); ok {
				for _, topic := range consumer.Topics {
					assigned.Add(topic.Topic, topic.Partitions...)
				}
			}
			info.add(member.MemberID, assigned)
		}
	}
	slices.SortFunc(info.Members, func(a, b GroupMember) int { return strings.Compare(a.MemberID, b.MemberID) })
	if info.State == "" || info.State == "Dead" {
		return nil
	}
	offsets, err := admin.FetchOffsets(ctx, group)
	if err != nil {
		return info
	}
	offsets.Each(func(offset kadm.OffsetResponse) {
		if info.Commits[offset.Topic] == nil {
			info.Commits[offset.Topic] = map[int32]GroupCommit{}
		}
		info.Commits[offset.Topic][offset.Partition] =
			GroupCommit{Offset: offset.At, LeaderEpoch: offset.LeaderEpoch, Metadata: offset.Metadata}
	})
	return info
}

// WaitGroupStable waits for a group to be stable with so many members.
func (c *Cluster) WaitGroupStable(ctx context.Context, group string, members int) (*GroupInfo, error) {
	for {
		if info := c.GroupInfo(group); info != nil && info.State == "Stable" && len(info.Members) == members {
			return info, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}
