#!/bin/sh
# A network of its own for a benchmark of the classic: its bridge 'br0' with the host's address 10.0.2.2, so that no
# bridge, address or port of the machine is touched. Run in fresh mount and network namespaces; says 'ready', and lives
# until its standard input ends.
#
#   network.sh RESOLV_CONF EMPTY_DIRECTORY
set -eu
mount --bind "$1" /etc/resolv.conf
# lxc looks for the bridge in /sys, which shows the network that it was mounted in; control groups stay as they are.
mount --rbind /sys/fs/cgroup "$2"
mount -t sysfs sysfs /sys
mount --rbind "$2" /sys/fs/cgroup
ip link set lo up
ip link add br0 type bridge
ip addr add 10.0.2.2/24 dev br0
ip link set br0 up
echo ready
read -r _ || true
