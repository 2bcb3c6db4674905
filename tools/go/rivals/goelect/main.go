// Command goelect is one candidate of etcd's own concurrency.Election, driven by lines on stdin.
//
// Commands: "campaign VALUE", "proclaim VALUE", "resign", "leader", "observe", "close", "quit".
// Answers are JSON lines on stdout (package report): session, campaigning, elected, proclaimed,
// resigned, leader, observed, session_done, error. The end of stdin counts as "quit", which closes
// the session; to let a leader crash, kill the process.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"leader-sidecar/tools/rivals/internal/report"
)

// longestLine bounds a command: a proposal may be as large as etcd takes a request, 1.5 MiB.
const longestLine = 2 << 20

var errStillCampaigning = errors.New("the campaign is still under way")

// candidate owns one session and one election. An Election is not safe for concurrent use, so while
// a campaign waits (elected != nil and open) no other command touches it.
type candidate struct {
	ctx       context.Context
	client    *clientv3.Client
	session   *concurrency.Session
	election  *concurrency.Election
	name      string
	elected   chan struct{}
	observing bool
	out       *report.Reporter
}

func main() {
	endpoints := flag.String("endpoints", "http://127.0.0.1:2379", "comma-separated client URLs")
	name := flag.String("election", "/resources/election", "key prefix of the election")
	ttl := flag.Int("ttl", 5, "time to live of the session's lease, in seconds")
	flag.Parse()
	if err := run(*endpoints, *name, *ttl); err != nil {
		fmt.Fprintln(os.Stderr, "goelect:", err)
		os.Exit(1)
	}
}

func run(endpoints, name string, ttl int) error {
	client, err := clientv3.New(clientv3.Config{
		Endpoints:   strings.Split(endpoints, ","),
		DialTimeout: 10 * time.Second,
	})
	if err != nil {
		return err
	}
	defer client.Close()
	session, err := concurrency.NewSession(client, concurrency.WithTTL(ttl))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c := &candidate{
		ctx:      ctx,
		client:   client,
		session:  session,
		election: concurrency.NewElection(session, name),
		name:     name,
		out:      report.New(os.Stdout),
	}
	c.out.Event("session", report.Now(), report.Fields{"lease": fmt.Sprintf("%x", session.Lease())})
	go c.reportSessionDone()
	return c.obey()
}

func (c *candidate) reportSessionDone() {
	<-c.session.Done()
	c.out.Event("session_done", report.Now(), nil)
}

// obey reads commands until "quit" or the end of stdin, then gives the session back.
func (c *candidate) obey() error {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, longestLine)
	for lines.Scan() {
		command, argument, _ := strings.Cut(lines.Text(), " ")
		if command == "quit" {
			break
		}
		if err := c.do(command, argument); err != nil {
			c.out.Error(report.Now(), command, err)
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	select {
	case <-c.session.Done():
		return nil // closed by command, or its lease ran out: nothing to give back
	default:
		return c.session.Close()
	}
}

func (c *candidate) do(command, argument string) error {
	switch command {
	case "campaign":
		return c.campaign(argument)
	case "proclaim":
		return c.proclaim(argument)
	case "resign":
		return c.resign()
	case "leader":
		return c.leader()
	case "observe":
		return c.observe()
	case "close":
		return c.session.Close()
	}
	return fmt.Errorf("no such command: %q", command)
}

func (c *candidate) waiting() bool {
	if c.elected == nil {
		return false
	}
	select {
	case <-c.elected:
		return false
	default:
		return true
	}
}

func (c *candidate) campaign(value string) error {
	if c.waiting() {
		return errStillCampaigning
	}
	elected := make(chan struct{})
	c.elected = elected
	go func() {
		defer close(elected)
		c.out.Event("campaigning", report.Now(), report.Fields{"value": value})
		called := report.Now() // once more: writing the line must not count
		err := c.election.Campaign(c.ctx, value)
		done := report.Now()
		if err != nil {
			c.out.Error(done, "campaign", err)
			return
		}
		c.out.Event("elected", done, report.Fields{
			"value": value, "key": c.election.Key(), "rev": c.election.Rev(), "t_called": called,
		})
	}()
	return nil
}

func (c *candidate) proclaim(value string) error {
	if c.waiting() {
		return errStillCampaigning
	}
	called := report.Now()
	err := c.election.Proclaim(c.ctx, value)
	done := report.Now()
	if err == nil {
		c.out.Event("proclaimed", done, report.Fields{"value": value, "t_called": called})
	}
	return err
}

func (c *candidate) resign() error {
	if c.waiting() {
		return errStillCampaigning
	}
	key, rev := c.election.Key(), c.election.Rev()
	called := report.Now()
	err := c.election.Resign(c.ctx)
	done := report.Now()
	if err == nil {
		c.out.Event("resigned", done, report.Fields{
			"key": key, "rev": rev, "t_called": called, "t_done": done,
		})
	}
	return err
}

func (c *candidate) leader() error {
	// An Election of its own: this one may be asked while a campaign waits.
	response, err := concurrency.NewElection(c.session, c.name).Leader(c.ctx)
	done := report.Now()
	if err == nil {
		c.out.Event("leader", done, leaderFields(response))
	}
	return err
}

func (c *candidate) observe() error {
	if c.observing {
		return errors.New("already observing")
	}
	c.observing = true
	leaders := concurrency.NewElection(c.session, c.name).Observe(c.ctx)
	go func() {
		for response := range leaders {
			c.out.Event("observed", report.Now(), leaderFields(&response))
		}
	}()
	return nil
}

func leaderFields(response *clientv3.GetResponse) report.Fields {
	kv := response.Kvs[0]
	return report.Fields{
		"value": string(kv.Value), "key": string(kv.Key), "rev": kv.CreateRevision,
		"mod_rev": kv.ModRevision,
	}
}
