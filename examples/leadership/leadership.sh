#!/bin/sh
# Am I the leader, and with which fencing token? Exit 0 and print the token and key if so, else 1.
#
# Usage: leadership.sh [STATUS_DIR]. For images without Python; where there is one, `leader-sidecar
# check` is the better answer. The file is read once, in one piece, and the clock after it.
# /proc/uptime is CLOCK_BOOTTIME cut to 10 ms, hence the 0.01; not so under lxcfs, which shows the
# container's own uptime: do not use this there.
json=$(cat "${1:-/run/leader-sidecar}/status.json" 2>/dev/null)
field() {
	printf '%s\n' "$json" |
		sed -nE "s/.*[{, ]\"$1\" *: *(\"([^\"]*)\"|([0-9.]+)).*/\\2\\3/p"
}
if [ "$(field version)" = 1 ] && [ "$(field role)" = leader ] &&
	[ "$(field boot_id)" = "$(cat /proc/sys/kernel/random/boot_id)" ] &&
	awk -v until="$(field valid_until_boottime)" \
		'{ exit !($1 + 0.01 < until + 0) }' /proc/uptime
then
	echo "leader $(field token) $(field key)"
else
	echo follower
	exit 1
fi
