// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Hello is a small web server to try Shoal with, in one static binary: its page
// says which replica answered. "hello check" is its health check, "hello work" a
// worker that prints a line a second; no shell or curl is needed in its image. It
// can be told to quit, to turn sick and to eat memory, so that one can watch what
// happens then. It is not meant to face anybody but its operator.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const usage = `usage: hello [serve|check|load|work|eat|quit|shout|cat] [flags]
  serve   answer on -listen (default): / /healthz /sick /quit?code=N /eat?mb=N
  check   exit 0 if the server on -listen is healthy
  load    ask -to -rate times a second, and tell what came of it
  work    print a line every -every; with -stubborn ignore requests to stop
  eat     allocate -mb MiB and hold them
  quit    exit with -code
  shout   print one line of -length letters
  cat     print what comes in
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	var code exitCode
	switch {
	case errors.As(err, &code):
		os.Exit(int(code))
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "hello:", err)
		os.Exit(1)
	}
}

// exitCode is the end that "hello quit" was asked for.
type exitCode int

// Error names the code.
func (c exitCode) Error() string { return fmt.Sprintf("quit with code %d", int(c)) }

// options are what the flags say.
type options struct {
	listen  string
	version string
	every   time.Duration
	mb      int
	code    int
	length  int
	stays   bool
	to      string
	rate    float64
	period  time.Duration
	life    time.Duration
	work    time.Duration
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	verb := "serve"
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		verb, args = args[0], args[1:]
	}
	o := options{listen: or(os.Getenv("HELLO_LISTEN"), ":80"), version: or(os.Getenv("HELLO_VERSION"), "1")}
	flags := flag.NewFlagSet("hello", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { say(stderr, usage); flags.PrintDefaults() }
	flags.StringVar(&o.listen, "listen", o.listen, "address to listen on (HELLO_LISTEN)")
	flags.StringVar(&o.version, "version", o.version, "version to show (HELLO_VERSION)")
	flags.DurationVar(&o.every, "every", time.Second, "time between lines of work")
	flags.IntVar(&o.mb, "mb", 0, "MiB to eat")
	flags.IntVar(&o.code, "code", 0, "exit code of quit, and of serve after its -life")
	flags.DurationVar(&o.life, "life", 0, "how long to serve; 0: until told to stop")
	flags.DurationVar(&o.work, "work", 0, "CPU time that each answer of serve takes")
	flags.IntVar(&o.length, "length", 100, "letters to shout")
	flags.StringVar(&o.to, "to", "", "URL to load")
	flags.Float64Var(&o.rate, "rate", 100, "requests a second of a load")
	flags.DurationVar(&o.period, "for", 10*time.Second, "how long to load")
	flags.BoolVar(&o.stays, "stubborn", false, "ignore requests to stop")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch verb {
	case "serve":
		return serve(ctx, o, stdout)
	case "check":
		return check(ctx, o.listen)
	case "load":
		return load(ctx, o.to, o.rate, o.period, stdout)
	case "work":
		if o.stays {
			ctx = context.WithoutCancel(ctx)
		}
		return work(ctx, o.every, stdout)
	case "quit":
		return exitCode(o.code)
	case "shout":
		_, err := fmt.Fprintln(stdout, strings.Repeat("a", max(o.length, 0)))
		return err
	case "cat":
		_, err := io.Copy(stdout, os.Stdin)
		return err
	case "eat":
		say(stdout, "eating %d MiB\n", o.mb)
		held := eat(o.mb)
		<-ctx.Done()
		_ = held[0] // hold it until then
		return nil
	}
	say(stderr, usage)
	return fmt.Errorf("unknown command %q", verb)
}

// check asks the server in the same container for its health.
func check(ctx context.Context, listen string) error {
	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+port+"/healthz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close() // the status is all that counts
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("unhealthy: %s", resp.Status)
	}
	return nil
}

// work prints lines until it is told to stop.
func work(ctx context.Context, every time.Duration, out io.Writer) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := 1; ; n++ {
		if _, err := fmt.Fprintf(out, "%s did piece %d\n", whoami(), n); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			say(out, "worker stops\n")
			return nil
		}
	}
}

// eat returns touched memory.
func eat(mb int) []byte {
	held := make([]byte, max(mb, 0)<<20+1)
	for i := 0; i < len(held); i += 4096 {
		held[i] = 1
	}
	return held
}

func or(s, otherwise string) string {
	if s != "" {
		return s
	}
	return otherwise
}

// say prints; there is nobody to tell when that fails.
func say(w io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }

// whoami names this replica as Shoal told it, else this machine.
func whoami() string {
	host, _ := os.Hostname() // "" is fine: it is only shown
	service := os.Getenv("SHOAL_SERVICE")
	if service == "" {
		return host
	}
	return service + "/" + os.Getenv("SHOAL_SLOT")
}
