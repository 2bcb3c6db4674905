// Package report writes what a rival program did, one JSON object per line, with time stamps that
// compare across the processes of one machine.
package report

import (
	"encoding/json"
	"io"
	"sync"

	"golang.org/x/sys/unix"
)

// Stamp is one instant on the two clocks of the kernel that nobody can set. Both count from the
// start of the machine, so the stamps of two processes can be subtracted; time.Now cannot do that.
type Stamp struct {
	MonotonicNs int64 `json:"monotonic_ns"`
	BoottimeNs  int64 `json:"boottime_ns"`
}

// Now reads both clocks, the monotonic one first.
func Now() Stamp {
	monotonic := read(unix.CLOCK_MONOTONIC)
	return Stamp{MonotonicNs: monotonic, BoottimeNs: read(unix.CLOCK_BOOTTIME)}
}

func read(clock int32) int64 {
	var value unix.Timespec
	if err := unix.ClockGettime(clock, &value); err != nil {
		panic(err) // both clocks exist on every Linux that runs Go
	}
	return value.Nano()
}

// Fields are the members of one line.
type Fields map[string]any

// Reporter writes lines whole, whichever goroutine they come from.
type Reporter struct {
	mu      sync.Mutex
	encoder *json.Encoder
}

// New returns a Reporter that writes to w and never buffers a line.
func New(w io.Writer) *Reporter {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return &Reporter{encoder: encoder}
}

// Event writes one line. The stamp is an argument because it has to be taken at the event: waiting
// for the writer's lock must not count.
func (r *Reporter) Event(name string, at Stamp, fields Fields) {
	line := Fields{"event": name, "t": at}
	for key, value := range fields {
		line[key] = value
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.encoder.Encode(line); err != nil {
		panic(err) // nobody listens any more: the process has no purpose left
	}
}

// Error writes an "error" line about what was being done.
func (r *Reporter) Error(at Stamp, during string, err error) {
	r.Event("error", at, Fields{"during": during, "message": err.Error()})
}
