// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build lab

package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"time"
)

// probeCommand makes the test's own program a probe, inside a host:
//
//	probe serve ADDR        sends every UDP packet back, until it is killed
//	probe ask ADDR N        sends N packets and prints a flight as JSON
const probeCommand = "probe"

// flight is what became of packets there and back.
type flight struct {
	Sent, Back int
	P50, P99   time.Duration
}

const (
	probeEvery = 2 * time.Millisecond
	probeRest  = time.Second // after the last packet
	probeRoom  = 4 << 20     // bytes for packets that wait for a busy processor
)

func probe(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "serve":
		return echo(args[1])
	case len(args) == 3 && args[0] == "ask":
		n, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		f, err := fly(args[1], n)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(f)
	}
	return fmt.Errorf("a probe serves or asks, got %q", args)
}

func echo(addr string) error {
	at, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return err
	}
	conn, err := net.ListenUDP("udp", at)
	if err != nil {
		return err
	}
	if err := conn.SetReadBuffer(probeRoom); err != nil {
		return err
	}
	fmt.Println("ready")
	buf := make([]byte, 2048)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err == nil {
			_, err = conn.WriteTo(buf[:n], from)
		}
		if err != nil {
			return err
		}
	}
}

// greet sends until something comes back: until then packets wait for the address of the
// other's card, and most are dropped.
func greet(conn net.Conn) error {
	var err error
	for range 50 {
		if _, err = conn.Write([]byte("hello")); err != nil {
			return err
		}
		if err = conn.SetReadDeadline(time.Now().Add(400 * time.Millisecond)); err != nil {
			return err
		}
		if _, err = conn.Read(make([]byte, 16)); err == nil {
			return nil
		}
	}
	return fmt.Errorf("nobody greets back: %w", err)
}

func fly(addr string, n int) (flight, error) {
	at, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return flight{}, err
	}
	conn, err := net.DialUDP("udp", nil, at)
	if err != nil {
		return flight{}, err
	}
	defer conn.Close()
	if err := conn.SetReadBuffer(probeRoom); err != nil {
		return flight{}, err
	}
	if err := greet(conn); err != nil {
		return flight{}, err
	}
	sent := make([]time.Time, n)
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		return flight{}, err
	}
	go func() {
		tick := time.NewTicker(probeEvery)
		defer tick.Stop()
		for i := range sent {
			sent[i] = time.Now()
			_, _ = conn.Write(binary.BigEndian.AppendUint32(nil, uint32(i))) // lost ones are counted
			<-tick.C
		}
		_ = conn.SetReadDeadline(time.Now().Add(probeRest)) // else there is the minute
	}()
	var took []time.Duration
	buf := make([]byte, 2048)
	for len(took) < n {
		got, err := conn.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return flight{}, err
		}
		if got != 4 { // a late greeting
			continue
		}
		took = append(took, time.Since(sent[binary.BigEndian.Uint32(buf)]))
	}
	if len(took) == 0 {
		return flight{Sent: n}, nil
	}
	slices.Sort(took)
	return flight{Sent: n, Back: len(took), P50: took[len(took)/2], P99: took[len(took)*99/100]}, nil
}
