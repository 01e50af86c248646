# Sourced by scripts/lab: one host is a systemd-nspawn container with systemd as its first process, on the lab's bridge.
#
# Every process of a host lives below the cgroup lab-LAB/NAME of every hierarchy, and a cgroup namespace keeps it there.
# So the cgroups are the record of what the lab started: ending exactly those processes needs no other, and a lab
# whose starter was killed is cleared like any other. To the host, lab-LAB/NAME is the root of the tree: hosts do not
# see each other's cgroups, as machines would not.

host_address() {
  case $1 in
    master) echo "$network.5" ;;
    cp*) echo "$network.$((10 + ${1#cp}))" ;;
    agent*) echo "$network.$((20 + ${1#agent}))" ;;
    *) fail "no lab host is called $1" ;;
  esac
}

host_role() {
  case $1 in master) echo mesos-master ;; cp*) echo control-plane ;; *) echo agent ;; esac
}

# The processes of one host, or of all: what the kernel lists in the lab's cgroups. Cgroups that vanish meanwhile are no error.
lab_processes() {
  { find "$cgroups"/*/"$lab_prefix${1:+/$1}" -name cgroup.procs -exec cat {} + 2>/dev/null || true; } | sort -un | sed '/^0$/d'
}

# Ends a host, or all, whatever state they are in, and removes their cgroups.
end_processes() {
  local name=${1:-} deadline=$((SECONDS + 20)) left machines link
  while left=$(lab_processes "$name") && [ -n "$left" ]; do
    [ $SECONDS -lt $deadline ] || fail "processes of the lab do not end: $(tr '\n' ' ' <<<"$left")"
    # A frozen process cannot end.
    find "$cgroups/freezer/$lab_prefix${name:+/$name}" -name freezer.state -exec sh -c 'echo THAWED >"$1"' _ {} \; 2>/dev/null || true
    # shellcheck disable=SC2086
    kill -KILL $left 2>/dev/null || true
    sleep 0.1
  done
  if [ -n "$name" ]; then machines=$(machine "$name"); else machines="$lab_name-*"; fi
  # systemd-nspawn leaves these behind where /run is no tmpfs.
  # shellcheck disable=SC2086
  rm -rf /run/systemd/nspawn/propagate/$machines
  # A host's link goes with its network namespace, which a mount inside may hold for a while.
  for link in /sys/class/net/vb-$machines; do ip link delete "${link##*/}" 2>/dev/null || true; done
  # A cgroup is busy for a moment after its last process.
  for _ in $(seq 50); do
    find "$cgroups"/*/"$lab_prefix${name:+/$name}" -depth -type d -exec rmdir {} + 2>/dev/null || true
    [ -n "$(find "$cgroups"/*/"$lab_prefix${name:+/$name}" -maxdepth 0 2>/dev/null)" ] || return 0
    sleep 0.1
  done
  fail "cgroups of the lab cannot be removed: $(find "$cgroups"/*/"$lab_prefix${name:+/$name}" -type d | head -3 | tr '\n' ' ')"
}

# Lazily: what is still open somewhere must not keep the next lab from starting.
unmount_below() {
  local point
  awk -v below="$1/" 'index($5 "/", below) == 1 {print $5}' /proc/self/mountinfo | sort -r | while read -r point; do
    umount -l "$point"
  done
}

# A fresh disk for a host: the shared root under a layer of its own, and /var/lib as a plain folder, because
# containerd's snapshots cannot sit on an overlay.
make_host() {
  local name=$1 address role dir=$lab/hosts/$1 root
  address=$(host_address "$name") role=$(host_role "$name") root=$lab/hosts/$1/root
  unmount_below "$dir"
  rm -rf "$dir/upper" "$dir/work" "$dir/var-lib"
  mkdir -p "$dir/upper" "$dir/work" "$root"
  cp -a "$image/var/lib" "$dir/var-lib"
  mount -t overlay "$lab_prefix-$name" -o "lowerdir=$image,upperdir=$dir/upper,workdir=$dir/work" "$root"

  echo "$name" >"$root/etc/hostname"
  cp "$lab/etc-hosts" "$root/etc/hosts"
  : >"$root/etc/resolv.conf"
  install -D -m 600 "$lab/key.pub" "$root/root/.ssh/authorized_keys"
  [ -f "$dir/host-key" ] || ssh-keygen -q -t ed25519 -N '' -C "$name" -f "$dir/host-key"
  install -m 600 "$dir/host-key" "$root/etc/ssh/ssh_host_ed25519_key"
  install -m 644 "$dir/host-key.pub" "$root/etc/ssh/ssh_host_ed25519_key.pub"
  echo 'HostKey /etc/ssh/ssh_host_ed25519_key' >"$root/etc/ssh/sshd_config.d/host-key.conf"
  printf 'ADDRESS=%s\nGATEWAY=%s\n' "$address" "$network.1" >"$root/etc/lab-host"
  install -D -m 755 "$parts/host-prepare" "$root/usr/libexec/lab-host-prepare"
  enable_unit "$root" lab-host.service basic.target
  case $role in
    mesos-master) mesos_master_settings "$root" && enable_unit "$root" mesos-master.service multi-user.target ;;
    agent) mesos_agent_settings "$root" "$name" "$address" && enable_unit "$root" mesos-agent.service multi-user.target ;;
  esac
}

enable_unit() {
  install -m 644 "$parts/$2" "$1/etc/systemd/system/$2"
  mkdir -p "$1/etc/systemd/system/$3.wants"
  ln -sf "../$2" "$1/etc/systemd/system/$3.wants/$2"
}

# Starts a host's first process and returns; wait_for_host waits for its sshd.
boot_host() {
  local name=$1 dir=$lab/hosts/$1 controller group
  (
    for controller in "$cgroups"/*/; do
      group=$controller$lab_prefix/$name
      mkdir -p "$group"
      if [ -f "$group/cpuset.cpus" ]; then
        # A new cpuset is empty, and takes no process until it is filled, from the top.
        for level in "$controller$lab_prefix" "$group"; do
          cat "${controller}cpuset.cpus" >"$level/cpuset.cpus"
          cat "${controller}cpuset.mems" >"$level/cpuset.mems"
        done
      fi
      echo "$BASHPID" >"$group/cgroup.procs"
    done
    # No lock of the lab is handed on; neither is its terminal.
    exec 9>&- </dev/null >"$dir/console.log" 2>&1
    exec setsid "$parts/host-run" "$name" "$(machine "$name")" "$dir" "$mesos" "$bridge"
  ) &
  disown
}

host_ssh() {
  local name=$1
  shift
  ssh -F none -i "$lab/key" -o IdentitiesOnly=yes -o BatchMode=yes -o StrictHostKeyChecking=yes -o LogLevel=ERROR \
    -o UserKnownHostsFile="$lab/known_hosts" -o ConnectTimeout=3 "root@$(host_address "$name")" "$@"
}

wait_for_host() {
  local name=$1 deadline=$((SECONDS + 60))
  until host_ssh "$name" true 2>/dev/null </dev/null; do
    [ $SECONDS -lt $deadline ] ||
      { tail -20 "$lab/hosts/$name/console.log" >&2; fail "host $name does not answer on ssh within 60 seconds"; }
    sleep 0.2
  done
}
