#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# The guest's part of `cargo lab grade`: loads and unloads the module, finds its node, runs a rule. Knows no rule and no driver by name.
#
#   guest.sh load KO [PARAMETER…]   status 0 if insmod was content; prints `node PATH` for each node, `made PATH` for one made here
#   guest.sh unload MODULE          status 0 if rmmod was content; prints what is left of the module
#   guest.sh run RULE SECONDS NODE  the rule's status and output
#   guest.sh trace RULE SECONDS NODE  the same, traced; its part of the timeline goes to /mnt/traces/RULE
#   guest.sh busy MODULE NODE       rmmod while NODE is open; prints its complaint
#   guest.sh again MODULE KO COUNT [PARAMETER…]   rmmod and insmod, COUNT times; prints the nodes
#   guest.sh leaks                  what kmemleak has found; of the debug kernel
#   guest.sh answer                 nothing
#
# A rmmod or insmod that does not return is left alone after LIMIT seconds: status 124. Lines `stack: ` say where in the kernel a process
# of the call still waits. Each call ends with the line `--- kernel` and what the kernel has logged meanwhile.

STATE=/run/lab/grader
LIMIT=$((20 * ${GLOBALFIFO_PATIENCE:-1}))
mkdir -p $STATE

characters() { ls /sys/dev/char | sort; }
majors() { sed -n '/^Character/,/^$/s/^ *\([0-9][0-9]*\) \(.*\)/\1 \2/p' /proc/devices; }

# Nodes that have come since `characters` was last kept; the first FIFO of several first.
nodes() {
    characters >$STATE/characters.now
    comm -13 $STATE/characters $STATE/characters.now | sort -t: -n -k1,1 -k2,2 | while read -r device; do
        name=$(sed -n 's/^DEVNAME=//p' "/sys/dev/char/$device/uevent")
        [ -n "$name" ] && [ -c "/dev/$name" ] && echo "node /dev/$name"
    done
}

# A node for the first major number that has come, as the book makes one.
make_node() {
    majors >$STATE/majors.now
    grep -vxFf $STATE/majors $STATE/majors.now | head -n 1 | while read -r major name; do
        rm -f "/dev/$name"
        mknod "/dev/$name" c "$major" 0 && echo "made /dev/$name"
    done
}

keep_state() {
    characters >$STATE/characters
    majors >$STATE/majors
    ls /sys/class >$STATE/classes
    # What was logged before is not the driver's.
    dmesg -c >/dev/null
}

# Where in the kernel processes wait in a module's code.
stacks() {
    grep -l '\[[a-zA-Z0-9_]*\]$' /proc/[0-9]*/stack 2>/dev/null | xargs -r sed 's/^/stack: /' 2>/dev/null
}

# Runs a command that may never return; its status, or 124. It has none of this script's streams: those end with the script.
within() {
    rm -f $STATE/end
    mkfifo $STATE/end
    exec 8<>$STATE/end
    ("$@" 8>&-; echo $? >&8) >$STATE/said 2>&1 </dev/null &
    read -r -t $LIMIT ended <&8 || ended=124
    exec 8>&-
    cat $STATE/said
    if [ "$ended" = 124 ]; then
        echo "$1 has not returned after $LIMIT s"
        stacks
    fi
    return "$ended"
}

# For a driver that asks for a major by a number of its own, as the book does.
tell_majors() {
    grep -q 'resource busy' $STATE/said || return 0
    echo "majors that are taken, for a driver that asks for one of them: $(majors | sed 's/ .*//' | uniq | tr '\n' ' ')"
    echo "alloc_chrdev_region() asks for a free one; where a parameter holds the number, --driver-arg NAME=NUMBER gives another"
}

load() {
    ko=$1
    shift
    for needed in $(modinfo -F depends "$ko" | tr , ' '); do
        modprobe "$needed"
    done
    within insmod "$ko" "$@" || { status=$?; tell_majors; return $status; }
    udevadm settle --timeout=20
    found=$(nodes)
    [ -n "$found" ] || found=$(make_node)
    echo "$found"
    # Whether there is a virtio device behind a node.
    characters | comm -13 $STATE/characters - | while read -r device; do
        case $(realpath "/sys/dev/char/$device") in
        */virtio[0-9]*) echo "device $device" ;;
        esac
    done
}

# What is there now and was not before the module was loaded.
left() {
    module=$1
    udevadm settle --timeout=20
    [ -d "/sys/module/$module" ] && echo "left: the module $module is still loaded"
    characters | comm -13 $STATE/characters - | sed 's/^/left: the character device /'
    majors | grep -vxFf $STATE/majors | sed 's/^/left: in \/proc\/devices: /'
    ls /sys/class | grep -vxFf $STATE/classes | sed 's/^/left: \/sys\/class\//'
}

again() {
    module=$1 ko=$2 count=$3
    shift 3
    round=0
    while [ $round -lt "$count" ]; do
        round=$((round + 1))
        within rmmod "$module" || { status=$?; echo "rmmod fails the $round. time"; return $status; }
        within insmod "$ko" "$@" || { status=$?; echo "insmod fails the $round. time again"; return $status; }
    done
    udevadm settle --timeout=20
    nodes
}

what=$1
shift
status=0
case $what in
load)
    keep_state
    echo "grader: insmod" >/dev/kmsg
    load "$@" || status=$?
    ;;
unload)
    echo "grader: rmmod" >/dev/kmsg
    within rmmod "$1" || status=$?
    [ $status = 124 ] || left "$1"
    ;;
busy)
    echo "grader: rmmod of a module in use" >/dev/kmsg
    exec 9<>"$2" || echo "cannot open $2"
    rmmod "$1" 2>&1 && status=1
    [ -d "/sys/module/$1" ] || echo "left: nothing, the module has gone"
    # Code that has gone is not to be called by a close.
    [ $status = 0 ] && exec 9>&-
    ;;
again)
    echo "grader: rmmod and insmod" >/dev/kmsg
    again "$@" || status=$?
    ;;
answer)
    ;;
leaks)
    cd /sys/kernel/debug && echo scan >kmemleak && sleep 6 && echo scan >kmemleak && cat kmemleak
    ;;
run | trace)
    echo "grader: $1" >/dev/kmsg
    by=
    [ $what = trace ] && by="/opt/globalfifo/bin/tracer /mnt/traces/$1"
    # shellcheck disable=SC2086
    RULE_LIMIT=$2 $by "/mnt/rules/$1" "$3" 2>&1
    status=$?
    # A process that SIGKILL does not end.
    [ $status = 3 ] && stacks
    ;;
esac
echo "--- kernel"
dmesg -c
exit $status
