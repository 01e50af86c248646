//! `up` again, `up` elsewhere, `up` after a kill, `down` and back.
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::failures::{difference, residue};
use crate::support::*;

#[test]
#[ignore = "needs the lab: scripts/test"]
fn a_second_up_changes_nothing_in_at_most_two_sessions() {
    let lab = Lab::ready();
    let hosts = lab.hosts("control-plane");
    let before: Vec<_> = hosts.iter().map(|h| (installed(&lab, h), units(&lab, h))).collect();
    let sessions: Vec<usize> = hosts.iter().map(|h| sessions(&lab, h)).collect();
    lab.kmctl(&["up", "--yes"]).success();
    for (index, host) in hosts.iter().enumerate() {
        // Asking for the count is itself one session.
        let used = self::sessions(&lab, host) - sessions[index] - 1;
        assert!(used <= 2, "{host}: {used} sessions");
        let after = (installed(&lab, host), units(&lab, host));
        assert_eq!(after, before[index], "{host}: paths, inodes, times, hashes and invocations");
    }
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn a_file_edited_by_hand_is_shown_by_plan_and_repaired_by_up() {
    let lab = Lab::ready();
    let host = lab.hosts("control-plane").remove(0);
    let path = "/etc/systemd/system/kube-scheduler.service";
    let good = lab.ssh(&host, &format!("sha256sum {path}")).success();
    lab.ssh(&host, &format!("echo '# by hand' >> {path}")).success();
    let plan = lab.kmctl(&["plan"]);
    assert!(plan.stdout.contains(path), "{}\n{}", plan.stdout, plan.stderr);
    assert!(plan.stdout.contains("-# by hand"), "the difference is shown: {}", plan.stdout);
    let changed = lab.ssh(&host, &format!("sha256sum {path}")).success();
    assert_ne!(changed, good, "plan touches nothing");
    lab.kmctl(&["up", "--yes"]).success();
    assert_eq!(lab.ssh(&host, &format!("sha256sum {path}")).success(), good);
    assert!(lab.kmctl(&["plan"]).stdout.contains("no changes"));
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn another_operator_with_three_files_and_only_tcp_22_goes_on() {
    let lab = Lab::ready();
    // Only cluster.yaml, key and known_hosts, in another folder, for another user with an empty home.
    let folder = temporary_folder();
    let home = folder.path().join("home");
    std::fs::create_dir(&home).expect("a folder");
    let source = std::path::Path::new(&lab.cluster).parent().expect("a folder").to_owned();
    let text = std::fs::read_to_string(&lab.cluster).expect("cluster.yaml");
    let key = value_of(&text, "identityFile");
    let known_hosts = value_of(&text, "knownHosts");
    for (from, to) in [(&key, "key"), (&known_hosts, "known_hosts")] {
        std::fs::copy(source.join(from), folder.path().join(to)).expect("copied");
    }
    let text = text.replace(&key, "key").replace(&known_hosts, "known_hosts");
    std::fs::write(folder.path().join("cluster.yaml"), text).expect("written");
    for program in ["kmctl", "km"] {
        std::fs::copy(lab.program(program), folder.path().join(program)).expect("copied");
    }
    run(Command::new("chown").args(["-R", "nobody"]).arg(folder.path())).success();
    run(Command::new("chmod").args(["0755"]).arg(folder.path())).success();

    let wall = OnlySsh::raise(&lab);
    let kmctl = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--", "env", "-i"])
            .arg(format!("HOME={}", home.display()))
            .arg("PATH=/usr/bin:/bin")
            .arg(folder.path().join("kmctl"))
            .args(arguments)
            .current_dir(folder.path());
        run(&mut command)
    };
    let up = kmctl(&["up", "--yes"]);
    assert!(up.ok(), "{}\n{}", up.stdout, up.stderr);
    assert!(up.stderr.contains("is up to date") || up.stdout.contains("is up to date"), "{}{}", up.stdout, up.stderr);
    let status: Value = serde_json::from_str(&kmctl(&["status", "-o", "json"]).success()).expect("JSON");
    assert!(status.is_object());
    kmctl(&["scale", "--max", "7"]).success();
    assert!(kmctl(&["scale"]).success().contains('7'));
    kmctl(&["scale", "--max", "20"]).success();
    kmctl(&["down", "--yes"]).success();
    drop(wall);
    let frameworks = lab.mesos_get("/state")["frameworks"].to_string();
    assert!(!frameworks.contains("kubernetes-"), "the framework has ended: {frameworks}");
    // The bundle went with the rest, and this operator has none: who made the cluster brings it back.
    let refused = kmctl(&["up", "--yes"]);
    assert_eq!(refused.status, 3, "{}", refused.stderr);
    lab.kmctl(&["up", "--yes"]).success();
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn a_pod_is_taken_right_after_the_first_up() {
    let lab = Lab::ready();
    lab.kmctl(&["down", "--yes", &format!("--purge={}", cluster_name(&lab))]).success();
    lab.kmctl(&["up", "--yes"]).success();
    lab.kmctl(&["kubeconfig", "--out", &lab.kubeconfig]).success();
    // Before the default service account exists, the API server refuses every pod of the namespace.
    lab.kubectl(&["run", "right-after", "--image=docker.io/library/busybox:latest", "--restart=Never"]).success();
    lab.kubectl(&["delete", "pod", "right-after", "--wait=false"]).success();
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn up_killed_at_five_points_then_up_again_gives_the_same_manifest() {
    let lab = Lab::ready();
    let host = lab.hosts("control-plane").remove(0);
    let undisturbed = manifest(&lab, &host);
    // The points are spread over what an undisturbed run took, from its beginning to its end.
    lab.kmctl(&["down", "--yes", &format!("--purge={}", cluster_name(&lab))]).success();
    let started = std::time::Instant::now();
    lab.kmctl(&["up", "--yes"]).success();
    let whole = started.elapsed();
    assert_eq!(difference(&undisturbed, &manifest(&lab, &host)), "", "a new cluster has the same manifest");
    lab.kmctl(&["down", "--yes", &format!("--purge={}", cluster_name(&lab))]).success();
    for point in 1..=5u32 {
        let mut child = lab
            .kmctl_command(&["up", "--yes"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("kmctl starts");
        std::thread::sleep(whole * point / 7);
        if point % 2 == 0 {
            // The other side dies; kmctl has to see that and end by itself.
            let _ = lab.ssh(&host, "pkill -9 -f 'km host'");
        } else {
            child.kill().expect("kmctl is killed");
        }
        child.wait().expect("it ended");
    }
    lab.kmctl(&["up", "--yes"]).success();
    assert_eq!(difference(&undisturbed, &manifest(&lab, &host)), "");
    lab.kmctl(&["kubeconfig", "--out", &lab.kubeconfig]).success();
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn down_and_up_keep_the_cluster_and_purge_leaves_nothing() {
    let lab = Lab::ready();
    lab.kmctl(&["down", "--yes", &format!("--purge={}", cluster_name(&lab))]).success();
    let everyone: Vec<String> = ["control-plane", "agent"].iter().flat_map(|r| lab.hosts(r)).collect();
    let clean: BTreeMap<&String, String> = everyone.iter().map(|h| (h, residue(&lab, h))).collect();
    lab.kmctl(&["up", "--yes"]).success();
    lab.kmctl(&["kubeconfig", "--out", &lab.kubeconfig]).success();

    let namespace = Namespace::new(&lab, "lasting");
    lab.kubectl(&["-n", "lasting", "create", "secret", "generic", "kept", "--from-literal=word=still-here"]).success();
    namespace.deployment("again", 2, "50m", "32Mi");
    lab.wait_for_pods("lasting", 2, NODE_START);
    let uid = lab.get(&["namespace", "kube-system"]).expect("there")["metadata"]["uid"].clone();
    let framework = lab.framework()["id"].clone();

    lab.kmctl(&["down", "--yes"]).success();
    lab.kmctl(&["up", "--yes"]).success();
    assert_eq!(lab.get(&["namespace", "kube-system"]).expect("there")["metadata"]["uid"], uid);
    let word = lab.get(&["-n", "lasting", "secret", "kept"]).expect("there")["data"]["word"].clone();
    assert_eq!(word, "c3RpbGwtaGVyZQ==", "the Secret is readable");
    lab.wait_for_pods("lasting", 2, NODE_START);
    assert_ne!(lab.framework()["id"], framework, "a new framework id");
    drop(namespace);

    // A purge that nobody confirmed does nothing.
    let refused = lab.kmctl(&["down", "--purge"]);
    assert_eq!(refused.status, 2, "{}{}", refused.stdout, refused.stderr);
    lab.kmctl(&["down", "--yes", &format!("--purge={}", cluster_name(&lab))]).success();
    for host in &everyone {
        eventually_or(
            Duration::from_secs(60),
            &format!("{host} to be as it was"),
            || difference(&clean[host], &residue(&lab, host)),
            || (residue(&lab, host) == clean[host]).then_some(()),
        );
        // What it was compared with had been purged too.
        lab.ssh(host, "! ls -d /usr/libexec/kubernetes /usr/local/lib/kmctl /etc/kubernetes /var/lib/kmctl /var/lib/etcd 2>/dev/null").success();
    }
    let frameworks = lab.mesos_get("/state")["frameworks"].clone();
    assert!(!frameworks.to_string().contains("kubernetes-"), "no framework is left: {frameworks}");
}

/// Drops everything from the operator to the lab but TCP 22, until it is dropped itself.
struct OnlySsh<'a>(&'a Lab);

impl OnlySsh<'_> {
    fn raise(lab: &Lab) -> OnlySsh<'_> {
        run(Command::new(lab.root.join("scripts/lab")).arg("wall-up")).success();
        OnlySsh(lab)
    }
}

impl Drop for OnlySsh<'_> {
    fn drop(&mut self) {
        let _ = run(Command::new(self.0.root.join("scripts/lab")).arg("wall-down"));
    }
}

/// Everything installed on a host: path, inode, modification time, hash.
fn installed(lab: &Lab, host: &str) -> String {
    let script = "find /etc/kubernetes /etc/kmctl /usr/local/lib/kmctl /etc/systemd/system -type f -printf '%p %i %T@ %m\\n' | sort; \
                  find /etc/kubernetes /etc/kmctl /etc/systemd/system -type f | sort | xargs sha256sum";
    lab.ssh(host, script).success()
}

fn units(lab: &Lab, host: &str) -> String {
    let script = "systemctl show -p Id,InvocationID etcd kube-apiserver kube-controller-manager kube-scheduler km-scheduler km-endpoints";
    lab.ssh(host, script).success()
}

/// How often sshd has started a session.
fn sessions(lab: &Lab, host: &str) -> usize {
    let count = lab.ssh(host, "journalctl --no-pager -o cat _COMM=sshd | grep -c 'Starting session'").success();
    count.trim().parse().expect("a number")
}

/// Paths, modes and hashes; certificates by subject and issuer; what is random by its presence.
pub fn manifest(lab: &Lab, host: &str) -> String {
    let script = r#"
cd /
find etc/kubernetes etc/kmctl usr/local/lib/kmctl etc/systemd/system -type f | sort | while read -r path; do
  mode=$(stat -c '%a %U' "$path")
  case $path in
    *.crt) what=$(openssl x509 -in "$path" -noout -subject -issuer 2>/dev/null | tr '\n' ' ') ;;
    *.key|*.pub|*.conf|*/encryption.yaml) what=random ;;
    *) what=$(sha256sum < "$path") ;;
  esac
  echo "$path $mode $what"
done"#;
    lab.ssh(host, script).success()
}

fn cluster_name(lab: &Lab) -> String {
    let text = std::fs::read_to_string(&lab.cluster).expect("cluster.yaml");
    let after = text.split("name:").nth(1).expect("a name");
    after.trim_start().split(|c: char| c.is_whitespace() || c == '}' || c == ',').next().expect("a word").to_owned()
}

/// The value of a key that stands once in cluster.yaml.
fn value_of(text: &str, key: &str) -> String {
    let after = text.split(&format!("{key}:")).nth(1).unwrap_or_else(|| panic!("cluster.yaml has no {key}"));
    after.trim_start().split(['\n', ',', '}']).next().expect("a value").trim().trim_matches(['"', '\'']).to_owned()
}
