// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "error: shoal-lab needs Linux; its hosts are namespaces; run it in a virtual machine")
	os.Exit(1)
}
