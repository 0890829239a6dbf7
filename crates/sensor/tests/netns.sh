#!/bin/sh
# Three hosts in network namespaces of their own, joined by a bridge; nothing of the real host's
# network is touched. Needs root and iproute2.
#
#   netns.sh up PREFIX     make PREFIX-server 10.99.0.1, PREFIX-sensor 10.99.0.2, PREFIX-other 10.99.0.3
#   netns.sh down PREFIX   remove them, with every process's sockets in them
#
# Run something in one: ip netns exec PREFIX-sensor COMMAND…
set -eu

prefix=$2
server=$prefix-server sensor=$prefix-sensor other=$prefix-other

up() {
    for space in "$server" "$sensor" "$other"; do
        ip netns add "$space"
        ip -n "$space" link set lo up
    done
    # The bridge lives with the server, so the real host has no interface of this network at all.
    ip -n "$server" link add bridge0 type bridge
    ip -n "$server" address add 10.99.0.1/24 dev bridge0
    ip -n "$server" link set bridge0 up
    join "$sensor" port-sensor 10.99.0.2/24
    join "$other" port-other 10.99.0.3/24
}

# join SPACE PORT ADDRESS
join() {
    ip -n "$server" link add "$2" type veth peer name eth0 netns "$1"
    ip -n "$server" link set "$2" master bridge0 up
    ip -n "$1" address add "$3" dev eth0
    ip -n "$1" link set eth0 up
}

down() {
    for space in "$server" "$sensor" "$other"; do
        ip netns delete "$space" 2>/dev/null || true
    done
}

case $1 in
    up) up || { down; exit 1; } ;;
    down) down ;;
    *) echo "usage: netns.sh up|down PREFIX" >&2; exit 2 ;;
esac
