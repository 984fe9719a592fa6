// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"regexp"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pubsubpb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
	"github.com/shoalnet/shoal/proto/blocks"
)

const (
	// queueSize replaces pubsub's 32, above which it drops silently (FACTS section 3).
	queueSize = 4096
	// maxMessage bounds a pubsub message: a block, and chains beside it.
	maxMessage = 1 << 20
	// maxTopics bounds the topics that one message of a peer names: of records and of
	// beats, of this epoch and the next.
	maxTopics = 16
)

// ownTopics are those that Shoal has; what peers say of others is not kept.
var ownTopics = regexp.MustCompile("^/shoal/")

// NewPubSub makes the gossipsub that a Store and the beats share, with the queues
// and the flood-publishing that small clusters need (FACTS section 3). Its messages
// carry no author and no signature: records and beats are signed themselves, a
// second check costs an eighth of a busy peer's time, and pubsub would drop what
// comes under our own name, which is how a copied identity is found. It works until
// ctx ends.
func NewPubSub(ctx context.Context, h host.Host) (*pubsub.PubSub, error) {
	ps, err := pubsub.NewGossipSub(ctx, h,
		pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign),
		pubsub.WithNoAuthor(),
		pubsub.WithFloodPublish(true),
		pubsub.WithPeerOutboundQueueSize(queueSize),
		pubsub.WithValidateQueueSize(queueSize),
		pubsub.WithMaxMessageSize(maxMessage),
		pubsub.WithSubscriptionFilter(pubsub.WrapLimitSubscriptionFilter(
			pubsub.NewRegexpSubscriptionFilter(ownTopics), maxTopics)),
	)
	if err != nil {
		return nil, fmt.Errorf("start pubsub: %w", err)
	}
	return ps, nil
}

// TopicName returns the topic that a cluster's records are pushed on.
func TopicName(cluster shoal.PeerID) string {
	return fmt.Sprintf("/shoal/%s/%d/records", cluster, epoch)
}

// runTopic joins the records topic and takes in what is pushed, until ctx ends.
func (s *Store) runTopic(ctx context.Context) (err error) {
	name := TopicName(s.cfg.Cluster)
	if err := s.deps.PubSub.RegisterTopicValidator(name, s.validate, pubsub.WithValidatorInline(true)); err != nil {
		return fmt.Errorf("watch topic %s: %w", name, err)
	}
	defer func() { _ = s.deps.PubSub.UnregisterTopicValidator(name) }() // fails only if pubsub is gone
	topic, err := s.deps.PubSub.Join(name, pubsub.WithTopicMessageIdFn(contentID))
	if err != nil {
		return fmt.Errorf("join topic %s: %w", name, err)
	}
	defer func() { _ = topic.Close() }() // as above
	events, err := topic.EventHandler()
	if err != nil {
		return fmt.Errorf("follow topic %s: %w", name, err)
	}
	defer events.Cancel()
	sub, err := topic.Subscribe(pubsub.WithBufferSize(queueSize))
	if err != nil {
		return fmt.Errorf("subscribe to topic %s: %w", name, err)
	}
	defer sub.Cancel()
	s.setTopic(topic)
	defer s.setTopic(nil)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.followPeers(ctx, events) })
	g.Go(func() error { return s.takePushes(ctx, sub) })
	return g.Wait()
}

// contentID names a message by what it says.
func contentID(m *pubsubpb.Message) string {
	sum := sha256.Sum256(m.GetData())
	return string(sum[:])
}

func (s *Store) setTopic(t *pubsub.Topic) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.topic = t
}

// followPeers syncs with every peer that appears on the topic. What we wrote before
// it appeared was not pushed to it; what is written after is.
func (s *Store) followPeers(ctx context.Context, events *pubsub.TopicEventHandler) error {
	for {
		ev, err := events.NextPeerEvent(ctx)
		if err != nil {
			return ended(ctx, err)
		}
		if ev.Type == pubsub.PeerJoin {
			s.wantSync(idOf(ev.Peer))
		}
	}
}

// takePushes hands pushed blocks, judged by validate, to the writer.
func (s *Store) takePushes(ctx context.Context, sub *pubsub.Subscription) error {
	for {
		msg, err := sub.Next(ctx)
		if err != nil {
			return ended(ctx, err)
		}
		found, ok := msg.ValidatorData.([]*block)
		if !ok || len(found) == 0 {
			continue // our own
		}
		select {
		case s.arrivals <- &arrival{blocks: found, from: idOf(msg.ReceivedFrom), pushed: true}:
		case <-ctx.Done():
			return nil
		}
	}
}

// validate judges a pushed message before it is passed on: a bad one stops here, and so
// does one that is not looked at because of how its sender behaves. The verdict depends
// on nothing that this peer holds.
func (s *Store) validate(ctx context.Context, _ peer.ID, msg *pubsub.Message) pubsub.ValidationResult {
	from := idOf(msg.ReceivedFrom) // who passes on what it must have refused is to blame
	if from == s.self {
		return pubsub.ValidationAccept
	}
	if !s.allowed(from) || !s.readers.enter() {
		return pubsub.ValidationIgnore // perhaps we do not know it yet, or are going
	}
	defer s.readers.leave()
	if s.isMuted(from) {
		return pubsub.ValidationIgnore
	}
	if !s.conduct.mayPush(s.deps.Clock.Mono(), from, len(msg.GetData())) {
		return s.putOff(from)
	}
	var push blocks.Push
	if err := blocks.Unmarshal(msg.GetData(), &push); err != nil {
		s.refuse(from, refuse(reasonForm, "%w", err))
		return pubsub.ValidationReject
	}
	found, no := s.chains.judgePush(&push, func(in blocks.Block) bool { return s.holds(ctx, in) })
	if no != nil {
		s.refuse(from, no)
		return pubsub.ValidationReject
	}
	if !s.conduct.mayWrite(s.deps.Clock.Mono(), from, ownOf(from, found)) {
		return s.putOff(from)
	}
	msg.ValidatorData = found
	return pubsub.ValidationAccept
}

// putOff does not take a push now, nor passes it on: a sync brings what is in it.
func (s *Store) putOff(from shoal.PeerID) pubsub.ValidationResult {
	s.count.slowed.Add(1)
	s.wantSync(from)
	return pubsub.ValidationIgnore
}

// holds reports whether a block is on disk here with just these bytes.
func (s *Store) holds(ctx context.Context, in blocks.Block) bool {
	c, err := readCID(in.CID)
	if err != nil {
		return false
	}
	data, err := s.rows.data(ctx, c)
	return err == nil && bytes.Equal(data, in.Data)
}

// push tells a block of ours to everybody.
func (s *Store) push(ctx context.Context, b *block) {
	s.mu.Lock()
	topic := s.topic
	s.mu.Unlock()
	if topic == nil {
		return // alone; whoever appears will sync
	}
	msg := blocks.Push{
		Blocks: []blocks.Block{{CID: b.cid.Bytes(), Data: b.data}},
		Chains: s.chains.authors(b, map[shoal.PeerID]bool{}),
	}
	if err := topic.Publish(ctx, blocks.Marshal(&msg)); err != nil && ctx.Err() == nil {
		s.count.pushesLost.Add(1)
		s.deps.Log.Debug("block not pushed", logkey.Err, err)
	}
}

func (s *Store) allowed(p shoal.PeerID) bool { return s.deps.Allowed == nil || s.deps.Allowed(p) }

// ended turns the error of a loop that ctx ended into none.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func idOf(p peer.ID) shoal.PeerID { return shoal.PeerID(p.String()) }
