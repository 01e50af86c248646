# Sourced by scripts/lab: what a lab has of this machine. Several labs run side by side, and each thing that a lab makes
# outside its state folder has the lab's name in it, so that a lab finds all that is its own and nothing else, also when
# its starter was killed:
#
#   state                  /var/lib/kmctl-lab/LAB
#   bridge, cgroups        lab-LAB                    (cgroup of a host: lab-LAB/HOST)
#   systemd-nspawn         LAB-a1, LAB-c1, LAB-m      and with it the host's link on the bridge, vb-LAB-a1
#   mounts                 lab-LAB-HOST
#   chain of the wall      KMLAB-LAB
#   network                10.88.N.0/24: N is 0 for the usual lab, for others the lowest number that none has
#
# A lab keeps its number in its state folder, until it is removed; numbers are given under a lock of the machine's.

labs=/var/lib/kmctl-lab
cgroups=/sys/fs/cgroup
usual_lab=kmlab

# name_lab NAME: sets what follows from a lab's name
name_lab() {
  # A link's name has at most 15 characters, vb-12345678-a1 has 14.
  [[ $1 =~ ^[a-z][a-z0-9]{0,7}$ ]] || fail "KMCTL_LAB is the name of a lab, of at most 8 letters and digits, not $1"
  lab_name=$1 lab=$labs/$1 lab_prefix=lab-$1
  bridge=$lab_prefix wall=KMLAB-${1^^}
  read_network
}

# A lab that is not up has none.
read_network() {
  network=
  [ ! -s "$lab/number" ] || network=10.88.$(cat "$lab/number")
}

# machine HOST: the host's name among all machines
machine() {
  case $1 in
    master) echo "$lab_name-m" ;;
    cp*) echo "$lab_name-c${1#cp}" ;;
    agent*) echo "$lab_name-a${1#agent}" ;;
  esac
}

# take_lock DESCRIPTOR FILE: a lock goes with the folder that it is in, so whoever waited looks whether it is still there
take_lock() {
  while true; do
    mkdir -p "$(dirname "$2")"
    if eval "exec $1>>\"\$2\"" 2>/dev/null; then
      flock -w 300 "$1" || fail "another scripts/lab has been working for 5 minutes"
      [ ! "/proc/self/fd/$1" -ef "$2" ] || return 0
    fi
  done
}
lock_lab() { take_lock 9 "$lab/lock"; }
lock_machine() { take_lock 8 "$labs/.lock"; }
unlock_machine() { exec 8>&-; }

# Settings of the one kernel that all hosts share. Every kubelet, containerd and systemd watches files, and the default
# (128 watchers for a user) counts all hosts together. The others are what a kubelet sets at its start: on one host it
# would show on all of them, so that no host could be compared with itself before.
kernel_settings='fs.inotify.max_user_instances=8192 vm.overcommit_memory=1 kernel.panic=10 kernel.panic_on_oops=1'

# Takes what all labs share: a network's number, and the kernel's settings.
enter_machine() {
  local pair
  lock_machine
  # shellcheck disable=SC2086
  if [ ! -s "$labs/.kernel" ]; then
    for pair in $kernel_settings; do echo "${pair%=*}=$(sysctl -n "${pair%=*}")"; done >"$labs/.kernel.new"
    mv "$labs/.kernel.new" "$labs/.kernel"
  fi
  # shellcheck disable=SC2086
  sysctl -q -w $kernel_settings
  [ -s "$lab/number" ] || free_number >"$lab/number"
  unlock_machine
  read_network
}

free_number() {
  local number
  if [ "$lab_name" = $usual_lab ]; then
    echo 0
    return
  fi
  for number in $(seq 254); do
    # Not another lab's, and not a network that this machine has from somebody else.
    if ! grep -qsx "$number" "$labs"/*/number && [ -z "$(ip -4 route show root "10.88.$number.0/24")" ]; then
      echo "$number"
      return
    fi
  done
  fail "254 labs are up"
}

# Removes the lab's state, and with the last lab what all share. A lab that begins meanwhile has a folder by then, or waits.
leave_machine() {
  rm -rf "$lab/hosts"
  lock_machine
  rm -rf "$lab"
  if [ -z "$(find "$labs" -mindepth 1 -maxdepth 1 -type d)" ]; then
    [ ! -s "$labs/.kernel" ] || sysctl -q -p "$labs/.kernel"
    rm -f "$labs"/.kernel* "$labs/.lock"
    rmdir --ignore-fail-on-non-empty "$labs"
  fi
  unlock_machine
}

make_bridge() {
  ip link add "$bridge" type bridge
  ip address add "$network.1/24" dev "$bridge"
  ip link set "$bridge" up
}

# Between this machine and the hosts, in this direction, only SSH: what an operator outside the data centre sees. Another
# lab may be changing rules at the same time, which -w waits for.
wall_up() {
  wall_down
  iptables -w -N "$wall"
  iptables -w -A "$wall" -p tcp --dport 22 -j RETURN
  # Answers to what a host asked for are no connection of the operator's.
  iptables -w -A "$wall" -m conntrack --ctstate ESTABLISHED,RELATED --ctdir REPLY -j RETURN
  iptables -w -A "$wall" -j DROP
  iptables -w -I OUTPUT -o "$bridge" -j "$wall"
}

wall_down() {
  while iptables -w -D OUTPUT -o "$bridge" -j "$wall" 2>/dev/null; do :; done
  if iptables -w -F "$wall" 2>/dev/null; then iptables -w -X "$wall"; fi
}
