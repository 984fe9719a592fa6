// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
)

// numbers is what the store keeps.
type numbers struct {
	mu sync.Mutex // guards by
	by map[string]int64
}

func serveStore(ctx context.Context, listen string) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() }) // it was only listened on
	defer stop()
	n := &numbers{by: map[string]int64{}}
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		go n.serve(conn)
	}
}

// serve answers commands until the client is done.
func (n *numbers) serve(conn net.Conn) {
	defer conn.Close() //nolint:errcheck // the client is done
	in := bufio.NewReader(conn)
	for {
		words, err := readCommand(in)
		if err != nil {
			return
		}
		if _, err := io.WriteString(conn, n.answer(words)); err != nil {
			return
		}
	}
}

// answer carries out one command.
func (n *numbers) answer(words []string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch verb := strings.ToUpper(words[0]); {
	case verb == "PING":
		return "+PONG\r\n"
	case verb == "INCR" && len(words) == 2:
		n.by[words[1]]++
		return fmt.Sprintf(":%d\r\n", n.by[words[1]])
	case verb == "GET" && len(words) == 2:
		value := strconv.FormatInt(n.by[words[1]], 10)
		return fmt.Sprintf("$%d\r\n%s\r\n", len(value), value)
	}
	return "-ERR what was asked for is not kept here\r\n"
}

// Bounds of one command.
const (
	maxWords = 8
	maxWord  = 1 << 10
)

var errCommand = errors.New("no command of the Redis protocol")

// readCommand reads an array of bulk strings.
func readCommand(in *bufio.Reader) ([]string, error) {
	count, err := readLength(in, '*', maxWords)
	if err != nil || count == 0 {
		return nil, errors.Join(errCommand, err)
	}
	words := make([]string, count)
	for i := range words {
		size, err := readLength(in, '$', maxWord)
		if err != nil {
			return nil, err
		}
		word := make([]byte, size+2)
		if _, err := io.ReadFull(in, word); err != nil {
			return nil, err
		}
		if string(word[size:]) != "\r\n" {
			return nil, errCommand
		}
		words[i] = string(word[:size])
	}
	return words, nil
}

// readLength reads a line like "*2".
func readLength(in *bufio.Reader, sign byte, most int) (int, error) {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < 4 || line[0] != sign || line[len(line)-2] != '\r' {
		return 0, errCommand
	}
	n, err := strconv.Atoi(string(line[1 : len(line)-2]))
	if err != nil || n < 0 || n > most {
		return 0, errCommand
	}
	return n, nil
}
