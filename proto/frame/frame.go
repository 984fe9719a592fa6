// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package frame puts messages on a stream: four bytes of length, most significant
// first, then the message. [Write] and [Read] are its whole use; a length above the
// reader's limit is refused before anything is allocated.
//
// It refuses to set deadlines and to decide limits: both belong to the protocol.
package frame

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"
)

// headerSize is the length prefix.
const headerSize = 4

// ErrTooLarge says that a message is longer than the protocol allows.
var ErrTooLarge = errors.New("message too large")

// ErrMalformed says that bytes came that are no such message.
var ErrMalformed = errors.New("message malformed")

// Message is what can be put on a stream.
type Message = proto.Message

// Write sends m in one call of w.Write. ErrTooLarge (wrapped): m is longer than
// limit bytes and nothing was written.
func Write(w io.Writer, m Message, limit int) error {
	buf := make([]byte, headerSize, headerSize+proto.Size(m))
	buf, err := proto.MarshalOptions{}.MarshalAppend(buf, m)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	n := len(buf) - headerSize
	if n > limit {
		return fmt.Errorf("%w: %d bytes, limit %d", ErrTooLarge, n, limit)
	}
	binary.BigEndian.PutUint32(buf, uint32(n))
	_, err = w.Write(buf)
	return err
}

// Read fills m with the next message of at most limit bytes. io.EOF: the stream
// ended between messages; io.ErrUnexpectedEOF: within one. ErrTooLarge (wrapped):
// the stream is unusable from here. ErrMalformed (wrapped): the bytes are not m's.
func Read(r io.Reader, m Message, limit int) error {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(header[:])
	if uint64(n) > uint64(limit) {
		return fmt.Errorf("%w: %d bytes, limit %d", ErrTooLarge, n, limit)
	}
	buf := make([]byte, n)
	if _, err := io.ReadFull(r, buf); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if err := proto.Unmarshal(buf, m); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}
