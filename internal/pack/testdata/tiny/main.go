// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Tiny is built by the tests of pack.
package main

func main() { println("tiny") }
