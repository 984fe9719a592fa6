// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"sync"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoalnet/shoal"
)

// The files beside the key (DESIGN section 3, end). What a peer must not forget
// when its store is lost lives here, and nothing else does.
const (
	identityDir    = "identity"
	keyFile        = identityDir + "/key"
	bootFile       = identityDir + "/boot"
	sequenceFile   = identityDir + "/sequence"
	clusterFile    = identityDir + "/cluster.json"
	clusterKeyFile = identityDir + "/cluster-key"
	membersFile    = identityDir + "/members.json"

	secretMode = 0o600
	publicMode = 0o644
)

// Identity is who this peer is: its key, its boot number, its author sequence, the
// cluster it belongs to and the members it knows. Its methods are safe for
// concurrent use. One process holds it at a time, until Close.
type Identity struct {
	files  files
	random io.Reader
	key    ed25519.PrivateKey
	priv   crypto.PrivKey
	self   shoal.PeerID
	boot   shoal.Boot
	seq    *Sequence

	mu      sync.Mutex // guards random, boot, cluster and members, and orders their writes to disk
	cluster clusterState
	members map[shoal.PeerID]KnownMember
}

// OpenIdentity opens the identity in dir and makes one on first use. It takes dir's
// lock (*LockedError when another process has it), counts one more boot and refuses
// a key file others could read. With dir "" everything stays in memory: for
// simulation. random is where a new key and the boot nonce come from, nil for the
// system's; with the same bytes the same key is made.
func OpenIdentity(dir string, random io.Reader) (*Identity, error) {
	if dir == "" {
		return openIdentity(newMemFiles(), random)
	}
	return openIdentity(&diskFiles{dir: dir}, random)
}

func openIdentity(f files, random io.Reader) (*Identity, error) {
	if random == nil {
		random = rand.Reader
	}
	if err := f.lock(); err != nil {
		return nil, err
	}
	id := &Identity{files: f, random: random}
	if err := id.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("open identity: %w", err), f.close())
	}
	return id, nil
}

func (id *Identity) load() error {
	if err := id.loadKey(); err != nil {
		return err
	}
	counter, err := readCounter(id.files, bootFile)
	if err != nil {
		return err
	}
	id.boot.Counter = counter
	if err := id.NewBoot(); err != nil {
		return err
	}
	if id.seq, err = openSequence(id.files); err != nil {
		return err
	}
	return id.loadMembership()
}

func (id *Identity) loadKey() error {
	key, err := readKey(id.files, keyFile)
	if errors.Is(err, fs.ErrNotExist) {
		if key, err = newKey(id.random); err == nil {
			err = writeKey(id.files, keyFile, key)
		}
	}
	if err != nil {
		return err
	}
	id.key = key
	id.priv, id.self, err = asPeer(key)
	return err
}

// Reopen closes the identity and opens it again from the same place, as a restart
// of the daemon does. The old value must not be used any more.
func (id *Identity) Reopen() (*Identity, error) {
	if err := id.Close(); err != nil {
		return nil, err
	}
	return openIdentity(id.files, id.random)
}

// Close lets the data directory go.
func (id *Identity) Close() error { return id.files.close() }

// Self returns this peer's ID.
func (id *Identity) Self() shoal.PeerID { return id.self }

// Boot returns the number of this life: the counter is already on disk.
func (id *Identity) Boot() shoal.Boot {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.boot
}

// NewBoot begins another life within this process, for a peer that left a cluster and
// joins again: what it says then is news to whoever heard its last life.
func (id *Identity) NewBoot() error {
	id.mu.Lock()
	defer id.mu.Unlock()
	next := shoal.Boot{Counter: id.boot.Counter + 1}
	var nonce [8]byte
	if _, err := io.ReadFull(id.random, nonce[:]); err != nil {
		return fmt.Errorf("draw boot nonce: %w", err)
	}
	next.Nonce = binary.BigEndian.Uint64(nonce[:])
	if err := writeCounter(id.files, bootFile, next.Counter); err != nil {
		return err
	}
	id.boot = next
	return nil
}

// Sequence returns the source of author sequence numbers.
func (id *Identity) Sequence() *Sequence { return id.seq }

// Sign returns the Ed25519 signature of message, whose domain the caller separated.
func (id *Identity) Sign(message []byte) []byte { return ed25519.Sign(id.key, message) }

// Key returns the private key in libp2p's form, for rooms that sign by libp2p.
func (id *Identity) Key() crypto.PrivKey { return id.priv }

// draw fills b with random bytes.
func (id *Identity) draw(b []byte) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	if _, err := io.ReadFull(id.random, b); err != nil {
		return fmt.Errorf("draw random bytes: %w", err)
	}
	return nil
}

// newKey reads a seed itself: since Go 1.26 ed25519.GenerateKey may ignore its
// reader, and simulation needs the same key from the same bytes.
func newKey(random io.Reader) (ed25519.PrivateKey, error) {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(random, seed); err != nil {
		return nil, fmt.Errorf("draw key: %w", err)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

func asPeer(key ed25519.PrivateKey) (crypto.PrivKey, shoal.PeerID, error) {
	priv, err := crypto.UnmarshalEd25519PrivateKey(key)
	if err != nil {
		return nil, "", fmt.Errorf("read key: %w", err)
	}
	id, err := peer.IDFromPrivateKey(priv)
	if err != nil {
		return nil, "", fmt.Errorf("name key: %w", err)
	}
	return priv, shoal.PeerID(id.String()), nil
}

// readKey reads a private key in libp2p's marshalled form and refuses a file that
// anybody but its owner may touch.
func readKey(f files, name string) (ed25519.PrivateKey, error) {
	mode, err := f.mode(name)
	if err != nil {
		return nil, fmt.Errorf("look at key: %w", err)
	}
	if mode&0o077 != 0 {
		where := name
		if d, ok := f.(*diskFiles); ok {
			where = d.path(name)
		}
		return nil, &shoal.AdviceError{
			Err:    fmt.Errorf("key file %s is open to others (mode %04o)", where, mode),
			Advice: "chmod 600 " + where,
		}
	}
	raw, err := f.read(name)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	priv, err := crypto.UnmarshalPrivateKey(raw)
	if err != nil {
		return nil, fmt.Errorf("read key file %s: %w", name, err)
	}
	if priv.Type() != crypto.Ed25519 {
		return nil, fmt.Errorf("read key file %s: not an Ed25519 key", name)
	}
	key, err := priv.Raw()
	if err != nil {
		return nil, fmt.Errorf("read key file %s: %w", name, err)
	}
	return ed25519.PrivateKey(key), nil
}

func writeKey(f files, name string, key ed25519.PrivateKey) error {
	priv, err := crypto.UnmarshalEd25519PrivateKey(key)
	if err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	raw, err := crypto.MarshalPrivateKey(priv)
	if err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	if err := f.write(name, raw, secretMode); err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	return nil
}

// readCounter reads a decimal number; an absent file is 0, an unreadable one an
// error: guessing would use a number twice.
func readCounter(f files, name string) (uint64, error) {
	raw, err := f.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	return n, nil
}

func writeCounter(f files, name string, n uint64) error {
	if err := f.write(name, []byte(strconv.FormatUint(n, 10)+"\n"), publicMode); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
