// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Talk is a container of the tests: "serve WORD PORT..." answers on these ports, TCP and
// UDP, with the word and where it hears from; "ask tcp|udp HOST:PORT" says what answers
// there, and "lookup NAME" what a name stands for.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// patience is how long an answer may take.
const patience = 5 * time.Second

func main() {
	var said string
	var err error
	switch os.Args[1] {
	case "serve":
		for _, port := range os.Args[3:] {
			serve(os.Args[2], port)
		}
		select {}
	case "ask":
		said, err = ask(os.Args[2], os.Args[3])
	case "lookup":
		var all []string
		all, err = net.LookupHost(os.Args[2])
		said = strings.Join(all, " ")
	}
	if err != nil {
		said = "error: " + err.Error()
	}
	fmt.Println(said)
}

func serve(word, port string) {
	l, err := net.Listen("tcp4", ":"+port)
	if err != nil {
		panic(err)
	}
	pc, err := net.ListenPacket("udp4", ":"+port)
	if err != nil {
		panic(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				panic(err)
			}
			fmt.Fprint(c, word)
			c.Close()
		}
	}()
	go func() {
		buffer := make([]byte, 100)
		for {
			_, from, err := pc.ReadFrom(buffer)
			if err != nil {
				panic(err)
			}
			pc.WriteTo([]byte(word), from)
		}
	}()
}

func ask(network, to string) (string, error) {
	c, err := net.DialTimeout(network, to, patience)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if network == "tcp" {
		said, err := io.ReadAll(c)
		return string(said), err
	}
	if _, err := c.Write([]byte("hi")); err != nil {
		return "", err
	}
	buffer := make([]byte, 100)
	n, err := c.Read(buffer)
	return string(buffer[:n]), err
}
