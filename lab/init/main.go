// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command init is the first process of a lab's host where tests run the lab; users have
// shoal-lab, which is one itself. It does nothing else and takes no arguments.
package main

import (
	"fmt"
	"os"

	"github.com/shoalnet/shoal/lab/host"
)

func main() {
	if err := host.Init(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
