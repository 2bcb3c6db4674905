// Command golimit measures the least a change of leader can cost: the way of one delete from the
// call in one process to the watch event in another.
//
//	golimit put    one put and one delete for each line on stdin
//	golimit watch  reports every delete of the key that it sees
//	golimit run    starts a "watch" as a process of its own, does -rounds rounds against it, each
//	               one after the event of the last, and joins both sides
//
// All answers are JSON lines on stdout (package report). A "deleted" line and a "seen" line belong
// together when their revisions are equal.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"leader-sidecar/tools/rivals/internal/report"
)

type options struct {
	endpoints string
	key       string
	rounds    int
}

// line is what the watching process says, as far as "run" reads it.
type line struct {
	Event string       `json:"event"`
	Rev   int64        `json:"rev"`
	T     report.Stamp `json:"t"`
}

func main() {
	var o options
	flag.StringVar(&o.endpoints, "endpoints", "http://127.0.0.1:2379", "comma-separated client URLs")
	flag.StringVar(&o.key, "key", "/golimit", "the key to put and delete")
	flag.IntVar(&o.rounds, "rounds", 200, "rounds of \"run\"")
	modes := map[string]func(options, *report.Reporter) error{"put": put, "watch": watch, "run": run}
	var mode string
	if len(os.Args) > 1 {
		mode = os.Args[1]
	}
	action, known := modes[mode]
	if !known {
		fmt.Fprintln(os.Stderr, "usage: golimit put|watch|run [flags]")
		os.Exit(2)
	}
	_ = flag.CommandLine.Parse(os.Args[2:]) // exits by itself on a bad flag
	if err := action(o, report.New(os.Stdout)); err != nil {
		fmt.Fprintln(os.Stderr, "golimit:", err)
		os.Exit(1)
	}
}

func connect(o options) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints:   strings.Split(o.endpoints, ","),
		DialTimeout: 10 * time.Second,
	})
}

// put does a round per line of stdin, so that who reads the watcher decides about the pace.
func put(o options, out *report.Reporter) error {
	client, err := connect(o)
	if err != nil {
		return err
	}
	defer client.Close()
	lines := bufio.NewScanner(os.Stdin)
	for round := 0; lines.Scan(); round++ {
		rev, called, done, err := deleteOnce(client, o.key)
		if err != nil {
			return err
		}
		out.Event("deleted", done, report.Fields{
			"round": round, "rev": rev, "t_called": called, "t_done": done,
		})
	}
	return lines.Err()
}

// deleteOnce puts the key and deletes it again. Only the delete is timed.
func deleteOnce(client *clientv3.Client, key string) (rev int64, called, done report.Stamp, err error) {
	ctx := context.Background()
	if _, err = client.Put(ctx, key, "x"); err != nil {
		return 0, called, done, err
	}
	called = report.Now()
	response, err := client.Delete(ctx, key)
	done = report.Now()
	if err != nil {
		return 0, called, done, err
	}
	return response.Header.Revision, called, done, nil
}

func watch(o options, out *report.Reporter) error {
	client, err := connect(o)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // the end of stdin ends the watch, so no watcher outlives the one who asked
		lines := bufio.NewScanner(os.Stdin)
		for lines.Scan() {
		}
		cancel()
	}()
	for response := range client.Watch(ctx, o.key, clientv3.WithCreatedNotify()) {
		at := report.Now()
		if err := response.Err(); err != nil {
			return err
		}
		if response.Created {
			out.Event("watching", at, report.Fields{"rev": response.Header.Revision})
		}
		for _, event := range response.Events {
			if event.Type == clientv3.EventTypeDelete {
				out.Event("seen", at, report.Fields{"rev": event.Kv.ModRevision})
			}
		}
	}
	return nil
}

func run(o options, out *report.Reporter) error {
	client, err := connect(o)
	if err != nil {
		return err
	}
	defer client.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	watcher := exec.Command(self, "watch", "-endpoints", o.endpoints, "-key", o.key)
	watcher.Stderr = os.Stderr
	stdin, err := watcher.StdinPipe() // its end, also by our death, ends the watcher
	if err != nil {
		return err
	}
	stdout, err := watcher.StdoutPipe()
	if err != nil {
		return err
	}
	if err := watcher.Start(); err != nil {
		return err
	}
	roundsErr := rounds(client, o, bufio.NewScanner(stdout), out)
	return errors.Join(roundsErr, stdin.Close(), watcher.Wait())
}

func rounds(client *clientv3.Client, o options, seen *bufio.Scanner, out *report.Reporter) error {
	if _, err := next(seen, "watching", 0); err != nil {
		return err
	}
	for round := range o.rounds {
		rev, called, done, err := deleteOnce(client, o.key)
		if err != nil {
			return err
		}
		event, err := next(seen, "seen", rev)
		if err != nil {
			return err
		}
		out.Event("round", event.T, report.Fields{
			"round": round, "rev": rev, "t_called": called, "t_done": done, "t_seen": event.T,
			"delete_to_seen_ns": event.T.MonotonicNs - called.MonotonicNs,
		})
	}
	return nil
}

// next reads the watcher's lines up to the wanted one; rev 0 takes any.
func next(lines *bufio.Scanner, event string, rev int64) (line, error) {
	for lines.Scan() {
		var l line
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return line{}, err
		}
		if l.Event == event && (rev == 0 || l.Rev == rev) {
			return l, nil
		}
	}
	return line{}, errors.Join(fmt.Errorf("the watcher ended before %q of revision %d", event, rev), lines.Err())
}
