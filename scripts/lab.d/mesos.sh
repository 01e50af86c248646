# Sourced by scripts/lab: settings of the Mesos master and agents, as files that their units read. Mesos takes every
# flag from a variable MESOS_<FLAG>.

# The regions and zones of agents 1, 2, 3, …: the second is remote to the master, so that a framework without the
# capability REGION_AWARE is never offered it.
agent_domain() {
  case $(($1 % 3)) in 1) echo us-a a ;; 2) echo us-b b ;; 0) echo us-a c ;; esac
}

domain() {
  printf '{"fault_domain":{"region":{"name":"%s"},"zone":{"name":"%s"}}}' "$1" "$2"
}

mesos_master_settings() {
  local root=$1
  # Only frameworks authenticate: operators' endpoints stay open, as on most clusters inside a company's network.
  install -d -m 700 "$root/etc/mesos"
  printf '{"credentials":[{"principal":"%s","secret":"%s"}]}\n' "$principal" "$(cat "$lab/mesos-secret")" >"$root/etc/mesos/credentials.json"
  chmod 600 "$root/etc/mesos/credentials.json"
  # Without ZooKeeper, an agent learns that its master was restarted from missing pings alone, after 5 of them: at the
  # default of 15 seconds each, a test would wait 75.
  cat >"$root/etc/default/mesos-master" <<-END
	LIBPROCESS_IP=$(host_address master)
	LIBPROCESS_PORT=5050
	MESOS_HOSTNAME=$(host_address master)
	MESOS_CLUSTER=$lab_name
	MESOS_WORK_DIR=/var/lib/mesos
	MESOS_REGISTRY=replicated_log
	MESOS_DOMAIN='$(domain us-a a)'
	MESOS_AGENT_PING_TIMEOUT=3secs
	MESOS_CREDENTIALS=/etc/mesos/credentials.json
	MESOS_AUTHENTICATE_HTTP_FRAMEWORKS=true
	MESOS_HTTP_FRAMEWORK_AUTHENTICATORS=basic
	END
}

mesos_agent_settings() {
  local root=$1 name=$2 address=$3 number=${2#agent} region zone disk
  read -r region zone < <(agent_domain "$number")
  if [ $((number % 2)) = 1 ]; then disk=ssd; else disk=hdd; fi
  # No more cpus than the machine has: a kubelet reports what it sees, and kube-scheduler would then refuse pods that
  # Mesos would take. MESOS_CGROUPS_ROOT: an agent destroys, as orphans, all containers under its root that it does
  # not know, and agents may share a kernel.
  cat >"$root/etc/default/mesos-agent" <<-END
	MASTER=$(host_address master):5050
	LIBPROCESS_IP=$address
	LIBPROCESS_PORT=5051
	MESOS_HOSTNAME=$name
	MESOS_WORK_DIR=/var/lib/mesos
	MESOS_RUNTIME_DIR=/run/mesos
	MESOS_REGISTRY=in_memory
	MESOS_LAUNCHER=linux
	MESOS_LAUNCHER_DIR=/usr/libexec/mesos
	MESOS_ISOLATION=cgroups/cpu,cgroups/mem
	MESOS_CGROUPS_ROOT=mesos-$name
	MESOS_RESOURCES='cpus:${LAB_CPUS:-$(nproc)};mem:${LAB_MEM:-3072};disk:10240;ports:${LAB_PORTS:-[31000-32000]}'
	MESOS_ATTRIBUTES='rack:r$number;generation:2015;disk:$disk'
	MESOS_DOMAIN='$(domain "$region" "$zone")'
	MESOS_GC_DELAY=${LAB_GC_DELAY:-1weeks}
	END
}

# Number of agents that the master has registered and active.
active_agents() {
  curl -s --max-time 2 "http://$(host_address master):5050/state" | jq -r '[.slaves[]? | select(.active)] | length' 2>/dev/null || echo 0
}

wait_for_agents() {
  local want=$1 deadline=$((SECONDS + 60)) seen
  until seen=$(active_agents) && [ "${seen:-0}" -ge "$want" ]; do
    [ $SECONDS -lt $deadline ] || fail "the Mesos master sees ${seen:-0} of $want agents after 60 seconds (scripts/lab logs agent1)"
    sleep 0.3
  done
}
