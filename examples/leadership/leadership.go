// Am I the leader, and with which fencing token? Exit 0 and print the token and key if so, else 1.
//
// Usage: leadership [STATUS_DIR]. The standard library only; Linux.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"unsafe"
)

// Status holds what a program needs of status.json.
type Status struct {
	Version            int     `json:"version"`
	Role               string  `json:"role"`
	Token              int64   `json:"token"`
	Key                string  `json:"key"`
	BootID             string  `json:"boot_id"`
	ValidUntilBoottime float64 `json:"valid_until_boottime"`
}

// Leading returns the status and whether it makes us the leader now. Ask again at each use.
func Leading(dir string) (s Status, leads bool) {
	raw, err := os.ReadFile(dir + "/status.json")
	if err != nil || json.Unmarshal(raw, &s) != nil {
		return s, false
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	var now syscall.Timespec // the clock comes last: we may have been frozen until here
	_, _, failed := syscall.Syscall(syscall.SYS_CLOCK_GETTIME,
		7 /* CLOCK_BOOTTIME */, uintptr(unsafe.Pointer(&now)), 0)
	return s, err == nil && failed == 0 &&
		s.Version == 1 && s.Role == "leader" && s.Token > 0 &&
		s.BootID == strings.TrimSpace(string(boot)) &&
		float64(now.Nano())/1e9 < s.ValidUntilBoottime
}

func main() {
	dir := "/run/leader-sidecar"
	if len(os.Args) > 1 {
		dir = os.Args[1]
	}
	status, leads := Leading(dir)
	if !leads {
		fmt.Println("follower")
		os.Exit(1)
	}
	fmt.Println("leader", status.Token, status.Key)
}
